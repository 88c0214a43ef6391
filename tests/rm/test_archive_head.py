"""P7: one client's questions about the DRM's log keep no other client's waiting."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from keyark.errors.services import CheckpointGapError
from keyark.identity.spiffe import SpiffeId
from keyark.transparency.archival import ArchiveEvidence
from keyark.v1.audit_pb2 import CheckpointLink, CosignCheckpointRequest, CosignCheckpointResponse
from rm_service.downstream.archive_head import ArchiveHead
from tests.support.stories.transparency import append, entry, opened_log

ALICE, MALLORY = SpiffeId("example.org", "client/alice"), SpiffeId("example.org", "client/mallory")


@dataclass
class Accepted:
    """A head that RM and CM accepted; the RM's word for it comes when ``gate`` opens."""

    note: bytes
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    is_remembered: bool = True

    async def cosign(self) -> bytes:
        self.asked += 1
        await self.gate.wait()
        return self.note

    async def cosign_accepted(self, note: bytes) -> bytes:
        return note if self.is_remembered else b""

    async def take(self, note: bytes, evidence: ArchiveEvidence) -> None:
        self.is_remembered = True
        raise CheckpointGapError("The RM accepted another head meanwhile.")


@dataclass
class Links:
    """The DRM's proofs; each waits until ``gate`` opens."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    first_sizes: list[int] = field(default_factory=list)

    async def prove(self, first_size: int, second_size: int) -> CheckpointLink:
        self.first_sizes.append(first_size)
        if second_size != first_size:
            await self.gate.wait()
        return CheckpointLink()


@pytest.fixture
async def accepted() -> Accepted:
    log, _ = await opened_log()
    return Accepted((await log.checkpoint()).note)


async def notes(count: int) -> list[bytes]:
    """Signed heads of one log, each one leaf larger than the one before."""
    log, store = await opened_log()
    heads = [(await log.checkpoint()).note]
    while len(heads) < count:
        (index,) = await append(log, store, entry(len(heads)))
        heads.append((await log.checkpoint(covering=index)).note)
    return heads


async def turns_of_the_loop() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def head_of(accepted: Accepted, links: Links) -> ArchiveHead:
    async def cosign_at_cm(_: object) -> CosignCheckpointResponse:
        return CosignCheckpointResponse(checkpoint=accepted.note)

    return ArchiveHead(witness=accepted, cosign_at_cm=cosign_at_cm, link=links.prove)


async def test_one_callers_questions_wait_for_one_another_and_nobody_else_for_them(accepted) -> None:
    accepted.gate.set()
    links = Links()
    head = head_of(accepted, links)
    flood = [asyncio.create_task(head.witnessed(MALLORY, [7])) for _ in range(200)]
    await turns_of_the_loop()
    assert links.first_sizes == [1]
    assert (await head.witnessed(ALICE, [1, 1])).checkpoint == accepted.note
    assert len(links.first_sizes) == 2
    assert not any(task.done() for task in flood)
    links.gate.set()
    await asyncio.gather(*flood)


async def test_all_that_wait_for_a_head_share_one_that_was_asked_for_after_they_came(accepted) -> None:
    head = head_of(accepted, Links())
    names = [SpiffeId("example.org", f"client/{number}") for number in range(50)]
    first = asyncio.create_task(head.witnessed(MALLORY, []))
    await turns_of_the_loop()
    others = [asyncio.create_task(head.witnessed(name, [])) for name in names]
    await turns_of_the_loop()
    assert accepted.asked == 1
    accepted.gate.set()
    answers = await asyncio.gather(first, *others)
    assert {answer.checkpoint for answer in answers} == {accepted.note}
    assert accepted.asked == 2


async def test_a_cm_that_follows_a_tree_without_its_note_is_brought_up_from_there(accepted) -> None:
    """After a restore the operator's word names its tree, and no signed head of it."""
    accepted.gate.set()
    links = Links()
    links.gate.set()
    brought: list[int] = []

    async def cosign_at_cm(request: CosignCheckpointRequest) -> CosignCheckpointResponse:
        if request.checkpoint:
            brought.append(links.first_sizes[-1])
        return CosignCheckpointResponse(checkpoint=accepted.note if brought else b"", followed_size=1)

    head = ArchiveHead(witness=accepted, cosign_at_cm=cosign_at_cm, link=links.prove)
    assert (await head.witnessed(ALICE, [])).checkpoint == accepted.note
    assert brought == [1]


async def test_an_rm_that_accepts_another_head_while_it_takes_the_cms_asks_again() -> None:
    """After a crash the CM may know more than the RM kept, and receipts go on to come meanwhile."""
    own, followed = await notes(2)
    accepted = Accepted(own, is_remembered=False)
    accepted.gate.set()
    links = Links()
    links.gate.set()

    async def cosign_at_cm(_: object) -> CosignCheckpointResponse:
        return CosignCheckpointResponse(checkpoint=followed)

    head = ArchiveHead(witness=accepted, cosign_at_cm=cosign_at_cm, link=links.prove)
    assert (await head.witnessed(ALICE, [])).checkpoint == followed
    assert accepted.asked == 2


async def test_a_head_that_both_accepted_will_do_while_both_go_on() -> None:
    """The CM stays one head behind, as fast as enrollments come."""
    growing = await notes(8)
    accepted = Accepted(growing[0])
    accepted.gate.set()
    links = Links()
    links.gate.set()
    asked: list[bytes] = []

    async def cosign_at_cm(request: CosignCheckpointRequest) -> CosignCheckpointResponse:
        if request.checkpoint:
            raise CheckpointGapError("The CM accepted another head meanwhile.")
        asked.append(growing[len(asked)])
        accepted.note = growing[len(asked) + 1]
        return CosignCheckpointResponse(checkpoint=asked[-1])

    accepted.note = growing[1]
    head = ArchiveHead(witness=accepted, cosign_at_cm=cosign_at_cm, link=links.prove)
    assert (await head.witnessed(ALICE, [])).checkpoint == growing[1]
    assert asked == growing[:2]  # the first is older than what the RM had accepted when it was asked


async def test_a_failure_is_everybodys_and_the_next_question_is_asked_anew(accepted) -> None:
    accepted.gate.set()
    head = head_of(Accepted(b"", accepted.gate), Links())
    for _ in range(2):
        with pytest.raises(Exception, match="enroll first"):
            await head.witnessed(ALICE, [])
