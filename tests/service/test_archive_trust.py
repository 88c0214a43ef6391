"""RM and CM take a change of storage keys or agents on a quorum's word only: not the archive's, not one agent's."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from keyark.client.access.home import Home
from keyark.client.access.passwords import no_password
from keyark.client.recovery.agent_keys import AgentKeys
from keyark.clock import ManualClock
from keyark.custody.agents import AgentShareKey, FormerShareKeyError, ShareKey
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.errors import KeyarkError
from keyark.errors.recovery import TrustChangeError
from keyark.identity.revoked import RevokedIdentities
from keyark.keys.key_types import KeyType
from keyark.records.v1.trust_pb2 import ArchiveTrustRecord
from keyark.service.checks.archive_trust import TABLE, StorageKeyTrust, go_back, read_kept
from keyark.service.settings import ArchiveTrust
from keyark.statements.ceremonies import (
    AgentTrust,
    Opening,
    agent_key_of,
    ceremony_digest,
    sign_decision,
    sign_request,
)
from keyark.statements.enrollment import new_request_id
from keyark.store import MemoryStore
from keyark.transparency import log
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.events import new_event, open_event
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.opening_facts import change_id, facts_digest
from keyark.transparency.receipts import ProvenLeaf, ReceiptVerifier, format_proof
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from keyark.v1.ceremony_pb2 import (
    CeremonyProof,
    CeremonyStatement,
    CeremonyType,
    Decision,
    OpeningFacts,
    ShareFacts,
    SignedStatement,
    StorageKeyFacts,
)
from tests.support.keys.pki import private_key, spki
from tests.support.running.rpc import identity_list
from tests.support.stories.transparency import new_log

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
        holders: Sequence[str] = ("alice", "bob", "carol"),
        quorum: int = 2,
        after: bytes = b"",
        share_key_ids: Mapping[str, bytes] | None = None,
        opens: Mapping[str, bytes] | None = None,
    ) -> CeremonyProof:
        """A ceremony as the archive would show it."""
        statement.ceremony_id = statement.ceremony_id or new_request_id()
        statement.reason = "why not"
        request = sign_request(statement, self.signers[requester])
        facts = opening_facts(storage_key_id, holders, quorum, after=after, share_key_ids=share_key_ids or {})
        if opens is not None:
            facts = facts_of_change(opens, after=after)
        opening = opening_leaf(request, statement.ceremony_id, storage_key_id, time_us, facts)
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
        return CeremonyProof(
            request=request,
            opening_leaf=opening,
            approvals=approvals,
            opening_proof=in_log(opening),
            opening_facts=facts,
        )

    def share_key(self, name: str) -> AgentShareKey:
        path = self.folder / "identities" / "agent" / name / "share-key.json"
        return AgentShareKey.from_json(path.read_text())


def id_of(change: CeremonyProof) -> bytes:
    return change_id(change.opening_leaf)


def opening_facts(
    storage_key_id: bytes,
    holders: Sequence[str],
    quorum: int,
    *,
    after: bytes = b"",
    share_key_ids: Mapping[str, bytes] = MappingProxyType({}),
) -> bytes:
    """Who holds a new storage key, if there is one, and the change before, as the leaf binds it."""
    facts = OpeningFacts(version=1, newest_change=after)
    if not storage_key_id:
        return facts.SerializeToString(deterministic=True)
    shares = [
        ShareFacts(
            agent=f"spiffe://example.org/agent/{name}",
            share_key_id=share_key_ids.get(name, bytes(32)),
            commitment=bytes(32),
        )
        for name in holders
    ]
    new = StorageKeyFacts(
        storage_key_id=storage_key_id, generation=2, pin_epoch=1, quorum=quorum, shares=shares
    )
    facts.new_storage_key.CopyFrom(new)
    return facts.SerializeToString(deterministic=True)


def facts_of_change(opens: Mapping[str, bytes], *, after: bytes) -> bytes:
    """What a change of agents opens: the first storage key, split among agents with these share keys."""
    shares = [
        ShareFacts(agent=f"spiffe://example.org/agent/{name}", share_key_id=key, commitment=bytes(32))
        for name, key in opens.items()
    ]
    first = StorageKeyFacts(storage_key_id=FIRST, generation=1, pin_epoch=1, quorum=2, shares=shares)
    facts = OpeningFacts(version=1, newest_change=after, storage_keys=[first])
    return facts.SerializeToString(deterministic=True)


def opening_leaf(
    request: SignedStatement, ceremony_id: bytes, storage_key_id: bytes, time_us: int, facts: bytes
) -> bytes:
    event = AuditEvent(
        version=1,
        type=EventType.EVENT_TYPE_CEREMONY_OPENED,
        time_us=time_us,
        ceremony_id=ceremony_id,
        ceremony_digest=ceremony_digest(request.statement),
        storage_key_id=storage_key_id,
        opening_facts_sha256=facts_digest(facts),
    )
    return new_event(event, AuditDetails()).leaf


def in_log(leaf: bytes, key: int = 1) -> bytes:
    """A proof of a log that has this leaf only, signed with a transport key."""
    head = Checkpoint("example.org/drm", 1, leaf_hash(leaf))
    note = NoteSigner.from_private_key(head.origin, private_key(KeyType.EC_P256, key)).sign(head)
    extra = LoggedEvent(leaf=leaf).SerializeToString()
    return format_proof(extra=extra, index=0, proof=[], checkpoint=note)


def proven(proof: bytes) -> ProvenLeaf:
    """Verify a proof as a subsystem does that knows one transport key."""
    return ReceiptVerifier("example.org/drm", spki(KeyType.EC_P256, 1)).verify_leaf(proof)


def unproven(_: bytes) -> ProvenLeaf:
    """P7: a head can raise the alarm, so nobody's is looked at whose change has no quorum's word."""
    raise AssertionError("a proof of a change that nobody approved was looked at")


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

    def trust(self, now_us: int = NOW_US) -> StorageKeyTrust:
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
            clock=ManualClock(now_us),
        )


async def test_a_quorums_word_puts_a_storage_key_in_force_and_it_is_logged_and_kept(agents: Agents) -> None:
    believer = Believer(agents)
    trust = await believer.open()
    assert trust.storage_key_ids == {FIRST}
    change = agents.proof(rotation(), storage_key_id=NEW)
    await trust.accept_changes([change, change], proven)
    await trust.accept_changes([change], proven)  # shown again, it changes nothing
    assert trust.storage_key_ids == {FIRST, NEW}
    assert trust.newest_change == id_of(change)
    entries = await believer.log.entries(limit=10)
    events = [AuditEvent.FromString(entry.event.leaf) for entry in entries]
    assert [(e.type, e.storage_key_id) for e in events[1:]] == [
        (EventType.EVENT_TYPE_ARCHIVE_TRUST_CHANGED, NEW)
    ]
    again = believer.trust()
    assert (again.storage_key_ids, again.newest_change) == ({FIRST, NEW}, id_of(change))


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
            await trust.accept_changes([change], unproven)
        assert refused.value.reason == "TRUST_CHANGE"
    assert trust.storage_key_ids == {FIRST}
    self_approving = await Believer(agents, self_approval=True).open()
    await self_approving.accept_changes(
        [agents.proof(rotation(), storage_key_id=NEW, approve=("alice", "bob"))], proven
    )
    assert NEW in self_approving.storage_key_ids


async def test_an_archive_cannot_put_its_own_key_under_the_agents_words(agents: Agents) -> None:
    trust = await Believer(agents).open()
    good = agents.proof(rotation(), storage_key_id=NEW)
    event = AuditEvent.FromString(good.opening_leaf)
    event.storage_key_id = os.urandom(32)
    swapped = CeremonyProof.FromString(good.SerializeToString())
    swapped.opening_leaf = event.SerializeToString()
    swapped.opening_proof = in_log(swapped.opening_leaf)
    other = agents.proof(rotation(), storage_key_id=NEW)
    mixed = CeremonyProof(
        request=other.request,
        opening_leaf=other.opening_leaf,
        opening_facts=other.opening_facts,
        approvals=list(good.approvals),
    )
    mixed.opening_proof = in_log(mixed.opening_leaf)
    foreign = CeremonyProof.FromString(good.SerializeToString())
    foreign.request.statement = other.request.statement
    recovery = agents.proof(rotation(), storage_key_id=NEW)
    recovered = AuditEvent.FromString(recovery.opening_leaf)
    recovered.type = EventType.EVENT_TYPE_RECOVERY_OPENED
    recovery.opening_leaf = recovered.SerializeToString()
    without_key = agents.proof(rotation())
    for change, reason in (
        (swapped, "TRUST_CHANGE"),
        (mixed, "DECISION_MISMATCH"),
        (foreign, "CEREMONY_SIGNATURE"),
        (recovery, "TRUST_CHANGE"),
        (without_key, "TRUST_CHANGE"),
        (CeremonyProof(request=good.request), "AUDIT_EVENT_INVALID"),
    ):
        with pytest.raises(KeyarkError) as refused:
            await trust.accept_changes([change], proven)
        assert refused.value.reason == reason
    assert trust.newest_change == b""


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
        change("alice", "bob", quorum=2), approve=("alice", "bob", "carol"), after=id_of(to_all)
    )
    with pytest.raises(KeyarkError) as refused:  # two of three are no quorum any more
        await trust.accept_changes(
            [to_all, agents.proof(rotation(), storage_key_id=NEW, after=id_of(to_all))], proven
        )
    assert refused.value.reason == "TRUST_CHANGE"
    assert trust.newest_change == id_of(to_all)
    await trust.accept_changes([to_all, to_two], proven)
    rollback = agents.proof(
        change("alice", "bob", "carol", quorum=1), approve=("alice", "bob"), after=id_of(to_all)
    )
    newest = id_of(to_two)
    carols = agents.proof(rotation(), storage_key_id=NEW, approve=("alice", "carol"), after=newest)
    for old in (rollback, carols):
        with pytest.raises(KeyarkError) as refused:
            await trust.accept_changes([old], proven)
        assert refused.value.reason == "TRUST_CHANGE"
    pair = ("alice", "bob")
    others = agents.proof(rotation(), storage_key_id=NEW, approve=pair, holders=pair, after=newest)
    with pytest.raises(
        TrustChangeError, match="split among agents that"
    ):  # their names, with other share keys
        await believer.trust().accept_changes([others], proven)
    keys = {name: sha256(agents.share_key(name).public_key).digest() for name in pair}
    theirs = agents.proof(
        rotation(), storage_key_id=NEW, approve=pair, holders=pair, after=newest, share_key_ids=keys
    )
    await believer.trust().accept_changes([theirs], proven)


async def test_a_change_that_is_not_in_the_followed_log_is_not_believed(agents: Agents) -> None:
    """P4, P6: a quorum's keys in other hands: without its leaf in the archive's log, their word counts for nothing."""
    trust = await Believer(agents).open()
    for proof, reason in (
        (b"", "RECEIPT_FORMAT"),
        (in_log(agents.proof(rotation(), storage_key_id=NEW).opening_leaf), "TRUST_CHANGE"),
        (None, "CHECKPOINT_SIGNATURE"),
    ):
        change = agents.proof(rotation(), storage_key_id=NEW)
        change.opening_proof = in_log(change.opening_leaf, key=2) if proof is None else proof
        with pytest.raises(KeyarkError) as refused:
            await trust.accept_changes([change], proven)
        assert refused.value.reason == reason
    assert (trust.storage_key_ids, trust.newest_change) == ({FIRST}, b"")


async def test_what_expired_agents_sign_is_not_believed_whatever_its_date(agents: Agents) -> None:
    """P4: former agents' keys, years later: request, leaf and approvals are dated back to when they were agents."""
    believer = Believer(agents)
    taken = agents.proof(rotation(), storage_key_id=NEW)
    await (await believer.open()).accept_changes([taken], proven)
    later = believer.trust(NOW_US + 3 * 365 * 86_400 * 1_000_000)
    change = agents.proof(rotation(), storage_key_id=os.urandom(32), after=id_of(taken))
    with pytest.raises(KeyarkError) as refused:
        await later.accept_changes([taken, change], proven)
    assert refused.value.reason == "CERTIFICATE_EXPIRED"
    assert later.storage_key_ids == {FIRST, NEW}


