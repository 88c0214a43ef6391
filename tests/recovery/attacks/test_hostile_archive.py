"""P4: an archive that lies coherently, in a log that it signs itself, gets nothing from an honest agent."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from keyark.client import KeyarkError, RecoveryClient
from keyark.client.access.passwords import no_password
from keyark.client.access.sessions import open_session
from keyark.client.audit.log_heads import LogHead
from keyark.client.trust.log_memory import remembered
from keyark.client.trust.witnesses import Witnesses
from keyark.custody.storage import HybridPrivateKey
from keyark.deployment.access.authority import DeploymentAuthority
from keyark.deployment.initialize import DeploymentPlan, make_person
from keyark.errors import Kind
from keyark.identity.spiffe import SpiffeId
from keyark.keys.private_keys import load_private_key
from keyark.records.v1.drm_pb2 import SoftwareToken
from keyark.rpc.calling.channels import call
from keyark.rpc.calling.retries import NO_RETRIES
from keyark.statements.ceremonies import agent_key_of, ceremony_digest
from keyark.transparency.checkpoint import VerifiedHead
from keyark.transparency.cosignatures import Cosigner
from keyark.v1 import audit_pb2
from keyark.v1.audit_pb2 import CosignCheckpointResponse, EventType, GetCheckpointResponse
from keyark.v1.audit_pb2_grpc import AuditServiceStub, add_AuditServiceServicer_to_server
from keyark.v1.ceremony_pb2 import CeremonyProof, CeremonyStatement, CeremonyType
from keyark.v1.recovery_pb2 import ArchiveChange, CeremonyState
from tests.support.running.deployment import Deployment, running
from tests.support.stories.attacks import refusals_of
from tests.support.stories.hostile_archive import AGENTS, HostileArchive, hostile_archive, share_key
from tests.support.stories.recovering import agents, approve, lose_key, state
from tests.support.stories.relays import Alter, channel, relaying, service_identity
from tests.support.stories.rotation import rotate

ROTATE = CeremonyType.CEREMONY_TYPE_ROTATE_STORAGE_KEY
CHANGE = CeremonyType.CEREMONY_TYPE_CHANGE_AGENTS
RESEAL = CeremonyType.CEREMONY_TYPE_RESEAL_KEYS


@pytest.fixture
def folder(deployment_folder: Path) -> Path:
    """With mallory, an agent by certificate, who is the archive's friend and holds no share."""
    authority = DeploymentAuthority.load(deployment_folder / "authority")
    make_person(DeploymentPlan(folder=deployment_folder), authority, SpiffeId("example.org", "agent/mallory"))
    return deployment_folder


@pytest_asyncio.fixture
async def archive(folder: Path) -> AsyncIterator[HostileArchive]:
    async with hostile_archive(folder) as archive:
        yield archive


@pytest_asyncio.fixture
async def witnessed(folder: Path) -> AsyncIterator[HostileArchive]:
    """With RM and CM, who never saw another log of the DRM."""
    async with running(folder), hostile_archive(folder) as archive:
        yield archive


async def refused(archive: HostileArchive, ceremony_id: bytes) -> KeyarkError:
    """Let bob review and approve; what he refuses with, and that nothing of his reached the archive."""
    with pytest.raises(KeyarkError) as refusal:
        async with RecoveryClient.open(archive.home, identity="agent/bob", retries=NO_RETRIES) as bob:
            await bob.approve(await bob.review(ceremony_id))
    assert archive.approvals == []
    return refusal.value


async def approved(archive: HostileArchive, ceremony_id: bytes) -> list[bytes]:
    """Let bob approve what is as it should be; returns the storage keys whose shares he gave."""
    async with RecoveryClient.open(archive.home, identity="agent/bob", retries=NO_RETRIES) as bob:
        await bob.approve(await bob.review(ceremony_id))
    return [share.storage_key_id for share in archive.approvals.pop().shares]


def recovery(*key_ids: bytes) -> CeremonyStatement:
    return CeremonyStatement(
        type=CeremonyType.CEREMONY_TYPE_RECOVER_KEYS,
        key_ids=sorted(key_ids),
        recipient_public_key=HybridPrivateKey.generate().public_key.to_bytes(),
    )


def rotation() -> CeremonyStatement:
    return CeremonyStatement(type=ROTATE)


def change(folder: Path, *agents: str, quorum: int = 2) -> CeremonyStatement:
    keys = [agent_key_of(share_key(folder, agent)) for agent in agents]
    return CeremonyStatement(type=CHANGE, agents=keys, quorum=quorum)


