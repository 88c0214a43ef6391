"""Renewal: the holder of a pair in force asks for another one with new keys, proven by the present signing key.

Any pair is renewed once: what follows it is one history, and the archived key of the older pair stays what it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from cm_service.records import PAIRS, find_by_serial, revocation_of
from keyark.errors import NotFoundError
from keyark.errors.enrollment import AlreadyRenewedError, RenewalOnHoldError, RenewalRefusedError
from keyark.keys.key_types import SigningPublicKey
from keyark.records.v1.cm_pb2 import PairRecord
from keyark.statements.enrollment import Statement, verify_renewal
from keyark.store import ReadTransaction, WriteTransaction
from keyark.v1.certificates_pb2 import KeyRole
from keyark.v1.revocation_pb2 import RevocationReason
from keyark.x509.certificates import load_certificate


@dataclass(frozen=True, kw_only=True)
class RenewedPair:
    """The pair that is renewed, and the enrollment (32 bytes) that it came from."""

    enrollment_id: bytes
    pair: PairRecord


def check_renewal(txn: ReadTransaction, statement: Statement, now: int) -> RenewedPair | None:
    """Return the pair that a statement renews, None where it renews none; ``now`` is in seconds UTC.

    What the certificate's state is learns only who holds its key. Raises RenewalRefusedError and RenewalOnHoldError of
    it, RenewalSignatureError and AlreadyRenewedError.
    """
    if not statement.renews:
        return None
    try:
        found, pair = find_by_serial(txn, statement.renews)
    except NotFoundError:
        raise RenewalRefusedError(
            "No certificate of this CA has the serial number to renew; submit a new request."
        ) from None
    if found.role != KeyRole.KEY_ROLE_SIGNING:
        raise RenewalRefusedError(
            "Name the signing certificate; the other certificate of the pair is renewed with it."
        )
    public_key = load_certificate(pair.signing_certificate).public_key()
    verify_renewal(statement, cast("SigningPublicKey", public_key))
    if (revocation := revocation_of(pair, found.role)) is not None:
        if revocation.reason == RevocationReason.REVOCATION_REASON_CERTIFICATE_HOLD:
            raise RenewalOnHoldError("The certificate to renew is suspended; ask an officer to release it.")
        raise RenewalRefusedError("The certificate to renew is revoked; submit a new request instead.")
    if now > pair.not_after:
        raise RenewalRefusedError("The certificate to renew has expired; submit a new request instead.")
    if (pair.common_name, pair.email.lower()) != (statement.common_name, statement.email.lower()):
        raise RenewalRefusedError(
            "The certificate to renew has a different name or address; submit a new request instead."
        )
    if pair.renewed_by not in (b"", statement.enrollment_id):
        raise AlreadyRenewedError("The certificate was already renewed; renew the one that replaced it.")
    return RenewedPair(enrollment_id=found.enrollment_id, pair=pair)


def record_renewal(txn: WriteTransaction, renewed: RenewedPair, *, by: bytes) -> None:
    """Record by which enrollment (32 bytes) a pair was renewed, in the transaction that issues its successor."""
    renewed.pair.renewed_by = by
    txn.put(PAIRS, renewed.enrollment_id, renewed.pair.SerializeToString())
