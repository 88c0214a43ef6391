"""What RM and CM believe of the archive: receipts under transport certificates, in one consistent log.

A receipt counts only if a transport certificate of the trust anchor verifies it, its tree follows from the newest
tree that was accepted here, it names a storage key that the operator trusts, and it is for this very statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple

from keyark.clock import Clock
from keyark.errors import KeyarkError
from keyark.errors.services import LogInconsistentError, UnknownStorageKeyError
from keyark.identity.revoked import RevokedIdentities
from keyark.identity.transport import TransportTrust
from keyark.keys.spki import key_id
from keyark.records.v1 import trust_pb2
from keyark.service.checks.archive_trust import TABLE, StorageKeyTrust, open_storage_key_trust
from keyark.service.settings import ArchiveTrust, ServiceSettings
from keyark.statements.enrollment import Statement
from keyark.store import Store, WriteTransaction
from keyark.transparency.archival import ArchiveEvidence, check_receipt_for
from keyark.transparency.checkpoint import VerifiedHead
from keyark.transparency.heads import AcceptedHeads
from keyark.transparency.log import Log
from keyark.transparency.receipts import ArchivalReceipt, ProvenLeaf
from keyark.transparency.transport_keys import (
    KNOWN_KEY,
    FollowedTransportKeys,
    TransportKeyRetiredError,
)
from keyark.v1.audit_pb2 import CheckpointLink
from keyark.workers.turns import Turns
from keyark.x509.certificates import load_certificates

LANE: Final = "evidence"
_TRANSPORT_KEYS: Final = b"transport_keys"


class _Verified(NamedTuple):
    """A receipt whose signature is good, and the known transport key that made it."""

    receipt: ArchivalReceipt
    key: trust_pb2.FollowedTransportKey


@dataclass(kw_only=True)
class ReceiptChecks:
    """Verifies receipts and keeps track of the DRM's log; signatures are verified in turns with other work."""

    trust: TransportTrust
    storage_keys: StorageKeyTrust
    heads: AcceptedHeads
    keys: FollowedTransportKeys
    store: Store
    log: Log
    clock: Clock
    turns: Turns = field(default_factory=Turns, repr=False)

    @property
    def revoked(self) -> RevokedIdentities:
        """Whose certificates are not in force any more."""
        return self.storage_keys.agent_trust.revoked

    async def verify_receipts(
        self, receipts: Sequence[bytes], evidence: ArchiveEvidence
    ) -> list[ArchivalReceipt | KeyarkError | None]:
        """Verify a batch of receipts; None stands for an empty one, an error for one that is refused.

        Raises InvalidInputError for more evidence than a call may have, the errors of ``follow`` and
        ``accept_changes``, CheckpointGapError where the links do not start at the newest accepted tree, and
        LogInconsistentError where the DRM's log contradicts itself: these concern the whole batch. The last is an
        alarm, durable and logged, and comes at every call until an operator clears it.
        """
        evidence.check_sizes()
        await self.follow(evidence)
        await self.accept_changes(evidence)
        verified = await self.turns.run(LANE, [partial(self._verify, receipt) for receipt in receipts])
        # Without a pause from here on: another call's links would take the place of these.
        async with self.recording_alarms(evidence.brought_by):
            self.heads.accept(evidence.links, [])
            return [self._follow_to(found) if isinstance(found, _Verified) else found for found in verified]

    async def follow(self, evidence: ArchiveEvidence) -> None:
        """Take up the first transport key or changes of it, durably, before anything is verified with them.

        Raises TransportKeyUnprovenError and the other errors of ``FollowedTransportKeys.take``.
        """
        evidence.check_sizes()
        before = self.keys.record.SerializeToString(deterministic=True)
        for certificate in evidence.transport_certificates[:1]:
            self.keys.begin(certificate, at=self._now())
        try:
            await self.turns.run(
                LANE,
                [
                    partial(self.keys.take, change, partial(self.heads.check_same_log, link=change.link))
                    for change in evidence.transport_key_changes
                ],
            )
        finally:
            value = self.keys.record.SerializeToString(deterministic=True)
            if value != before:
                await self.store.update(lambda txn: put_transport_keys(txn, self.keys))

    async def accept_changes(self, evidence: ArchiveEvidence) -> None:
        """Believe changes of storage keys and agents; each opening has to be in the log that is followed."""
        changes, links = evidence.trust_changes, evidence.links
        if not changes:
            return
        async with self.recording_alarms(evidence.brought_by):
            self.heads.accept(links, [])
            await self.storage_keys.accept_changes(changes, partial(self._prove, links))

    @asynccontextmanager
    async def recording_alarms(self, brought_by: str) -> AsyncIterator[None]:
        """Make an alarm that is raised inside durable; the entry in the own log names who brought the head."""
        try:
            yield
        except LogInconsistentError:
            await self.heads.record_alarm(
                store=self.store, log=self.log, clock=self.clock, brought_by=brought_by
            )
            raise

    def _prove(self, links: Sequence[CheckpointLink], proof: bytes) -> ProvenLeaf:
        leaf, key = self.keys.verify_leaf(proof)
        ends = (leaf.head.checkpoint.size, self.heads.size)
        backwards = [link for link in links if (link.first_size, link.second_size) == ends]
        if backwards and ends[0] < ends[1]:  # it was accepted under a newer head
            self.check_signer(leaf.head, key)
            self.heads.check_same_log(leaf.head, backwards[0])
            return leaf
        self.heads.accept(links, [])  # again: another call's may have taken their place meanwhile
        self._accept(leaf.head, key)
        return leaf

    def _verify(self, receipt: bytes) -> _Verified | KeyarkError | None:
        if not receipt:
            return None
        try:
            return _Verified(*self.keys.verify_receipt(receipt))
        except KeyarkError as error:
            return error

    def _follow_to(self, verified: _Verified) -> ArchivalReceipt | KeyarkError:
        """Accept the head of a receipt whose signature was verified, or return why not."""
        try:
            self._accept(verified.receipt.head, verified.key)
        except LogInconsistentError:
            raise
        except KeyarkError as error:
            return error
        return verified.receipt

    def _accept(self, head: VerifiedHead, key: trust_pb2.FollowedTransportKey) -> None:
        self.check_signer(head, key)
        self.heads.accept([], [head])

    def check_signer(self, head: VerifiedHead, key: trust_pb2.FollowedTransportKey) -> None:
        """Raise unless a head was accepted before, or the key that signed it is in force, with a certificate that is.

        Raises TransportKeyRetiredError and TransportKeyEndedError.
        """
        if self.heads.remembers(head.checkpoint):
            return
        if not self.keys.is_in_force(key):
            raise TransportKeyRetiredError(
                f"The head of {head.checkpoint.size} leaves is signed by transport key "
                f"{key_id(key.public_key).hex()}, which has been replaced, and was not accepted before; fetch "
                "the receipt again.",
                metadata={KNOWN_KEY: self.keys.newest_id.hex()},
            )
        self.keys.check_in_force(key, at=self._now())

    def _now(self) -> int:
        return self.clock.now_us() // 1_000_000

    def check(self, receipt: ArchivalReceipt, statement: Statement) -> None:
        """Raise unless the receipt is for this statement, its keys and its owner, under a trusted storage key."""
        check_receipt_for(receipt, statement)
        if receipt.event.storage_key_id not in self.storage_keys.storage_key_ids:
            raise UnknownStorageKeyError(
                "The receipt names a storage key that is neither in the configuration nor approved by a "
                "quorum of agents."
            )

    def record(self, txn: WriteTransaction) -> None:
        """Make the newest accepted tree durable together with the rows that rely on it."""
        self.heads.record(txn)


