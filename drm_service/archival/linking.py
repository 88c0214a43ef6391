"""Step 6, deliver, at the archive: mark a key CERTIFIED once its certificate is shown and fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from cryptography import x509

from drm_service.keys.search import index_certified
from drm_service.records import CERTIFICATES, put_row, read_row
from keyark.clock import Clock
from keyark.errors import KeyarkError, NotFoundError
from keyark.errors.enrollment import LinkedElsewhereError
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.statements.approvals import OfficerTrust
from keyark.statements.enrollment import Statement, reread_statement
from keyark.statements.pairs import check_encryption_certificate
from keyark.store import Store, WriteTransaction
from keyark.transparency.events import new_event
from keyark.transparency.log import Log, row_key
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.ceremony_pb2 import SignedStatement
from keyark.workers.turns import Turns
from keyark.x509.certificates import Validity, load_certificate, load_certificates
from keyark.x509.chains import CertificateChainError, lowest, verify_chain
from keyark.x509.serials import encode_serial


@dataclass(frozen=True, kw_only=True)
class LinkRequest:
    """An enrollment id (32 bytes), the encryption certificate (DER) issued for it, and an officer's approval if any."""

    enrollment_id: bytes
    certificate: bytes
    approval: SignedStatement | None = None


@dataclass(frozen=True, kw_only=True)
class _Link:
    """A certificate that was checked against its record."""

    statement: Statement
    certificate: bytes
    serial: bytes
    event: LoggedEvent


@dataclass(kw_only=True)
class IssuingCas:
    """The CAs whose certificates are linked: those of a file (PEM) that issued none of the others in it."""

    path: Path
    certificates: Sequence[x509.Certificate]

    @classmethod
    def load(cls, path: Path) -> IssuingCas:
        """Read the file; raises the errors of ``load_certificates``."""
        return cls(path=path, certificates=lowest(load_certificates(path)))

    async def reload(self) -> str:
        """Read the file again, which a rollover or another root replaced; raises as ``load``, and keeps what it had."""
        self.certificates = lowest(load_certificates(self.path))
        return f"{self.path.name} was read again; it names {len(self.certificates)} issuing CAs"

    def check_issued(self, certificate: x509.Certificate) -> None:
        """Raise CertificateChainError unless one of the CAs issued a certificate.

        It is verified at the time when it began, by its own word: that it was in force then is what the CA's signature
        says. So a clock that is wrong here keeps no key from being recovered, and neither does a link that comes late.
        """
        refusal = CertificateChainError(f"{self.path.name} has no issuing CA; complete it, and run `reload`.")
        for issuer in self.certificates:
            began = max(Validity.of(certificate).not_before, Validity.of(issuer).not_before)
            try:
                verify_chain(certificate, intermediates=(), anchors=[issuer], at=began)
            except CertificateChainError as error:
                refusal = error
            else:
                return
        raise refusal


@dataclass(frozen=True, kw_only=True)
class CertificateLinks:
    """Links certificates of the given issuing CAs to archived keys."""

    issuers: IssuingCas
    officers: OfficerTrust
    store: Store
    log: Log
    clock: Clock
    turns: Turns = field(default_factory=Turns, repr=False)

    async def link_certificates(self, requests: Sequence[LinkRequest]) -> list[KeyarkError | None]:
        """Link a batch in one durable commit; None stands where it is linked, now or before."""
        records = self.store.read(lambda txn: [read_row(txn, r.enrollment_id) for r in requests])
        check = [partial(self.check_certificate, *pair) for pair in zip(requests, records, strict=True)]
        links = await self.turns.run("link", check)
        return await self.store.update(lambda txn: [self._mark_certified(txn, link) for link in links])

    def check_certificate(
        self, request: LinkRequest, record: ArchivedKeyRecord | None
    ) -> _Link | KeyarkError:
        """Check that the certificate has the archived key, the owner's subject, and the CA's signature.

        The subject is the owner's as the owner signed it, or as an officer approved it.
        """
        try:
            if record is None:
                raise NotFoundError(
                    "No key is archived for this enrollment, so no certificate can be linked to it."
                )
            statement = reread_statement(record.statement)
            certificate = load_certificate(request.certificate)
            self.issuers.check_issued(certificate)
            asked = statement
            if request.approval is not None:  # the officer's word, not the RM's, for another name
                # the CM took it before the certificate began, so a clock that is behind that one is wrong
                now = max(self.clock.now_us() // 1_000_000, Validity.of(certificate).not_before)
                asked = self.officers.verify(request.approval, statement, now=now).applied_to(statement)
            check_encryption_certificate(certificate, asked)
        except KeyarkError as error:
            return error
        serial, digest = encode_serial(certificate.serial_number), sha256(request.certificate).digest()
        return _Link(
            statement=statement,
            certificate=request.certificate,
            serial=serial,
            event=self._leaf(statement, serial, digest),
        )

    def _mark_certified(self, txn: WriteTransaction, link: _Link | KeyarkError) -> KeyarkError | None:
        if isinstance(link, KeyarkError):
            return link
        record = read_row(txn, link.statement.enrollment_id)
        if record is None:
            return NotFoundError("The archived key is missing; run `keyark doctor`.")
        if record.certificate_serial == link.serial:
            return None
        if record.certificate_serial:
            return LinkedElsewhereError(
                "The archived key is linked to another certificate; run `keyark doctor`."
            )
        record.certificate_serial = link.serial
        put_row(txn, link.statement.enrollment_id, record)
        index_certified(txn, link.serial, link.statement.enrollment_id)
        self.log.append(txn, link.event, on_index=partial(_put_in_place, record, link))
        return None

    def _leaf(self, statement: Statement, serial: bytes, digest: bytes) -> LoggedEvent:
        event = AuditEvent(
            version=1,
            type=EventType.EVENT_TYPE_KEY_CERTIFIED,
            time_us=self.clock.now_us(),
            enrollment_id=statement.enrollment_id,
            encryption_spki_sha256=statement.encryption_spki_sha256,
            serials=[serial],
            certificate_sha256=[digest],
        )
        return new_event(event, AuditDetails())


def _put_in_place(record: ArchivedKeyRecord, link: _Link, txn: WriteTransaction, index: int) -> None:
    """Complete the rows with the place of the leaf, which is known once the commit group is."""
    record.certified_index = index
    put_row(txn, link.statement.enrollment_id, record)
    txn.append(CERTIFICATES, row_key(index), link.certificate)