async def test_a_revoked_agent_is_none_of_a_quorum_and_what_it_approved_before_stays(agents: Agents) -> None:
    believer = Believer(agents)
    trust = await believer.open()
    before = agents.proof(rotation(), storage_key_id=NEW)
    await trust.accept_changes([before], proven)
    believer.revoke("alice", "bob")
    other = os.urandom(32)
    with pytest.raises(TrustChangeError):
        await trust.accept_changes(
            [before, agents.proof(rotation(), storage_key_id=other, after=id_of(before))], proven
        )
    assert trust.storage_key_ids == {FIRST, NEW}
    with_revoked_requester = Believer(agents, quorum=1)
    trust = await with_revoked_requester.open()
    with_revoked_requester.revoke("alice", "bob")
    await trust.accept_changes([agents.proof(rotation(), storage_key_id=other, quorum=1)], proven)
    assert other in trust.storage_key_ids


async def test_a_new_storage_key_counts_only_if_the_believed_agents_hold_it(agents: Agents) -> None:
    """A quorum may have approved with clients that did not look; the leaf says who holds what."""
    trust = await Believer(agents).open()
    made: list[CeremonyProof] = [
        agents.proof(rotation(), storage_key_id=NEW, holders=holders, quorum=quorum)
        for holders, quorum in (
            (("alice", "bob", "mallory"), 2),
            (("alice", "bob", "carol", "mallory"), 2),
            (("alice", "bob"), 2),
            (("alice", "bob", "carol"), 1),
        )
    ]
    without = agents.proof(rotation(), storage_key_id=NEW)
    without.ClearField("opening_facts")
    swapped = agents.proof(rotation(), storage_key_id=NEW)
    swapped.opening_facts = opening_facts(os.urandom(32), ("alice", "bob", "carol"), 2)
    for change in (*made, without, swapped):
        with pytest.raises(KeyarkError) as refused:
            await trust.accept_changes([change], proven)
        assert refused.value.reason == "TRUST_CHANGE"
    assert trust.storage_key_ids == {FIRST}


