"""A CM's issuance alone: the store in memory, which runs every transaction twice; workers without a process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cm_service.issuance.serial_blocks import SerialBlocks
from cm_service.issuance.signing_worker import open_worker, worker_setup
from cm_service.issuance.steps import Issuance, PairRequest
from cm_service.issuer.profiles import ProfileArchival, ProfileSettings
from cm_service.records import PAIRS, TABLES, PairRecord, is_issued
from keyark.clock import ManualClock
from keyark.errors import KeyarkError
from keyark.identity.revoked import NOBODY_REVOKED
from keyark.identity.transport import TransportTrust
from keyark.keys.key_types import KeyType
from keyark.keys.private_keys import save_private_key
from keyark.policy.engine import PolicyEngine
from keyark.records.v1.cm_pb2 import SignPairTask
from keyark.service.checks.archive_trust import StorageKeyTrust
from keyark.service.checks.evidence import ReceiptChecks
from keyark.service.settings import ArchiveTrust
from keyark.statements.ceremonies import AgentTrust
from keyark.statements.enrollment import new_request_id, sign_statement
from keyark.store import MemoryStore
from keyark.transparency._rows import LEAVES, unpack_leaf
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.heads import AcceptedHeads
from keyark.transparency.log import Log
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1.audit_pb2 import AuditEvent
from keyark.v1.common_pb2 import CertificatePair
from keyark.x509.certificates import Validity, encode_certificate, save_certificates
from tests.support.keys.pki import NOW, issuing_ca, private_key, spki, statement_bytes
from tests.support.running.calls import caller_checks, signed_call
from tests.support.stories.transparency import new_log

NOTHING = ArchiveEvidence(brought_by="spiffe://example.org/rm", links=[], transport_certificates=[])


class InlinePool:
    """Signs here, with the real worker's function; ``alter`` stands between it and the CM."""

    def __init__(self, folder: Path, profiles: dict[str, ProfileSettings]) -> None:
        ca = issuing_ca()
        folder.chmod(0o700)
        save_private_key(folder / "ca-key.pem", ca.private_key)
        save_certificates(folder / "ca.pem", [ca.certificate])
        self._work = open_worker(
            worker_setup(
                issuer_key_uri="file:ca-key.pem",
                base=folder,
                chain=folder / "ca.pem",
                profiles={name: profile.content for name, profile in profiles.items()},
            )
        )
        self.alter: Callable[[list[bytes]], Sequence[bytes | KeyarkError]] = list
        self.asked: list[SignPairTask] = []

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        self.asked += [SignPairTask.FromString(item) for item in items]
        return self.alter(self._work(list(items)))


class Ca:
    """An Issuance with what it needs, none of it faked but the pool's process."""

    def __init__(self, folder: Path) -> None:
        profile = ProfileSettings(
            description="without archival",
            signing_key_types=[KeyType.EC_P256],
            encryption_key_types=[KeyType.EC_P256],
            archival=ProfileArchival.FORBIDDEN,
        )
        self.clock = ManualClock(NOW * 1_000_000)
        self.log: Log = new_log(clock=self.clock)
        self.store = MemoryStore(tables=TABLES, finisher=self.log.finisher)
        self.pool = InlinePool(folder, {"person": profile})
        ca = issuing_ca()
        self.issuance = Issuance(
            trust_domain="example.org",
            chain=[encode_certificate(ca.certificate)],
            issuer_validity=Validity.of(ca.certificate),
            issuer_key_type="ec-p256",
            profiles={"person": profile},
            store=self.store,
            log=self.log,
            policy=PolicyEngine(subsystem="cm", rules={}),
            clock=self.clock,
            receipts=ReceiptChecks(
                trust=TransportTrust(anchors=[], trust_domain="example.org"),
                keys=FollowedTransportKeys(TransportTrust(anchors=[], trust_domain="example.org")),
                storage_keys=StorageKeyTrust(
                    agent_trust=AgentTrust(trust_domain="example.org", anchors=[], revoked=NOBODY_REVOKED),
                    configured=ArchiveTrust(
                        trusted_storage_keys=["00" * 32], agents=["agent/alice"], quorum=1
                    ),
                    store=self.store,
                    log=self.log,
                    clock=self.clock,
                ),
                heads=AcceptedHeads("example.org/drm"),
                store=self.store,
                log=self.log,
                clock=self.clock,
            ),
            callers=caller_checks(self.clock),
            pool=self.pool,
            serials=SerialBlocks(store=self.store, log=self.log, clock=self.clock, crl_shards=1),
        )

    async def issue(self, *requests: PairRequest) -> list[CertificatePair | KeyarkError]:
        """Issue what the caller sends now, but for requests that have a signed call already."""
        now = self.clock.now_us() // 1_000_000
        sent = [r if r.call else replace(r, call=signed_call(r.statement, time=now)) for r in requests]
        return await self.issuance.issue_pairs(sent, NOTHING)

    def issued(self) -> list[PairRecord]:
        rows = self.store.read(lambda txn: txn.scan(PAIRS, limit=100))
        return [pair for pair in (PairRecord.FromString(value) for _, value in rows) if is_issued(pair)]

    def committed(self) -> list[AuditEvent]:
        """The leaves that are durable now."""
        rows = self.store.read(lambda txn: txn.scan(LEAVES, limit=1000))
        return [AuditEvent.FromString(unpack_leaf(index, row)[1]) for index, (_, row) in enumerate(rows)]

    async def events(self) -> list[Any]:
        entries = await self.log.entries(limit=100)
        return [AuditEvent.FromString(entry.event.leaf) for entry in entries]


def request(number: int = 0, **changes: Any) -> PairRequest:
    """A request whose keys are all its own."""
    raw = statement_bytes(
        request_id=changes.pop("request_id", None) or new_request_id(),
        signing_spki=spki(KeyType.EC_P256, 100 + 2 * number),
        encryption_spki=spki(KeyType.EC_P256, 101 + 2 * number),
        **changes,
    )
    signature = sign_statement(raw, private_key(KeyType.EC_P256, 100 + 2 * number))
    return PairRequest(statement=raw, signature=signature, receipt=b"")