@asynccontextmanager
async def lying_witness(deployment: Deployment, role: str, alter: Alter) -> AsyncIterator[int]:
    """A witness that alters its answers; yields its port."""
    address = getattr(deployment.home().config, role)
    upstream = channel(address, deployment.home().identity("agent/bob", lambda _: None), role)
    audit = (audit_pb2.DESCRIPTOR.services_by_name["AuditService"], add_AuditServiceServicer_to_server)
    identity = service_identity(deployment.folder, role)
    relay = relaying(identity=identity, upstream=upstream, services=[audit], alter=alter)
    async with upstream, relay as server:
        yield server.port


def key_id(token: SoftwareToken) -> bytes:
    return sha256(token.public_key).digest()


async def test_what_is_as_it_should_be_is_approved(witnessed: HostileArchive) -> None:
    """Else the refusals below would say nothing."""
    archive = witnessed
    first, second, third = (archive.token(generation=number) for number in (1, 2, 3))
    archive.pin(first, second)
    assert await approved(archive, await archive.open(rotation(), makes=third)) == []
    archive.pin(first, second)
    wanted, key = await archive.archive(first, enrollment_id=b"e" * 32)
    ceremony = await archive.open(recovery(wanted), opens=[first], keys=[key])
    assert await approved(archive, ceremony) == [key_id(first)]
    moved = await archive.reseal(key, second, encryption_spki_sha256=wanted, enrollment_id=b"e" * 32)
    ceremony = await archive.open(recovery(wanted), opens=[second], keys=[moved])
    assert await approved(archive, ceremony) == [key_id(second)]
    archive.pin(first, second)
    ceremony = await archive.open(change(archive.folder, *AGENTS), opens=[first, second])
    assert await approved(archive, ceremony) == [key_id(first), key_id(second)]
    archive.pin(first, second)
    statement = CeremonyStatement(type=RESEAL, storage_key_id=key_id(second))
    assert await approved(archive, await archive.open(statement, opens=[first])) == [key_id(first)]


async def test_changes_that_a_quorum_of_the_pinned_agents_approved_are_followed_in_their_order(
    witnessed: HostileArchive,
) -> None:
    archive = witnessed
    first, second = archive.token(), archive.token(generation=2)
    archive.pin(first)
    archive.changes = [
        await archive.change(rotation(), approve=["bob", "carol"], makes=second),
        await archive.change(
            change(archive.folder, "bob", "mallory", "alice"), approve=["bob", "carol"], opens=[first, second]
        ),
    ]
    after = archive.token("bob", "mallory", "alice", generation=3)
    assert await approved(archive, await archive.open(rotation(), makes=after)) == []
    before = archive.token(generation=3)
    assert (
        await refused(archive, await archive.open(rotation(), makes=before))
    ).reason == "CEREMONY_MISMATCH"


async def test_a_rotation_whose_new_storage_key_is_left_out_is_refused(archive: HostileArchive) -> None:
    first = archive.token()
    archive.pin(first)
    ceremony = await archive.open(rotation(), makes=archive.token("alice", "mallory", generation=2))
    archive.view.ClearField("new_storage_key")
    assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"
    archive.view.ClearField("opening_facts")
    assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"
    ceremony = await archive.open(rotation())  # logged without any, too
    assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"


@pytest.mark.parametrize(
    ("holders", "quorum", "generation"),
    [
        (("bob", "mallory"), 2, 2),
        (("alice", "bob", "carol", "mallory"), 2, 2),
        (("alice", "bob"), 2, 2),
        (AGENTS, 1, 2),
        (AGENTS, 2, 3),
        (AGENTS, 2, 1),
    ],
)
async def test_a_new_storage_key_among_others_than_the_pinned_agents_is_refused(
    archive: HostileArchive, holders: tuple[str, ...], quorum: int, generation: int
) -> None:
    archive.pin(archive.token())
    new = archive.token(*holders, quorum=quorum, generation=generation)
    error = await refused(archive, await archive.open(rotation(), makes=new))
    assert error.reason == "CEREMONY_MISMATCH"


async def test_a_holder_of_a_pinned_name_with_another_share_key_is_refused(
    archive: HostileArchive, folder: Path
) -> None:
    """The internal CA's holder made a second alice; her certificate and share key are good."""
    archive.pin(archive.token())
    people = folder / "identities" / "agent"
    (people / "alice").rename(people / "first-alice")
    plan, authority = DeploymentPlan(folder=folder), DeploymentAuthority.load(folder / "authority")
    make_person(plan, authority, SpiffeId("example.org", "agent/alice"))
    error = await refused(archive, await archive.open(rotation(), makes=archive.token(generation=2)))
    assert error.reason == "CEREMONY_MISMATCH"


