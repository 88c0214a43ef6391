"""A CM's store whose certificates change their standing, with the real domain code and a clock of the test's own."""

from __future__ import annotations

from typing import Any

from cm_service.certificates.search import search
from cm_service.records import CRL_ENTRIES, TABLES, find_certificate
from cm_service.revocation.steps import Revocations
from keyark.clock import ManualClock
from keyark.keys.key_types import KeyType
from keyark.policy.engine import PolicyEngine
from keyark.service.paging import Page
from keyark.statements.revocations import sign_revocation
from keyark.store import MemoryStore
from keyark.transparency.events import open_event
from keyark.v1.audit_pb2 import EventType
from keyark.v1.certificates_pb2 import Certificate, CertificateFilter, CertificateState
from keyark.v1.revocation_pb2 import RevocationReason
from tests.support.keys.certificates import add_pairs, pair_record
from tests.support.keys.pki import NOW, issue_pair, issuing_ca, private_key
from tests.support.stories.transparency import new_log

OFFICER = "spiffe://example.org/officer/officer"
COMPROMISE = RevocationReason.REVOCATION_REASON_KEY_COMPROMISE
SUPERSEDED = RevocationReason.REVOCATION_REASON_SUPERSEDED
HOLD = RevocationReason.REVOCATION_REASON_CERTIFICATE_HOLD
UNSPECIFIED = RevocationReason.REVOCATION_REASON_UNSPECIFIED


class Office:
    """A CM's store with some pairs, the first of real certificates, and what changes their standing."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOW * 1_000_000)
        self.log = new_log(clock=self.clock)
        self.store = MemoryStore(tables=TABLES, finisher=self.log.finisher)
        self.policy = PolicyEngine(subsystem="cm", rules={})
        self.revocations = Revocations(
            trust_domain="example.org", store=self.store, log=self.log, clock=self.clock, policy=self.policy
        )
        real = pair_record(0)
        issued = issue_pair(
            issuing_ca(), signing_serial=real.signing_serial, encryption_serial=real.encryption_serial
        )
        real.signing_certificate, real.encryption_certificate = issued.signing, issued.encryption
        self.pairs = [real, pair_record(1), pair_record(2, not_after=NOW - 1)]
        self.signing, self.encryption = real.signing_serial, real.encryption_serial

    async def open(self) -> Office:
        await self.log.open(self.store)
        await add_pairs(self.store, self.pairs)
        return self

    async def revoke(self, *serials: bytes, reason: Any = COMPROMISE, **more: Any) -> list[Certificate]:
        return await self.revocations.revoke(serials, caller=OFFICER, reason=reason, **more)

    async def hold(self, *serials: bytes) -> list[Certificate]:
        return await self.revocations.hold(serials, caller=OFFICER)

    async def release(self, *serials: bytes) -> list[Certificate]:
        return await self.revocations.release(serials, caller=OFFICER)

    async def revoke_own(self, raw: bytes, *, key: Any = None, signature: bytes = b"") -> list[Certificate]:
        signature = signature or sign_revocation(raw, key or private_key(KeyType.EC_P256))
        return await self.revocations.revoke_own(
            raw, signature=signature, caller="spiffe://example.org/client/enroller"
        )

    def state(self, serial: bytes) -> str:
        now = self.clock.now_us() // 1_000_000
        found = self.store.read(lambda txn: find_certificate(txn, serial, now))
        return CertificateState.Name(found.state).removeprefix("CERTIFICATE_STATE_")

    def entries(self) -> set[bytes]:
        """The serial numbers that the next list holds."""
        return {key[1:] for key, _ in self.store.read(lambda txn: txn.scan(CRL_ENTRIES, limit=1000))}

    def found_by_state(self, state: CertificateState.ValueType) -> set[bytes]:
        wanted = CertificateFilter(state=state)
        now = self.clock.now_us() // 1_000_000
        page = self.store.read(lambda txn: search(txn, wanted, Page(100, None), now))
        return {c.serial for c in page.certificates}

    async def events(self) -> list[Any]:
        """Type, serial number and reason of every change in the log."""
        opened = [open_event(entry.event) for entry in await self.log.entries(limit=1000)]
        return [
            (
                EventType.Name(o.event.type).removeprefix("EVENT_TYPE_CERTIFICATE_"),
                o.event.serials[0],
                o.details,
            )
            for o in opened
            if "CERTIFICATE_" in EventType.Name(o.event.type)
        ]

    def rows(self) -> Any:
        return self.store.read(lambda txn: {t: txn.scan(t, limit=10_000) for t in TABLES})
