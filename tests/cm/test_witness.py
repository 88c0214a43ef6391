"""P7: RM and CM take heads of the DRM's log only from callers whom they believe, and say who brought one."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from keyark.errors import KeyarkError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType
from keyark.service.witness.witness import MAX_PER_HOUR, Witness
from keyark.transparency.archival import ArchiveEvidence
from keyark.transparency.checkpoint import Checkpoint, NoteSigner
from keyark.transparency.cosignatures import CosignatureVerifier, Cosigner
from keyark.transparency.events import open_event
from keyark.transparency.heads import AcceptedHeads
from keyark.v1.audit_pb2 import CheckpointLink, EventType
from keyark.v1.ceremony_pb2 import CeremonyProof
from tests.cm.test_archived_pairs import TRANSPORT_KEY, Archived, reasons
from tests.support.keys.pki import private_key
from tests.support.stories.issuance import Ca, request
from tests.support.stories.transparency import ORIGIN


@pytest.fixture
async def archive(ca: Ca) -> Archived:
    """The CM follows its log, and believes agent/alice."""
    made = Archived(ca)
    await made.log.open(made.store)
    assert reasons(await made.issue(await made.archived(request()))) == [""]
    return made


KEY = Ed25519PrivateKey.generate()


@pytest.fixture
def witness(archive: Archived) -> Witness:
    return Witness(checks=archive.ca.issuance.receipts, cosigner=Cosigner("example.org/cm", KEY))


def forged(archive: Archived) -> bytes:
    """A head that contradicts the one that is followed, signed with the stolen transport key."""
    signer = NoteSigner.from_private_key(ORIGIN, private_key(KeyType.EC_P256, TRANSPORT_KEY))
    return signer.sign(Checkpoint(ORIGIN, archive.log.size, bytes(32)))


async def bring(witness: Witness, who: str, note: bytes, *changes: CeremonyProof) -> str:
    """Let somebody bring a head, after changes of agents; returns the reason of the refusal."""
    caller = SpiffeId("example.org", who)
    evidence = ArchiveEvidence(brought_by=str(caller), links=[CheckpointLink()], trust_changes=changes)
    try:
        await witness.accept_head_from(caller, note, evidence)
    except KeyarkError as error:
        return error.reason
    return ""


@pytest.mark.parametrize("who", ["agent/mallory", "client/enroller", "officer/officer", "cm", "drm"])
async def test_whoever_is_not_believed_raises_no_alarm(archive: Archived, witness: Witness, who: str) -> None:
    """Any certificate of the role agent, and a thief's copy of the transport key."""
    assert await bring(witness, who, forged(archive)) == "PERMISSION_DENIED"
    nothing = "AUDIT_EVENT_INVALID" if who.startswith("agent/") else "PERMISSION_DENIED"
    assert await bring(witness, who, forged(archive), CeremonyProof()) == nothing
    assert witness.heads.alarm.message == ""
    assert reasons(await archive.issue(await archive.archived(request(1)))) == [""]


@pytest.mark.parametrize("who", ["agent/alice", "auditor/auditor", "rm"])
async def test_an_alarm_and_its_leaf_name_who_brought_the_head(
    archive: Archived, witness: Witness, who: str
) -> None:
    assert await bring(witness, who, forged(archive)) == "LOG_INCONSISTENT"
    name, alarm = f"spiffe://example.org/{who}", witness.heads.alarm
    assert (alarm.brought_by, name in alarm.message) == (name, True)
    assert await bring(witness, "agent/alice", forged(archive)) == "LOG_INCONSISTENT"
    assert witness.heads.alarm == alarm
    logged = open_event(archive.ca.log.entry(archive.ca.log.size - 1))
    assert logged.details is not None
    assert (logged.event.type, logged.details.caller) == (EventType.EVENT_TYPE_LOG_INCONSISTENT, name)


async def test_one_caller_brings_so_many_heads_an_hour_and_another_is_not_held_up(
    archive: Archived, witness: Witness
) -> None:
    note = (await archive.log.checkpoint()).note
    for _ in range(MAX_PER_HOUR):
        assert await bring(witness, "agent/alice", note) == ""
    assert await bring(witness, "agent/alice", note) == "WITNESS_QUOTA"
    assert await bring(witness, "auditor/auditor", note) == ""
    for _ in range(MAX_PER_HOUR + 1):
        assert await bring(witness, "rm", note) == ""
    archive.ca.clock.advance(3600)
    assert await bring(witness, "agent/alice", note) == ""


async def taken(archive: Archived, witness: Witness) -> bytes:
    """Another key is archived, and a head with it accepted; returns the note of that head."""
    before = witness.heads.size
    await archive.archived(request(1))
    note = (await archive.log.checkpoint()).note
    link = archive.log.link_sizes(before, archive.log.size)
    await witness.take(note, ArchiveEvidence(brought_by="spiffe://example.org/rm", links=[link]))
    return note


async def test_a_head_is_cosigned_while_it_is_one_that_was_accepted_however_many_came_since(
    archive: Archived, witness: Witness
) -> None:
    """Two witnesses that go on all the time meet at one that both accepted; it is durable before the word is given."""
    earlier = (await archive.log.checkpoint()).note
    newest = await taken(archive, witness)
    assert witness.heads.size > AcceptedHeads.load(archive.ca.store, origin=ORIGIN).size
    for note in (earlier, newest):
        cosigned = await witness.cosign_accepted(note)
        CosignatureVerifier("example.org/cm", KEY.public_key()).verify(cosigned)
        assert cosigned.startswith(note)
    assert AcceptedHeads.load(archive.ca.store, origin=ORIGIN).size == witness.heads.size


async def test_no_head_is_cosigned_that_was_not_accepted_or_while_an_alarm_is_on(
    archive: Archived, witness: Witness
) -> None:
    """A transport key in other hands signs what it likes; the other witness may have taken it."""
    earlier = (await archive.log.checkpoint()).note
    assert await witness.cosign_accepted(forged(archive)) == b""
    assert await bring(witness, "rm", forged(archive)) == "LOG_INCONSISTENT"
    with pytest.raises(KeyarkError, match="contradicts itself"):
        await witness.cosign_accepted(earlier)