async def test_shares_of_storage_keys_that_a_ceremony_does_not_need_are_not_given(
    archive: HostileArchive,
) -> None:
    first, second = archive.token(), archive.token(generation=2)
    archive.pin(first, second)
    wanted, key = await archive.archive(second)
    for statement, opens, makes, keys in (
        (rotation(), [first, second], archive.token(generation=3), []),
        (recovery(wanted), [first, second], None, [key]),
        (recovery(wanted), [first], None, [key]),
        (recovery(wanted), [], None, [key]),
        (change(archive.folder, *AGENTS), [second], None, []),
        (CeremonyStatement(type=RESEAL, storage_key_id=key_id(second)), [first, second], None, []),
        (CeremonyStatement(type=RESEAL, storage_key_id=key_id(second)), [], None, []),
    ):
        ceremony = await archive.open(statement, opens=opens, makes=makes, keys=keys)
        assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"


async def test_storage_keys_that_are_shown_and_not_logged_are_not_opened(archive: HostileArchive) -> None:
    first, second = archive.token(), archive.token(generation=2)
    archive.pin(first, second)
    wanted, key = await archive.archive(second)
    ceremony = await archive.open(recovery(wanted), opens=[first, second], keys=[key])
    both = list(archive.view.storage_keys)
    ceremony = await archive.open(recovery(wanted), opens=[second], keys=[key])
    archive.view.storage_keys.insert(0, both[0])
    assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"


async def test_where_a_key_lies_now_is_proven_for_that_very_key(archive: HostileArchive) -> None:
    first, second = archive.token(), archive.token(generation=2)
    archive.pin(first, second)
    wanted, key = await archive.archive(first, enrollment_id=b"e" * 32)
    moved = await archive.reseal(key, second, encryption_spki_sha256=os.urandom(32), enrollment_id=b"e" * 32)
    ceremony = await archive.open(recovery(wanted), opens=[second], keys=[moved])
    assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"
    stranger = archive.token(generation=3)
    moved = await archive.reseal(key, stranger, encryption_spki_sha256=wanted, enrollment_id=b"e" * 32)
    ceremony = await archive.open(recovery(wanted), opens=[stranger], keys=[moved])
    assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"  # nobody approved that one


async def test_keys_are_not_sealed_under_a_storage_key_of_the_archives_choice(
    archive: HostileArchive,
) -> None:
    first, second, friends = (archive.token(generation=number) for number in (1, 2, 3))
    archive.pin(first, second)
    statement = CeremonyStatement(type=RESEAL, storage_key_id=key_id(friends))
    error = await refused(archive, await archive.open(statement, opens=[first]))
    assert error.reason == "CEREMONY_MISMATCH"


async def test_an_approval_is_not_coaxed_out_by_calling_the_ceremony_over(archive: HostileArchive) -> None:
    archive.pin(archive.token())
    ceremony = await archive.open(rotation(), makes=archive.token("bob", "mallory", generation=2))
    archive.view.ClearField("new_storage_key")
    archive.view.state = CeremonyState.CEREMONY_STATE_RUNNING
    assert (await refused(archive, ceremony)).reason == "CEREMONY_CLOSED"


@pytest.mark.parametrize(
    "approve", [[], ["bob"], ["bob", "mallory"], ["bob", "bob"], ["alice", "bob"]], ids=",".join
)
async def test_pinned_agents_change_with_the_word_of_a_quorum_of_them_only(
    witnessed: HostileArchive, approve: list[str]
) -> None:
    """Alice asked, so her own approval does not count."""
    archive = witnessed
    first = archive.token()
    archive.pin(first)
    pins = (archive.folder / "identities" / "agent" / "bob" / "archive-pins.json").read_bytes()
    archive.changes = [
        await archive.change(change(archive.folder, "bob", "mallory", "alice"), approve=approve)
    ]
    new = archive.token("bob", "mallory", "alice", generation=2)
    error = await refused(archive, await archive.open(rotation(), makes=new))
    assert error.reason == "ARCHIVE_CHANGE"
    after = (archive.folder / "identities" / "agent" / "bob" / "archive-pins.json").read_bytes()
    assert after == pins