async def test_changes_follow_on_one_another_whatever_their_dates(agents: Agents) -> None:
    """P4, availability: a DRM dates one opening years ahead, or its clock is set back; what comes next counts."""
    trust = await Believer(agents).open()
    ahead = agents.proof(rotation(), storage_key_id=os.urandom(32), time_us=NOW_US + 300 * 86_400 * 10**6)
    honest = agents.proof(rotation(), storage_key_id=NEW, after=id_of(ahead))
    await trust.accept_changes([ahead, honest], proven)
    assert trust.newest_change == id_of(honest)
    assert NEW in trust.storage_key_ids


async def test_a_change_that_does_not_lead_on_from_the_newest_is_refused(agents: Agents) -> None:
    """P4: a DRM leaves one out, goes back behind one, or starts anew."""
    trust = await Believer(agents).open()
    first = agents.proof(rotation(), storage_key_id=os.urandom(32))
    second = agents.proof(rotation(), storage_key_id=os.urandom(32), after=id_of(first))
    with pytest.raises(TrustChangeError, match="does not follow the newest"):
        await trust.accept_changes([second], proven)
    await trust.accept_changes([first, second], proven)
    for after in (b"", id_of(first), os.urandom(32)):
        with pytest.raises(TrustChangeError, match="does not follow the newest"):
            await trust.accept_changes([agents.proof(rotation(), storage_key_id=NEW, after=after)], proven)
    assert trust.newest_change == id_of(second)


