"""RM and CM take a change of storage keys or agents on a quorum's word only: not the archive's, not one agent's."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from keyark.client.agent_keys import AgentKeys
from keyark.client.home import Home
from keyark.client.passwords import no_password
from keyark.clock import ManualClock
from keyark.crypto.agents import AgentShareKey
from keyark.crypto.ceremonies import (
    AgentTrust,
    Opening,
    agent_key_of,
    ceremony_digest,
    sign_decision,
    sign_request,
)
from keyark.deployment.authority import DeploymentAuthority
from keyark.errors import KeyarkError
from keyark.pki.revoked_identities import RevokedIdentities
from keyark.pki.statements import new_request_id
from keyark.service.archive_trust import TABLE, StorageKeyTrust, TrustChangeError
from keyark.service.settings import ArchiveTrust
from keyark.store import MemoryStore
from keyark.transparency import log
from keyark.transparency.events import new_event
from keyark.transparency.merkle import leaf_hash
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.ceremony_pb2 import CeremonyProof, CeremonyStatement, CeremonyType, Decision, SignedStatement
from tests.support.rpc import identity_list
from tests.support.transparency import new_log

APPROVE, REJECT = Decision.DECISION_APPROVE, Decision.DECISION_REJECT
NOW_US = time.time_ns() // 1000
FIRST, NEW = bytes(32), os.urandom(32)
ROTATE = CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY


class Agents:
    """Three agents of a deployment, who sign anything."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home.load(folder)
        self.signers = {
            name: AgentKeys.of(self.home, f"agent/{name}", no_password).signer
            for name in ("alice", "bob", "carol")
        }

    def proof(
        self,
        statement: CeremonyStatement,
        *,
        requester: str = "alice",
        approve: Sequence[str] = ("bob", "carol"),
        storage_key_id: bytes = b"",
        time_us: int = NOW_US,
        decision: Decision.ValueType = APPROVE,
    ) -> CeremonyProof:
        """A ceremony as the archive would show it."""
        statement.ceremony_id = statement.ceremony_id or new_request_id()
        statement.reason = "why not"
        request = sign_request(statement, self.signers[requester])
        opening = opening_leaf(request, statement.ceremony_id, storage_key_id, time_us)
        bound = Opening(digest=ceremony_digest(request.statement), leaf_hash=leaf_hash(opening))
        approvals = [
            sign_decision(
                bound,
                self.signers[name],
                decision=decision,
                time_us=time_us + 1,
                reason="no" if decision == REJECT else "",
            )
            for name in approve
        ]
        return CeremonyProof(request=request, opening_leaf=opening, approvals=approvals)

    def share_key(self, name: str) -> AgentShareKey:
        path = self.folder / "identities" / "agent" / name / "share-key.json"
        return AgentShareKey.from_json(path.read_text())


def opening_leaf(request: SignedStatement, ceremony_id: bytes, storage_key_id: bytes, time_us: int) -> bytes:
    event = AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_CEREMONY_OPENED,
        time_us=time_us,
        ceremony_id=ceremony_id,
        ceremony_digest=ceremony_digest(request.statement),
        storage_key_id=storage_key_id,
    )
    return new_event(event, AuditDetails()).leaf


def rotation() -> CeremonyStatement:
    return CeremonyStatement(type=ROTATE)


@pytest.fixture
def agents(deployment_folder: Path) -> Agents:
    return Agents(deployment_folder)


class Believer:
    """A subsystem that believes alice, bob and carol, two of them at once."""

    def __init__(self, agents: Agents, **settings: object) -> None:
        self.agents, self.settings = agents, settings
        self.log = new_log(clock=ManualClock(NOW_US))
        self.authority = DeploymentAuthority.load(agents.folder / "authority").internal
        self.revoked = RevokedIdentities([self.authority.certificate])
        self.store = MemoryStore(tables=(TABLE, *log.TABLES), finisher=self.log.finisher)

    async def open(self) -> StorageKeyTrust:
        await self.log.open(self.store)
        return self.trust()

    def revoke(self, *agents: str) -> None:
        serials = [self.agents.signers[agent].certificate.serial_number for agent in agents]
        data = identity_list(*serials, authority=self.authority)
        self.revoked.take(self.revoked.newer(data))

    def trust(self) -> StorageKeyTrust:
        values: dict[str, object] = {
            "trusted_storage_keys": [FIRST.hex()],
            "agents": [f"agent/{name}" for name in ("alice", "bob", "carol")],
            "quorum": 2,
        }
        return StorageKeyTrust(
            agent_trust=AgentTrust(
                trust_domain="example.org", anchors=[self.agents.home.trust_anchor], revoked=self.revoked
            ),
            configured=ArchiveTrust.model_validate(values | self.settings),
            store=self.store,
            log=self.log,
            clock=ManualClock(NOW_US),
        )


async def test_a_quorums_word_puts_a_storage_key_in_force_and_it_is_logged_and_kept(agents: Agents) -> None:
    believer = Believer(agents)
    trust = await believer.open()
    assert trust.storage_key_ids == {FIRST}
    change = agents.proof(rotation(), storage_key_id=NEW)
    await trust.accept_changes([change, change])
    await trust.accept_changes([change])  # shown again, it changes nothing
    assert trust.storage_key_ids == {FIRST, NEW}
    assert trust.known_changes == 1
    entries = await believer.log.entries(limit=10)
    events = [AuditEvent.FromString(entry.event.leaf) for entry in entries]
    assert [(e.type, e.storage_key_id) for e in events[1:]] == [
        (EventType.EVENT_TYPE_ARCHIVE_TRUST_CHANGED, NEW)
    ]
    again = believer.trust()
    assert (again.storage_key_ids, again.known_changes) == ({FIRST, NEW}, 1)


