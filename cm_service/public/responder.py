"""The CM's OCSP responder: a key and certificate of their own, short-lived and renewed by the CM itself.

A new pair is made in a disposable worker, written beside the one in force, logged, and only then put in its place:
no certificate signs answers that the log does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from cm_service.public.ocsp_worker import responder_certificate
from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.files import erase_secret_file, exchange_secret_file
from keyark.keys.spki import public_key_id
from keyark.records.v1.cm_pb2 import MakeResponderTask
from keyark.store import Store
from keyark.transparency.events import EVENT_VERSION, new_event
from keyark.transparency.log import Log
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.x509.certificates import Validity, load_certificate, load_certificates
from keyark.x509.serials import encode_serial

BACKDATE_SECONDS: Final = 300
"""For clocks that are slow."""


class MakerPool(Protocol):
    """Where the CA key is while a responder is made."""

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        """Work each serialized MakeResponderTask to a certificate, DER."""


OpenMaker = Callable[[], AbstractAsyncContextManager[MakerPool]]


@dataclass(frozen=True, kw_only=True)
class Responder:
    """The responder in a file; ``chain`` is the file of the CA's certificate, ``lifetime`` in seconds."""

    path: Path
    chain: Path
    lifetime: int
    store: Store
    log: Log
    clock: Clock
    open_maker: OpenMaker

    def certificate(self) -> x509.Certificate | None:
        """Return the certificate in force, or None where there is none that can be read."""
        try:
            return responder_certificate(self.path)
        except KeyarkError:
            return None

    def issuer(self) -> x509.Certificate:
        """Return the CA's certificate; raises the errors of ``load_certificates``."""
        return load_certificates(self.chain)[0]

    async def renew_due(self) -> None:
        """Make a new responder where there is none, half of its life is over, or another CA signed it.

        Raises WorkerStartError, IssuerValidityError, UnwritableFileError and the errors of pool and store, with the
        one in force left as it is.
        """
        issuer = self.issuer()
        present = self.certificate()
        if present is not None and not self._is_due(present, issuer):
            return
        waiting = self.path.with_name(f".{self.path.name}.new")
        await asyncio.to_thread(erase_secret_file, waiting)  # of a renewal that was interrupted
        certificate = load_certificate(await self._make(waiting, Validity.of(issuer)))
        await self._record(certificate)
        await asyncio.to_thread(exchange_secret_file, waiting, self.path)

    def _is_due(self, present: x509.Certificate, issuer: x509.Certificate) -> bool:
        validity = Validity.of(present)
        now = self.clock.now_us() // 1_000_000
        half = (validity.not_before + validity.not_after) // 2
        return not validity.not_before <= now < half or not _is_of(present, issuer)

    async def _make(self, target: Path, within: Validity) -> bytes:
        validity = Validity.starting(
            self.clock.now_us() // 1_000_000,
            lifetime_seconds=self.lifetime,
            backdate_seconds=BACKDATE_SECONDS,
            within=within,
        )
        task = MakeResponderTask(
            path=str(target), not_before=validity.not_before, not_after=validity.not_after
        )
        async with self.open_maker() as pool:
            (made,) = await pool.run([task.SerializeToString()])
        if isinstance(made, KeyarkError):
            raise made
        return made

    async def _record(self, certificate: x509.Certificate) -> None:
        event = AuditEvent(
            version=EVENT_VERSION,
            type=EventType.EVENT_TYPE_RESPONDER_CERTIFIED,
            time_us=self.clock.now_us(),
            signing_spki_sha256=public_key_id(certificate.public_key()),
            serials=[encode_serial(certificate.serial_number)],
            certificate_sha256=[certificate.fingerprint(hashes.SHA256())],
        )
        leaf = new_event(event, AuditDetails())
        await self.store.update(lambda txn: self.log.append(txn, leaf))


def _is_of(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether a certificate names an issuer, by its name as encoded and its key identifier."""
    is_named = certificate.issuer.public_bytes() == issuer.subject.public_bytes()
    return is_named and _authority_of(certificate) == _own_key_id(issuer)


def _authority_of(certificate: x509.Certificate) -> bytes | None:
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def _own_key_id(issuer: x509.Certificate) -> bytes:
    return issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