async def test_a_change_is_followed_only_with_its_own_leaf_and_facts(witnessed: HostileArchive) -> None:
    archive = witnessed
    archive.pin(archive.token())
    made = archive.token(generation=2)
    good = await archive.change(rotation(), approve=["bob", "carol"], makes=made)
    archive.newest_change = b""
    other = await archive.change(
        rotation(), approve=["bob", "carol"], makes=archive.token("bob", "mallory", generation=2)
    )
    mixed: list[Any] = []
    for name in ("request", "opening_leaf", "opening_facts"):
        wrong = type(good).FromString(good.SerializeToString())
        value = getattr(other.change, name)
        if isinstance(value, bytes):
            setattr(wrong.change, name, value)
        else:
            getattr(wrong.change, name).CopyFrom(value)
        mixed.append(wrong)
    ceremony = await archive.open(rotation(), makes=archive.token(generation=3))
    for wrong in mixed:
        archive.changes = [wrong]
        assert (await refused(archive, ceremony)).reason == "ARCHIVE_CHANGE"
    archive.changes = [other]  # a quorum approved, perhaps with older clients; the pins say no all the same
    assert (await refused(archive, ceremony)).reason == "CEREMONY_MISMATCH"


async def test_a_change_that_is_withheld_is_missed_where_an_opening_names_it(
    witnessed: HostileArchive,
) -> None:
    """P4, P7: carol was removed; bob is told of no change, and shown the token of before."""
    archive = witnessed
    first = archive.token()
    archive.pin(first)
    wanted, key = await archive.archive(first)
    await archive.change(
        change(archive.folder, "alice", "bob", "mallory"), approve=["bob", "carol"], opens=[first]
    )
    ceremony = await archive.open(recovery(wanted), opens=[first], keys=[key])
    error = await refused(archive, ceremony)
    assert error.reason == "PINS_BEHIND"
    assert "keyark agents pins" in error.message


async def test_a_change_that_bob_approved_himself_is_seen_through_before_he_releases_a_share(
    witnessed: HostileArchive,
) -> None:
    """P4, P7: bob approved that carol leaves; the archive does it, and tells bob of nothing, in its leaves too."""
    archive = witnessed
    first = archive.token()
    archive.pin(first)
    removal = await archive.open(change(archive.folder, "alice", "bob", "mallory"), opens=[first])
    digest = ceremony_digest(archive.view.request.statement)
    assert await approved(archive, removal) == [key_id(first)]
    wanted, key = await archive.archive(first)
    ceremony = await archive.open(recovery(wanted), opens=[first], keys=[key])
    error = await refused(archive, ceremony)
    assert (error.reason, removal.hex() in error.message) == ("CHANGE_PENDING", True)
    closed, recovered = (
        EventType.EVENT_TYPE_CEREMONY_CLOSED,
        EventType.EVENT_TYPE_AGENTS_CHANGED,
    )
    for event_type, ended in ((closed, os.urandom(32)), (recovered, digest)):
        archive.view.closing_proof = await archive.close(event_type, ended)
        assert (await refused(archive, ceremony)).reason == "CHANGE_PENDING"
    archive.view.closing_proof = await archive.close(closed, digest)
    assert await approved(archive, ceremony) == [key_id(first)]
    archive.view.ClearField("closing_proof")
    assert await approved(archive, ceremony) == [key_id(first)]  # it ended for good


async def test_a_change_that_bob_approved_and_followed_holds_nothing_up(witnessed: HostileArchive) -> None:
    archive = witnessed
    first, second = archive.token(), archive.token(generation=2)
    archive.pin(first)
    shown = await archive.change(rotation(), approve=["bob", "carol"], makes=second)
    assert await approved(archive, archive.view.ceremony_id) == []
    assert await approved(archive, archive.view.ceremony_id) == []  # opened anew, it is approved again
    archive.changes = [shown]
    wanted, key = await archive.archive(first)
    ceremony = await archive.open(recovery(wanted), opens=[first], keys=[key])
    assert await approved(archive, ceremony) == [key_id(first)]


async def test_an_older_pin_of_the_same_agents_gets_no_share(witnessed: HostileArchive) -> None:
    """P4: a quorum gave all storage keys an older PIN; shares of the former one are asked for again."""
    archive = witnessed
    first = archive.token()
    archive.pin(first)
    archive.changes = [
        await archive.change(change(archive.folder, *AGENTS), approve=["bob", "carol"], opens=[first])
    ]
    wanted, key = await archive.archive(first)
    ceremony = await archive.open(recovery(wanted), opens=[first], keys=[key])
    error = await refused(archive, ceremony)
    assert (error.reason, "an older PIN" in error.message) == ("CEREMONY_MISMATCH", True)