async def test_fewer_than_a_quorum_is_nobody(agents: Agents) -> None:
    trust = await Believer(agents).open()
    for change in (
        agents.proof(rotation(), storage_key_id=NEW, approve=()),
        agents.proof(rotation(), storage_key_id=NEW, approve=("bob",)),
        agents.proof(rotation(), storage_key_id=NEW, approve=("bob", "bob")),
        agents.proof(rotation(), storage_key_id=NEW, approve=("alice", "bob")),  # who asks does not count
        agents.proof(rotation(), storage_key_id=NEW, decision=REJECT),
    ):
        with pytest.raises(KeyarkError) as refused:
            await trust.accept_changes([change])
        assert refused.value.reason == "TRUST_CHANGE"
    assert trust.storage_key_ids == {FIRST}
    self_approving = await Believer(agents, self_approval=True).open()
    await self_approving.accept_changes(
        [agents.proof(rotation(), storage_key_id=NEW, approve=("alice", "bob"))]
    )
    assert NEW in self_approving.storage_key_ids


async def test_an_archive_cannot_put_its_own_key_under_the_agents_words(agents: Agents) -> None:
    trust = await Believer(agents).open()
    good = agents.proof(rotation(), storage_key_id=NEW)
    event = AuditEvent.FromString(good.opening_leaf)
    event.storage_key_id = os.urandom(32)
    swapped = CeremonyProof.FromString(good.SerializeToString())
    swapped.opening_leaf = event.SerializeToString()
    other = agents.proof(rotation(), storage_key_id=NEW)
    mixed = CeremonyProof(
        request=other.request, opening_leaf=other.opening_leaf, approvals=list(good.approvals)
    )
    foreign = CeremonyProof.FromString(good.SerializeToString())
    foreign.request.statement = other.request.statement
    recovery = agents.proof(rotation(), storage_key_id=NEW)
    recovered = AuditEvent.FromString(recovery.opening_leaf)
    recovered.type = EventType.EVENT_TYPE_RECOVERY_OPENED
    recovery.opening_leaf = recovered.SerializeToString()
    without_key = agents.proof(rotation())
    for change, reason in (
        (swapped, "DECISION_MISMATCH"),
        (mixed, "DECISION_MISMATCH"),
        (foreign, "CEREMONY_SIGNATURE"),
        (recovery, "TRUST_CHANGE"),
        (without_key, "TRUST_CHANGE"),
        (CeremonyProof(request=good.request), "AUDIT_EVENT_INVALID"),
    ):
        with pytest.raises(KeyarkError) as refused:
            await trust.accept_changes([change])
        assert refused.value.reason == reason
    assert trust.known_changes == 0


async def test_agents_change_by_the_present_ones_and_never_back_by_an_old_word(agents: Agents) -> None:
    def change(*names: str, quorum: int) -> CeremonyStatement:
        return CeremonyStatement(
            type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS,
            agents=[agent_key_of(agents.share_key(name)) for name in names],
            quorum=quorum,
        )

    believer = Believer(agents, self_approval=True)
    trust = await believer.open()
    to_all = agents.proof(change("alice", "bob", "carol", quorum=3), approve=("bob", "carol"))
    to_two = agents.proof(
        change("alice", "bob", quorum=2), approve=("alice", "bob", "carol"), time_us=NOW_US + 10
    )
    with pytest.raises(KeyarkError) as refused:  # two of three are no quorum any more
        await trust.accept_changes([to_all, agents.proof(rotation(), storage_key_id=NEW, time_us=NOW_US + 5)])
    assert refused.value.reason == "TRUST_CHANGE"
    assert trust.known_changes == 1
    await trust.accept_changes([to_all, to_two])
    rollback = agents.proof(
        change("alice", "bob", "carol", quorum=1), approve=("alice", "bob"), time_us=NOW_US + 7
    )
    carols = agents.proof(rotation(), storage_key_id=NEW, approve=("alice", "carol"), time_us=NOW_US + 20)
    for old in (rollback, carols):
        with pytest.raises(KeyarkError) as refused:
            await trust.accept_changes([old])
        assert refused.value.reason == "TRUST_CHANGE"
    await believer.trust().accept_changes(
        [agents.proof(rotation(), storage_key_id=NEW, approve=("alice", "bob"), time_us=NOW_US + 30)]
    )


async def test_a_revoked_agent_is_none_of_a_quorum_and_what_it_approved_before_stays(agents: Agents) -> None:
    believer = Believer(agents)
    trust = await believer.open()
    before = agents.proof(rotation(), storage_key_id=NEW)
    await trust.accept_changes([before])
    believer.revoke("alice", "bob")
    other = os.urandom(32)
    with pytest.raises(TrustChangeError):
        await trust.accept_changes(
            [before, agents.proof(rotation(), storage_key_id=other, time_us=NOW_US + 9)]
        )
    assert trust.storage_key_ids == {FIRST, NEW}
    with_revoked_requester = Believer(agents, quorum=1)
    trust = await with_revoked_requester.open()
    with_revoked_requester.revoke("alice", "bob")
    await trust.accept_changes([agents.proof(rotation(), storage_key_id=other)])
    assert other in trust.storage_key_ids
