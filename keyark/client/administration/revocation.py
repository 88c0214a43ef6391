"""Revocation: by officers, and by whoever holds the signing key of a pair.

    async with open_session("deployment", "cm", identity="officer/officer") as session:
        await revoke_certificates(session, [serial], reason=RevocationReason.REVOCATION_REASON_KEY_COMPROMISE)

What returns is done and durable, and on the next list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from keyark.client.access.sessions import Session
from keyark.keys.key_types import SigningPrivateKey
from keyark.rpc.calling.channels import call
from keyark.statements.revocations import build_revocation, sign_revocation
from keyark.v1 import certificates_pb2 as pb
from keyark.v1.certificates_pb2_grpc import CertificateAdminServiceStub, CertificateStatusServiceStub
from keyark.v1.revocation_pb2 import RevocationReason

TIMEOUT: Final = 30.0
PUBLISHING: Final = 110.0


async def revoke_certificates(
    session: Session,
    serials: Sequence[bytes],
    *,
    reason: RevocationReason.ValueType,
    invalidity_time: int = 0,
) -> list[pb.Certificate]:
    """Revoke either all of the certificates or none; ``session`` is an officer's with the CM.

    ``invalidity_time`` is in seconds UTC. Raises NotFoundError, InvalidInputError, and errors with the reasons
    ALREADY_REVOKED and ALREADY_EXPIRED.
    """
    request = pb.RevokeCertificatesRequest(serials=serials, reason=reason, invalidity_time=invalidity_time)
    stub = CertificateAdminServiceStub(session.channel)
    return list((await call(stub.RevokeCertificates, request, timeout=TIMEOUT)).certificates)


async def hold_certificates(session: Session, serials: Sequence[bytes]) -> list[pb.Certificate]:
    """Suspend either all of the certificates or none; raises as ``revoke_certificates`` does."""
    stub = CertificateAdminServiceStub(session.channel)
    request = pb.HoldCertificatesRequest(serials=serials)
    return list((await call(stub.HoldCertificates, request, timeout=TIMEOUT)).certificates)


async def release_certificates(session: Session, serials: Sequence[bytes]) -> list[pb.Certificate]:
    """End the suspension of either all of the certificates or none.

    Raises an error with the reason NOT_ON_HOLD, and as ``revoke_certificates`` does.
    """
    stub = CertificateAdminServiceStub(session.channel)
    request = pb.ReleaseCertificatesRequest(serials=serials)
    return list((await call(stub.ReleaseCertificates, request, timeout=TIMEOUT)).certificates)


async def revoke_own_certificates(
    session: Session,
    serials: Sequence[bytes],
    *,
    signing_key: SigningPrivateKey,
    reason: RevocationReason.ValueType,
    invalidity_time: int = 0,
) -> list[pb.Certificate]:
    """Revoke one or both certificates of a pair with its signing key; ``session`` is a client's with the CM.

    Raises an error with the reason REVOCATION_SIGNATURE, and as ``revoke_certificates`` does.
    """
    statement = build_revocation(
        trust_domain=session.home.config.trust_domain,
        serials=serials,
        reason=reason,
        invalidity_time=invalidity_time,
    )
    request = pb.RevokeOwnCertificatesRequest(
        statement=statement, signature=sign_revocation(statement, signing_key)
    )
    stub = CertificateStatusServiceStub(session.channel)
    return list((await call(stub.RevokeOwnCertificates, request, timeout=TIMEOUT)).certificates)


async def publish_crls(session: Session) -> list[pb.Crl]:
    """Publish new certificate revocation lists now, and return the full ones; ``session`` is an officer's with the
    CM.

    Raises an error with the reason CRLS_NOT_CONFIGURED.
    """
    stub = CertificateAdminServiceStub(session.channel)
    return list((await call(stub.PublishCrls, pb.PublishCrlsRequest(), timeout=PUBLISHING)).crls)
