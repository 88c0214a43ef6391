"""P6: whoever relies on another's log accepts only what goes on from what it accepted, and stops where it does not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.clock import ManualClock
from keyark.errors import KeyarkError
from keyark.errors.services import (
    CheckpointGapError,
    CheckpointMismatchError,
    LogInconsistentError,
    StaleCheckpointError,
)
from keyark.store import MemoryStore
from keyark.transparency import log as log_module
from keyark.transparency.checkpoint import Checkpoint, CheckpointOriginError, VerifiedHead
from keyark.transparency.events import open_event
from keyark.transparency.heads import ALARMS, MAX_RECENT, TABLES, AcceptedHeads, clear_alarm, replace_head
from keyark.transparency.merkle import Tree, TreeHasher
from keyark.v1.audit_pb2 import AuditDetails, CheckpointContradiction, CheckpointLink, EventType
from tests.support.stories.transparency import ORIGIN, new_log, reference_root, reference_subproof

BOB = "spiffe://example.org/agent/bob"
LEAVES = [b"%d" % number for number in range(40)]
FORKED = [*LEAVES[:4], b"forged", *LEAVES[5:]]


def link(first: int, second: int, leaves: list[bytes] = LEAVES) -> CheckpointLink:
    proof = reference_subproof(first, leaves[:second]) if first else []
    return CheckpointLink(
        first_size=first, second_size=second, second_root=reference_root(leaves[:second]), proof=proof
    )


def head(size: int, leaves: list[bytes] = LEAVES, origin: str = ORIGIN) -> VerifiedHead:
    return signed(Checkpoint(origin, size, reference_root(leaves[:size])))


def signed(checkpoint: Checkpoint) -> VerifiedHead:
    return VerifiedHead(checkpoint, b"%s\nsignatures\n" % checkpoint.text())


def following(*sizes: int) -> AcceptedHeads:
    """Heads that accepted the trees of these sizes, one after the other."""
    heads = AcceptedHeads(ORIGIN)
    for size in sizes:
        heads.accept([link(heads.size, size)], [head(size)])
    return heads


def test_the_first_head_is_trusted_and_the_next_must_follow():
    heads = following(5)
    assert heads.size == 5
    heads.accept([link(5, 9)], [head(9)])
    assert heads.size == 9


def test_a_chain_is_followed_and_every_tree_of_it_is_known_then():
    heads = following(5)
    heads.accept([link(5, 8), link(8, 13), link(13, 20)], [head(13), head(20), head(8)])
    assert heads.size == 20
    heads.accept([], [head(5), head(8), head(13), head(20)])


def test_links_alone_are_not_accepted():
    """Links come from whoever relays them: only what the log signed counts."""
    heads = following(5)
    heads.accept([link(5, 9)], [])
    assert heads.size == 5
    heads.accept([], [head(9)])
    assert heads.size == 9


def test_what_a_relay_made_up_is_forgotten_with_the_next_links():
    heads = following(4)
    heads.accept([link(4, 9, FORKED)], [])
    heads.accept([link(4, 9)], [head(9)])
    assert heads.size == 9


def test_a_head_in_the_midst_of_a_chain_takes_no_more_than_it_signs():
    heads = following(5)
    heads.accept([link(5, 8), link(8, 13)], [head(8)])
    assert heads.size == 8
    heads.accept([], [head(13)])
    assert heads.size == 13


def test_what_a_relay_made_up_beyond_a_signed_head_is_not_accepted_with_it():
    forged = [*LEAVES[:8], *(b"forged" for _ in range(8))]
    heads = following(5)
    heads.accept([link(5, 8), link(8, 13, forged)], [head(8)])
    heads.accept([link(8, 13)], [head(13)])
    assert heads.size == 13


def test_links_that_end_before_what_is_accepted_are_skipped():
    heads = following(5, 9)
    heads.accept([link(5, 9), link(9, 12)], [head(12)])
    heads.accept([link(3, 7), link(9, 12), link(12, 12)], [head(9)])
    assert heads.size == 12


@pytest.mark.parametrize("links", [[link(6, 9)], [link(3, 9)], [link(0, 9)], [link(5, 7), link(8, 9)]])
def test_links_that_do_not_lead_on_leave_a_gap(links):
    heads = following(5)
    with pytest.raises(CheckpointGapError) as caught:
        heads.accept(links, [head(9)])
    assert caught.value.metadata == {"tree_size": "5"}
    assert heads.size == 5
    heads.accept([link(5, 9)], [head(9)])


def test_a_head_beyond_the_links_leaves_a_gap():
    heads = following(5)
    for links in ([], [link(5, 8)]):
        with pytest.raises(CheckpointGapError):
            heads.accept(links, [head(9)])
    with pytest.raises(CheckpointGapError) as caught:
        AcceptedHeads(ORIGIN).accept([], [head(9)])
    assert caught.value.metadata == {"tree_size": "0"}


def test_one_head_that_is_refused_holds_up_the_others():
    heads = following(5)
    with pytest.raises(CheckpointGapError):
        heads.accept([link(5, 8)], [head(8), head(9)])
    assert heads.size == 5


def test_a_head_between_those_that_are_known_is_stale():
    heads = following(5, 9)
    with pytest.raises(StaleCheckpointError):
        heads.accept([], [head(7)])


def test_a_head_that_is_no_longer_remembered_is_stale():
    hasher, nodes, heads, roots = TreeHasher(), {}, AcceptedHeads(ORIGIN), []
    for size in range(1, MAX_RECENT + 2):
        for level, node in enumerate(hasher.append(b"%d" % size)):
            nodes[level, (size - 1) >> level] = node
        proof = Tree(size, lambda level, position: nodes[level, position]).consistency_proof(size - 1)
        roots.append(hasher.root())
        step = CheckpointLink(first_size=size - 1, second_size=size, second_root=roots[-1], proof=proof)
        heads.accept([step], [signed(Checkpoint(ORIGIN, size, roots[-1]))])
    heads.accept([], [signed(Checkpoint(ORIGIN, 2, roots[1]))])
    with pytest.raises(StaleCheckpointError):
        heads.accept([], [signed(Checkpoint(ORIGIN, 1, roots[0]))])


def test_a_head_of_another_log_is_refused():
    with pytest.raises(CheckpointOriginError):
        following(5).accept([link(5, 9)], [head(9, origin="example.org/rm")])


@pytest.mark.parametrize("size", [5, 7, 9, 12])
def test_a_signed_head_of_the_followed_log_belongs_to_it_whether_older_or_newer(size):
    heads = following(5, 9)
    heads.check_same_log(head(size), link(*sorted((size, 9))))
    assert (heads.size, heads.remembers(head(size).checkpoint)) == (9, size in (5, 9))


def test_a_remembered_head_belongs_without_a_link_and_so_does_any_before_the_first():
    following(5, 9).check_same_log(head(5), CheckpointLink())
    AcceptedHeads(ORIGIN).check_same_log(head(9), CheckpointLink())


@pytest.mark.parametrize("between", [link(2, 3), link(1, 2), link(0, 3), CheckpointLink()])
def test_a_link_between_other_trees_says_nothing_about_a_head(between):
    heads = following(1)
    with pytest.raises(CheckpointGapError) as caught:
        heads.check_same_log(head(3), between)
    assert caught.value.metadata == {"tree_size": "1"}


@pytest.mark.parametrize("size", [5, 7, 9, 12])
def test_a_signed_head_of_a_fork_does_not_belong(size):
    heads = following(5, 9)
    forked = head(size, FORKED)
    assert not heads.remembers(forked.checkpoint)
    with pytest.raises(CheckpointMismatchError, match=f"tree of {size} leaves"):
        heads.check_same_log(forked, link(*sorted((size, 9)), FORKED))


@pytest.mark.parametrize("size", [5, 7, 9, 12])
def test_a_head_of_another_log_never_belongs(size):
    other = head(size, origin="example.org/rm")
    for heads in (following(5, 9), AcceptedHeads(ORIGIN)):
        assert not heads.remembers(other.checkpoint)
        with pytest.raises(CheckpointOriginError, match=ORIGIN):
            heads.check_same_log(other, link(*sorted((size, 9))))


BROKEN = link(5, 9)
BROKEN.proof[0] = bytes(32)


@pytest.mark.parametrize(
    ("links", "signed"),
    [
        ([BROKEN], []),
        ([link(5, 9, FORKED)], [head(9, FORKED)]),
        ([CheckpointLink(first_size=5, second_size=9, second_root=bytes(32))], []),
        ([CheckpointLink(first_size=5, second_size=9, second_root=b"", proof=link(5, 9).proof)], []),
        ([link(5, 9)], [head(9, FORKED)]),
        ([link(5, 7), link(7, 9, FORKED)], [head(9, FORKED)]),
    ],
)
def test_what_a_relay_may_have_made_up_is_refused_once_and_raises_no_alarm(links, signed):
    heads = following(5)
    with pytest.raises(CheckpointMismatchError) as caught:
        heads.accept(links, signed)
    assert caught.value.metadata == {"tree_size": "5"}
    assert (heads.size, heads.alarm.message) == (5, "")
    heads.accept([link(5, 9)], [head(9)])
    assert heads.size == 9


def test_two_signed_heads_of_one_size_stop_everything_and_both_are_the_evidence():
    heads = following(5)
    with pytest.raises(LogInconsistentError):
        heads.accept([], [head(5, FORKED)])
    assert heads.size == 5
    assert ORIGIN in heads.alarm.message
    assert heads.alarm.reason == LogInconsistentError.reason
    evidence = heads.alarm.contradiction
    assert (evidence.first_note, evidence.second_note) == (head(5, FORKED).note, head(5).note)
    for again in (lambda: heads.accept([link(5, 9)], [head(9)]), lambda: heads.accept([], [])):
        with pytest.raises(LogInconsistentError):
            again()


def test_a_signed_head_is_contradicted_by_a_larger_one_and_the_proofs_between_them():
    heads = AcceptedHeads(ORIGIN)
    heads.accept([link(0, 5), link(5, 8), link(8, 13)], [head(13)])
    with pytest.raises(LogInconsistentError):
        heads.accept([], [head(5, FORKED)])
    evidence = heads.alarm.contradiction
    assert (evidence.first_note, evidence.second_note) == (head(5, FORKED).note, head(13).note)
    assert list(evidence.links) == [link(5, 8), link(8, 13)]


async def test_a_head_that_contradicts_what_nobody_signed_is_refused_without_an_alarm():
    """An operator confirmed the tree of 5: its word is no evidence against the log."""
    store = store_of()
    await store.update(lambda txn: replace_head(txn, head(5).checkpoint))
    heads = AcceptedHeads.load(store, origin=ORIGIN)
    with pytest.raises(CheckpointMismatchError):
        heads.accept([], [head(5, FORKED)])
    assert heads.alarm.message == ""


def test_a_proof_for_the_first_tree_is_one_too_many():
    first = link(0, 5)
    first.proof.append(bytes(32))
    with pytest.raises(CheckpointMismatchError):
        AcceptedHeads(ORIGIN).accept([first], [head(5)])


@given(st.data())
def test_no_other_history_is_ever_accepted(data):
    """Links and heads out of two histories, in any order: what is accepted is always one history."""
    heads, roots = AcceptedHeads(ORIGIN), {}
    for _ in range(data.draw(st.integers(1, 8), "calls")):
        leaves = data.draw(st.sampled_from([LEAVES, FORKED]), "history")
        sizes = sorted(data.draw(st.sets(st.integers(1, 40), min_size=1, max_size=3), "sizes"))
        starts = [data.draw(st.sampled_from([heads.size, 0, 5]), "start"), *sizes]
        links = [
            link(first, second, leaves)
            for first, second in zip(starts, sizes, strict=False)
            if first <= second
        ]
        signed = [head(data.draw(st.integers(1, 40), "head"), leaves)]
        before = heads.size
        try:
            heads.accept(links, signed)
        except KeyarkError:
            assert heads.size == before
            continue
        assert heads.size >= before
        roots[heads.size] = heads.root
    ours = {size: reference_root(LEAVES[:size]) for size in roots}
    theirs = {size: reference_root(FORKED[:size]) for size in roots}
    assert roots in (ours, theirs)


def store_of(log: log_module.Log | None = None) -> MemoryStore:
    tables = (*TABLES, *log_module.TABLES)
    return MemoryStore(tables=tables, finisher=log.finisher if log else None)


async def test_the_accepted_head_is_durable_with_the_rows_that_rely_on_it():
    store, heads = store_of(), following(5, 9)
    assert store.read(heads.pending)
    await store.update(heads.record)
    assert not store.read(heads.pending)
    again = AcceptedHeads.load(store, origin=ORIGIN)
    assert again.size == 9
    again.accept([link(9, 12)], [head(12)])
    with pytest.raises(LogInconsistentError):
        AcceptedHeads.load(store, origin=ORIGIN).accept([], [head(9, FORKED)])


async def test_what_is_stored_never_goes_back():
    store = store_of()
    await store.update(following(5, 9).record)
    late = following(5)
    assert not store.read(late.pending)
    await store.update(late.record)
    assert AcceptedHeads.load(store, origin=ORIGIN).size == 9


async def test_the_newest_head_is_kept_with_its_signed_note():
    store, heads = store_of(), following(5)
    heads.accept([link(5, 9)], [head(9), head(5)])
    assert heads.note == head(9).note
    await store.update(heads.record)
    assert AcceptedHeads.load(store, origin=ORIGIN).note == head(9).note


async def test_a_head_that_was_recorded_without_its_note_gets_one_with_the_next_receipt():
    store = store_of()
    await store.update(lambda txn: replace_head(txn, head(5).checkpoint))
    heads = AcceptedHeads.load(store, origin=ORIGIN)
    assert (heads.size, heads.note) == (5, None)
    heads.accept([], [head(5)])
    assert store.read(heads.pending)
    await store.update(heads.record)
    assert AcceptedHeads.load(store, origin=ORIGIN).note == head(5).note
    assert not store.read(heads.pending)


async def test_logs_are_followed_apart():
    store = store_of()
    await store.update(following(5).record)
    assert AcceptedHeads.load(store, origin="other.example/drm").size == 0


async def test_an_alarm_is_durable_and_logged_once_until_an_operator_clears_it():
    log = new_log()
    store, heads = store_of(log), following(5)
    await log.open(store)
    await heads.record_alarm(store=store, log=log, clock=ManualClock(), brought_by=BOB)
    assert log.size == 1
    await store.update(heads.record)
    with pytest.raises(LogInconsistentError):
        heads.accept([], [head(5, FORKED)])
    for _ in range(2):
        await heads.record_alarm(store=store, log=log, clock=ManualClock(), brought_by=BOB)
    assert log.size == 2
    logged = open_event(log.entry(1))
    assert logged.event.type == EventType.EVENT_TYPE_LOG_INCONSISTENT
    assert logged.details is not None
    assert logged.details.message == heads.alarm.message
    assert (logged.details.caller, heads.alarm.brought_by, BOB in heads.alarm.message) == (BOB, BOB, True)
    evidence = CheckpointContradiction.FromString(logged.details.contradiction)
    assert (evidence.first_note, evidence.second_note) == (head(5, FORKED).note, head(5).note)
    again = AcceptedHeads.load(store, origin=ORIGIN)
    assert again.alarm == heads.alarm
    with pytest.raises(LogInconsistentError, match="two different trees"):
        again.accept([link(5, 9)], [head(9)])
    await store.update(lambda txn: clear_alarm(txn, origin=ORIGIN))
    cleared = AcceptedHeads.load(store, origin=ORIGIN)
    cleared.accept([link(5, 9)], [head(9)])
    assert cleared.size == 9


async def test_an_alarm_that_an_earlier_version_raised_is_still_on():
    store = store_of()
    told = AuditDetails(reason="LOG_INCONSISTENT", message="The log contradicts itself.").SerializeToString()
    await store.update(lambda txn: txn.put(ALARMS, ORIGIN.encode(), told))
    with pytest.raises(LogInconsistentError, match="contradicts itself"):
        AcceptedHeads.load(store, origin=ORIGIN).accept([], [])


async def test_a_head_that_an_operator_confirms_counts_even_where_it_is_older_and_binds_what_follows():
    store = store_of()
    await store.update(following(9).record)
    await store.update(lambda txn: replace_head(txn, head(5, FORKED).checkpoint))
    restored = AcceptedHeads.load(store, origin=ORIGIN)
    assert (restored.size, restored.root) == (5, reference_root(FORKED[:5]))
    with pytest.raises(CheckpointMismatchError):
        restored.accept([link(5, 9)], [head(9)])
    again = AcceptedHeads.load(store, origin=ORIGIN)
    again.accept([link(5, 9, FORKED)], [head(9, FORKED)])
    await store.update(again.record)
    assert AcceptedHeads.load(store, origin=ORIGIN).size == 9