async def test_changes_that_were_accepted_before_they_named_each_other_are_passed_over(
    agents: Agents,
) -> None:
    believer = Believer(agents)
    trust = await believer.open()
    old = agents.proof(rotation(), storage_key_id=os.urandom(32))
    await trust.accept_changes([old], proven)
    record = ArchiveTrustRecord.FromString(believer.store.get(TABLE, b"archive") or b"")
    record.ClearField("newest_change")
    await believer.store.update(lambda txn: txn.put(TABLE, b"archive", record.SerializeToString()))
    trust = believer.trust()
    assert trust.newest_change == b""
    await trust.accept_changes([old, agents.proof(rotation(), storage_key_id=NEW, after=id_of(old))], proven)
    assert NEW in trust.storage_key_ids


async def test_only_what_was_believed_after_an_earlier_change_can_be_gone_back_to(agents: Agents) -> None:
    believer = Believer(agents)
    trust, changes, after = await believer.open(), [], b""
    for key_id in (NEW, os.urandom(32)):
        changes.append(agents.proof(rotation(), storage_key_id=key_id, after=after))
        after = id_of(changes[-1])
    await trust.accept_changes(changes, proven)
    first, second = (
        believer.store.read(lambda txn, c=c: read_kept(txn, c)) for c in (b"", id_of(changes[0]))
    )
    assert first is not None
    assert second is not None
    assert (list(first.storage_key_ids), list(second.storage_key_ids)) == ([], [NEW])
    assert believer.store.read(lambda txn: read_kept(txn, id_of(changes[1]))) is None
    present = ArchiveTrustRecord.FromString(believer.store.get(TABLE, b"archive") or b"")
    await believer.store.update(lambda txn: go_back(txn, present, second))
    again = believer.trust()
    assert (again.storage_key_ids, again.newest_change) == ({FIRST, NEW}, id_of(changes[0]))
    with pytest.raises(TrustChangeError):  # it leads on from what the archive lost
        await again.accept_changes(
            [agents.proof(rotation(), storage_key_id=os.urandom(32), after=id_of(changes[1]))], proven
        )
    other = agents.proof(rotation(), storage_key_id=os.urandom(32), after=id_of(changes[0]))
    await again.accept_changes([other], proven)
    assert again.newest_change == id_of(other)
    assert believer.store.read(lambda txn: read_kept(txn, id_of(changes[1]))) == present


