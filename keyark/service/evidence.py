"""What RM and CM believe of the archive: receipts under transport certificates, in one consistent log.

A receipt counts only if a transport certificate of the trust anchor verifies it, its tree follows from the newest
tree that was accepted here, it names a storage key that the operator trusts, and it is for this very statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from keyark.clock import Clock
from keyark.errors import KeyarkError, Kind
from keyark.pki.certificates import load_certificates
from keyark.pki.revoked_identities import RevokedIdentities
from keyark.pki.statements import Statement
from keyark.pki.transport import TransportTrust
from keyark.service.archive_trust import StorageKeyTrust, open_storage_key_trust
from keyark.service.settings import ArchiveTrust, ServiceSettings
from keyark.store import Store, WriteTransaction
from keyark.transparency.archival import check_receipt_for
from keyark.transparency.checkpoint import CheckpointSignatureError
from keyark.transparency.heads import AcceptedHeads, LogInconsistentError
from keyark.transparency.log import Log
from keyark.transparency.receipts import ArchivalReceipt, ReceiptVerifier
from keyark.v1.audit_pb2 import CheckpointLink
from keyark.v1.common_pb2 import TransportCertificate


class UnknownStorageKeyError(KeyarkError):
    """The receipt names a storage key that nobody here was told to trust."""

    reason = "UNKNOWN_STORAGE_KEY"
    kind = Kind.PRECONDITION


class TransportCertificateMissingError(KeyarkError):
    """No transport certificate came along that verifies the receipt."""

    reason = "TRANSPORT_CERTIFICATE_MISSING"
    kind = Kind.PRECONDITION


@dataclass(frozen=True, kw_only=True)
class ArchiveEvidence:
    """What comes with a batch of receipts: steps of the DRM's log, and who signed them."""

    links: Sequence[CheckpointLink]
    transport_certificates: Sequence[TransportCertificate]


@dataclass(kw_only=True)
class ReceiptChecks:
    """Verifies receipts and keeps track of the DRM's log."""

    origin: str
    trust: TransportTrust
    storage_keys: StorageKeyTrust
    heads: AcceptedHeads
    store: Store
    log: Log
    clock: Clock
    _verifiers: dict[bytes, ReceiptVerifier] = field(default_factory=dict, repr=False)

    @property
    def revoked(self) -> RevokedIdentities:
        """Whose certificates are not in force any more."""
        return self.storage_keys.agent_trust.revoked

    async def verify_receipts(
        self, receipts: Sequence[bytes], evidence: ArchiveEvidence
    ) -> list[ArchivalReceipt | KeyarkError | None]:
        """Verify a batch of receipts; None stands for an empty one, an error for one that is refused.

        Raises CheckpointGapError where the links do not start at the newest accepted tree, and
        LogInconsistentError where the DRM's log contradicts itself: both concern the whole batch. The latter is
        an alarm, durable and logged, and comes at every call until an operator clears it.
        """
        verifiers = [self._verifier(certificate) for certificate in evidence.transport_certificates]
        try:
            self.heads.accept(evidence.links, [])
            return [self._verify(receipt, verifiers) if receipt else None for receipt in receipts]
        except LogInconsistentError:
            await self.heads.record_alarm(store=self.store, log=self.log, clock=self.clock)
            raise

    def _verifier(self, certificate: TransportCertificate) -> ReceiptVerifier:
        spki = self.trust.verify(certificate, self.clock.now_us() // 1_000_000)
        if spki not in self._verifiers:
            self._verifiers[spki] = ReceiptVerifier(self.origin, spki)
        return self._verifiers[spki]

    def _verify(self, receipt: bytes, verifiers: Sequence[ReceiptVerifier]) -> ArchivalReceipt | KeyarkError:
        refusal: KeyarkError = TransportCertificateMissingError(
            "No transport certificate came along that verifies the receipt; send the one of the DRM."
        )
        for verifier in verifiers:
            try:
                verified = verifier.verify(receipt)
                self.heads.accept([], [verified.head])
            except LogInconsistentError:
                raise
            except CheckpointSignatureError as error:
                refusal = error  # it may be the signature of another transport key
                continue
            except KeyarkError as error:
                return error
            return verified
        return refusal

    def check(self, receipt: ArchivalReceipt, statement: Statement) -> None:
        """Raise unless the receipt is for this statement, its keys and its owner, under a trusted storage key."""
        check_receipt_for(receipt, statement)
        if receipt.event.storage_key_id not in self.storage_keys.storage_key_ids:
            raise UnknownStorageKeyError(
                "The receipt names a storage key that neither the configuration nor a quorum of agents put in force."
            )

    def record(self, txn: WriteTransaction) -> None:
        """Make the newest accepted tree durable together with the rows that rely on it."""
        self.heads.record(txn)


def open_receipt_checks(
    service: ServiceSettings,
    archive: ArchiveTrust,
    *,
    revoked: RevokedIdentities,
    store: Store,
    log: Log,
    clock: Clock,
) -> ReceiptChecks:
    """Make the checks of a subsystem, going on from the newest tree that its store says it accepted."""
    origin = f"{service.trust_domain}/drm"
    return ReceiptChecks(
        origin=origin,
        trust=TransportTrust(
            anchors=load_certificates(service.trust_anchor), trust_domain=service.trust_domain
        ),
        storage_keys=open_storage_key_trust(
            service, archive, revoked=revoked, store=store, log=log, clock=clock
        ),
        heads=AcceptedHeads.load(store, origin=origin),
        store=store,
        log=log,
        clock=clock,
    )