def followed_transport_keys(trust: TransportTrust, store: Store) -> FollowedTransportKeys:
    """Go on from the transport keys that a subsystem's store says are known."""
    known = trust_pb2.FollowedTransportKeys.FromString(store.get(TABLE, _TRANSPORT_KEYS) or b"")
    return FollowedTransportKeys(trust, known)


def put_transport_keys(txn: WriteTransaction, keys: FollowedTransportKeys) -> None:
    """Write down which transport keys are known."""
    txn.put(TABLE, _TRANSPORT_KEYS, keys.record.SerializeToString(deterministic=True))


def open_transport_trust(service: ServiceSettings) -> TransportTrust:
    """Whose transport certificates count: those of the internal CA of [service]."""
    return TransportTrust(anchors=load_certificates(service.trust_anchor), trust_domain=service.trust_domain)


def open_receipt_checks(
    service: ServiceSettings,
    archive: ArchiveTrust,
    *,
    revoked: RevokedIdentities,
    store: Store,
    log: Log,
    clock: Clock,
    turns: Turns,
) -> ReceiptChecks:
    """Make the checks of a subsystem, going on from the newest tree that its store says it accepted."""
    trust = open_transport_trust(service)
    return ReceiptChecks(
        trust=trust,
        storage_keys=open_storage_key_trust(
            service, archive, revoked=revoked, store=store, log=log, clock=clock, turns=turns
        ),
        heads=AcceptedHeads.load(store, origin=f"{service.trust_domain}/drm"),
        keys=followed_transport_keys(trust, store),
        store=store,
        log=log,
        clock=clock,
        turns=turns,
    )