async def test_a_change_whose_approvers_left_counts_once_a_quorum_that_is_in_force_leads_on_from_it(
    agents: Agents,
) -> None:
    """P7: carol approved her own leaving, and was revoked before the change was heard of. The others repeat it."""
    believer = Believer(agents)
    trust = await believer.open()
    believer.revoke("carol")
    pair = ("alice", "bob")
    keys = {name: sha256(agents.share_key(name).public_key).digest() for name in pair}
    change = CeremonyStatement(
        type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS,
        agents=[agent_key_of(agents.share_key(name)) for name in pair],
        quorum=2,
    )
    left = agents.proof(change, approve=("bob", "carol"))
    with pytest.raises(TrustChangeError, match="Fewer than 2"):
        await trust.accept_changes([left], proven)

    def after(which: CeremonyProof, **changed: Any) -> CeremonyProof:
        values: dict[str, Any] = {
            "requester": "carol",
            "approve": pair,
            "holders": pair,
            "share_key_ids": keys,
            "storage_key_id": NEW,
        }
        return agents.proof(rotation(), after=id_of(which), **(values | changed))

    unproven = after(left, approve=("bob",), storage_key_id=os.urandom(32))
    for chain in (
        [left, unproven],  # one of two
        [left, after(left, holders=("alice", "bob", "carol"))],  # among those of before
        [left, after(unproven)],  # one is left out
        [after(left)],
        [unproven, left, after(left)],
    ):
        with pytest.raises(TrustChangeError):
            await trust.accept_changes(chain, proven)
        assert (trust.newest_change, trust.agents) == (b"", believer.trust().agents)
    newest = after(unproven)
    await trust.accept_changes([left, unproven, newest], proven)
    for trusting in (trust, believer.trust()):
        assert trusting.newest_change == id_of(newest)
        assert trusting.agents == {f"spiffe://example.org/agent/{name}" for name in pair}
        assert trusting.storage_key_ids == {
            FIRST,
            NEW,
            AuditEvent.FromString(unproven.opening_leaf).storage_key_id,
        }
    last = open_event((await believer.log.entries(limit=10))[-1].event)
    assert last.details is not None
    assert "2 earlier changes" in last.details.message
    kept = [believer.store.read(lambda txn, c=c: read_kept(txn, id_of(c))) for c in (left, unproven)]
    assert [len(record.storage_key_ids) for record in kept if record] == [
        0,
        1,
    ]  # a restore may go back to each
    await trust.accept_changes([left, unproven, newest], proven)  # shown again, they change nothing