async def test_entries_that_are_no_changes_move_no_pins(witnessed: HostileArchive) -> None:
    """P4, P6: what an intruder shows cannot make an agent deaf to the honest change that comes after it."""
    archive = witnessed
    first = archive.token()
    archive.pin(first)
    logged = archive.log.entry(0)
    nothing = ArchiveChange(change=CeremonyProof(), opening_proof=await archive.proof(logged, 0))
    second = archive.token(generation=2)
    honest = await archive.change(rotation(), approve=["bob", "carol"], makes=second)
    again = await archive.open(rotation(), makes=archive.token(generation=3))
    for shown in ([nothing] * 60, [honest, honest]):
        archive.changes = shown
        with pytest.raises(KeyarkError):
            async with RecoveryClient.open(archive.home, identity="agent/bob", retries=NO_RETRIES) as bob:
                await bob.pins()
    archive.changes = [honest]
    assert await approved(archive, again) == []


async def test_an_agent_who_pinned_nobody_approves_nothing(archive: HostileArchive) -> None:
    for agent in AGENTS:
        (archive.folder / "identities" / "agent" / agent / "archive-pins.json").unlink()
    ceremony = await archive.open(rotation(), makes=archive.token(generation=2))
    assert (await refused(archive, ceremony)).reason == "PINS_MISSING"


@pytest.mark.parametrize("larger", [-1, 30])
async def test_a_recovery_in_a_log_of_its_own_gets_no_share_and_leaves_its_mark_in_both_logs(
    folder: Path, larger: int
) -> None:
    """RM and CM follow the real log; the archive shows bob a fork, with everything in it as it should be."""
    async with running(folder) as deployment, hostile_archive(folder) as archive:
        await lose_key(deployment)
        seen = remembered(deployment.home())
        ceremony = await _forked_recovery(archive, (await _followed(deployment)).followed_size + larger)
        assert (await refused(archive, ceremony)).reason == "PRIVATE_LOG"
        assert remembered(deployment.home()) == seen
        for role in ("rm", "cm"):
            ((caller, reason),) = await refusals_of(deployment.home(), role)
            assert caller == "spiffe://example.org/agent/bob"
            assert reason in ("CHECKPOINT_MISMATCH", "CONSISTENCY_PROOF_INVALID")
        await lose_key(deployment, email="later@example.org")  # one private log stops nobody else


async def test_a_private_log_that_contradicts_a_followed_tree_raises_the_alarm(folder: Path) -> None:
    """Bob's client showed RM and CM what the DRM had signed for him."""
    async with running(folder) as deployment, hostile_archive(folder) as archive:
        await lose_key(deployment)
        ceremony = await _forked_recovery(archive, (await _followed(deployment)).followed_size)
        await _denied_a_forged_head(archive)
        assert (await refused(archive, ceremony)).reason == "PRIVATE_LOG"
        told = await _followed(deployment)
        assert told.contradiction.first_note == (await archive.log.checkpoint()).note
        assert "spiffe://example.org/agent/bob sent the second one" in told.alarm
        (folder / "checkpoints" / "drm.note").unlink()  # carol has seen nothing yet
        assert (await refused(archive, ceremony)).reason == "LOG_INCONSISTENT"


async def _denied_a_forged_head(archive: HostileArchive) -> None:
    """P7: mallory, an agent by certificate, brings what a stolen transport key signed: refused, logged, no alarm."""
    note = (await archive.log.checkpoint()).note
    for role in ("rm", "cm"):
        async with open_session(archive.home, role, identity="agent/mallory") as session:
            request = audit_pb2.CosignCheckpointRequest(checkpoint=note)
            with pytest.raises(KeyarkError) as denied:
                await call(AuditServiceStub(session.channel).CosignCheckpoint, request, timeout=30)
        assert denied.value.reason == "PERMISSION_DENIED"
        ((caller, reason),) = await refusals_of(archive.home, role)
        assert (caller, reason) == ("spiffe://example.org/agent/mallory", "PERMISSION_DENIED")
        async with open_session(archive.home, role, identity="auditor/auditor") as session:
            assert (await LogHead.fetch(session)).told.alarm == ""


async def _forked_recovery(archive: HostileArchive, size: int) -> bytes:
    """Open a recovery in a log of this many leaves."""
    token = archive.token()
    archive.pin(token)
    wanted, key = await archive.archive(token)
    while archive.log.size < size - 1:
        await archive.archive(token)
    ceremony = await archive.open(recovery(wanted), opens=[token], keys=[key])
    assert archive.log.size == size
    return ceremony


async def _followed(deployment: Deployment) -> GetCheckpointResponse:
    """What the RM says of the DRM's log."""
    async with open_session(deployment.home(), "rm", identity="auditor/auditor") as session:
        return (await LogHead.fetch(session)).told


@pytest.mark.parametrize("forgets", ["rm", "cm"])
async def test_one_honest_witness_is_enough(folder: Path, forgets: str) -> None:
    """The other one takes part: it tells that it follows the log that the archive shows."""
    async with running(folder) as deployment:
        await lose_key(deployment)
        async with hostile_archive(folder) as archive:
            token = archive.token()
            archive.pin(token)
            wanted, key = await archive.archive(token)
            ceremony = await archive.open(recovery(wanted), opens=[token], keys=[key])
            head = await archive.log.checkpoint()
            signer: Any = load_private_key(folder / forgets / "log-key.pem")
            lie = Cosigner(f"example.org/{forgets}", signer).cosign(head.note, at=int(time.time()))

            def alter(method: str, request: Any, response: Any) -> Any:
                return CosignCheckpointResponse(checkpoint=lie) if method == "CosignCheckpoint" else response

            async with lying_witness(deployment, forgets, alter) as port:
                moved = archive.home.config.model_copy(update={forgets: f"127.0.0.1:{port}"})
                object.__setattr__(archive.home, "config", moved)
                assert (await refused(archive, ceremony)).reason == "PRIVATE_LOG"


async def test_a_tree_that_a_witness_names_without_a_cosignature_confirms_nothing(folder: Path) -> None:
    def alter(method: str, request: Any, response: Any) -> Any:
        if method == "CosignCheckpoint":
            assert response.followed_root
            response.ClearField("checkpoint")
        return response

    async with running(folder) as deployment, lying_witness(deployment, "rm", alter) as port:
        await lose_key(deployment)
        home = deployment.home()
        object.__setattr__(home, "config", home.config.model_copy(update={"rm": f"127.0.0.1:{port}"}))
        async with Witnesses.open(home, identity="auditor/auditor", password=no_password) as witnesses:
            told = await LogHead.fetch(witnesses.archive)
            unconfirmed = await witnesses.confirm_where_possible(
                [VerifiedHead(told.checkpoint, told.told.checkpoint)]
            )
        assert set(unconfirmed) == {"rm"}


async def test_a_log_that_forgot_what_this_home_saw_gets_no_share(witnessed: HostileArchive) -> None:
    archive = witnessed
    token = archive.token()
    archive.pin(token)
    wanted, key = await archive.archive(token)
    assert await approved(archive, await archive.open(recovery(wanted), opens=[token], keys=[key]))
    seen = (archive.folder / "checkpoints" / "drm.note").read_bytes()
    async with hostile_archive(archive.folder) as other:
        other.pin(token)
        wanted, key = await other.archive(token)
        ceremony = await other.open(recovery(wanted), opens=[token], keys=[key])
        error = await refused(other, ceremony)
    assert error.reason == "PRIVATE_LOG"
    assert "this home saw" in error.message
    assert (archive.folder / "checkpoints" / "drm.note").read_bytes() == seen


@pytest.mark.parametrize("role", ["rm", "cm"])
async def test_where_a_witness_is_away_nobody_approves(witnessed: HostileArchive, role: str) -> None:
    archive = witnessed
    token = archive.token()
    archive.pin(token)
    wanted, key = await archive.archive(token)
    ceremony = await archive.open(recovery(wanted), opens=[token], keys=[key])
    moved = archive.home.config.model_copy(update={role: "127.0.0.1:1"})
    object.__setattr__(archive.home, "config", moved)
    error = await refused(archive, ceremony)
    assert error.kind is Kind.UNAVAILABLE
    assert f"The {role.upper()} at 127.0.0.1:1" in error.message


async def test_agents_whose_session_is_open_over_a_rotation_go_on(deployment: Deployment) -> None:
    """The witnesses have heard of no new transport key either: nothing was enrolled since."""
    lost = await lose_key(deployment)
    async with agents(deployment, "alice", "bob", "carol") as (alice, *others):
        await rotate(deployment)
        asked = await alice.request_keys([lost.key_id], reason="x")
        assert state(await approve(asked.ceremony_id, *others)) == "READY"