async def test_a_share_key_that_a_change_took_out_does_not_come_back(agents: Agents) -> None:
    """P4: whoever found a lost share key would open the share. Its public file is still signed by its agent."""

    def change(*keys: AgentShareKey) -> CeremonyStatement:
        return CeremonyStatement(
            type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS,
            agents=[agent_key_of(key) for key in keys],
            quorum=2,
        )

    believer = Believer(agents)
    trust = await believer.open()
    alice, lost, carol = (agents.share_key(name) for name in ("alice", "bob", "carol"))
    signer = agents.signers["bob"]
    bob = AgentShareKey.create(
        share_key=ShareKey.generate(), certificate=signer.certificate, certificate_key=signer.private_key
    )
    held = {
        name: sha256(key.public_key).digest()
        for name, key in (("alice", alice), ("bob", lost), ("carol", carol))
    }
    replaced = agents.proof(change(alice, bob, carol), opens=held)
    without_carol = agents.proof(
        change(alice, bob), opens=held | {"bob": sha256(bob.public_key).digest()}, after=id_of(replaced)
    )
    await trust.accept_changes([replaced, without_carol], proven)
    trust = believer.trust()  # it is remembered
    for former in ((alice, lost), (alice, bob, carol)):
        again = agents.proof(
            change(*former), requester="carol", approve=("alice", "bob"), after=id_of(without_carol)
        )
        with pytest.raises(FormerShareKeyError):
            await trust.accept_changes([again], proven)
    stays = agents.proof(
        change(bob, alice), requester="carol", approve=("alice", "bob"), after=id_of(without_carol)
    )
    await trust.accept_changes([stays], proven)


async def test_who_goes_back_knows_which_share_keys_later_changes_took_out(agents: Agents) -> None:
    """P4: a key that was lost after the backup was made is as lost after the restore."""

    def change(*keys: AgentShareKey) -> CeremonyStatement:
        return CeremonyStatement(
            type=CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS, agents=[agent_key_of(k) for k in keys], quorum=2
        )

    believer = Believer(agents)
    trust = await believer.open()
    alice, bob, carol = (agents.share_key(name) for name in ("alice", "bob", "carol"))
    signer = agents.signers["carol"]
    second, third = (
        AgentShareKey.create(
            share_key=ShareKey.generate(), certificate=signer.certificate, certificate_key=signer.private_key
        )
        for _ in range(2)
    )
    changes: list[CeremonyProof] = []
    for key in (carol, second, third):
        after = id_of(changes[-1]) if changes else b""
        changes.append(agents.proof(change(alice, bob, key), after=after))
    await trust.accept_changes(changes, proven)
    former = believer.store.read(lambda txn: read_kept(txn, id_of(changes[0])))
    assert former is not None
    present = ArchiveTrustRecord.FromString(believer.store.get(TABLE, b"archive") or b"")
    await believer.store.update(lambda txn: go_back(txn, present, former))
    trust = believer.trust()
    with pytest.raises(FormerShareKeyError):
        await trust.accept_changes(
            [agents.proof(change(alice, bob, second), after=id_of(changes[0]))], proven
        )
    for key in (carol, third):  # carol's first holds a share again
        trust = believer.trust()
        await trust.accept_changes([agents.proof(change(alice, bob, key), after=trust.newest_change)], proven)
