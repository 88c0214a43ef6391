"""P6: what a transaction appends is in the log if it is durable, and only then; heads never fork."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyark.errors import KeyarkError, NotFoundError
from keyark.errors.services import LogClosedError, LogCorruptError, StoreFullError, TreeSizeError
from keyark.keys.spki import encode_spki
from keyark.store import MemoryStore, WriteTransaction, open_store
from keyark.transparency.checkpoint import Checkpoint, NotePublicKey, NoteSigner, NoteVerifier
from keyark.transparency.events import open_event
from keyark.transparency.log import TABLES, LeafRef, Log
from keyark.transparency.merkle import leaf_hash, verify_consistency, verify_inclusion
from keyark.transparency.succession import SuccessionSigner
from keyark.v1.audit_pb2 import EventType
from tests.support.stories.transparency import (
    ORIGIN,
    ROWS,
    append,
    ecdsa_key,
    ed25519_key,
    entry,
    memory_store,
    new_log,
    opened_log,
    reference_root,
    rsa_key,
)


def verified(note: bytes) -> Checkpoint:
    return NoteVerifier(ORIGIN, ecdsa_key().public_key()).verify(note)


async def leaves_of(log: Log) -> list[bytes]:
    return [row.event.leaf for row in await log.entries(limit=10_000)]


class RefusedError(KeyarkError):
    """A member of a commit group that fails."""


async def test_an_empty_store_begins_with_log_created():
    log, _ = await opened_log()
    assert log.size == 1
    assert open_event(log.entry(0)).event.type == EventType.EVENT_TYPE_LOG_CREATED
    head = await log.checkpoint()
    assert verified(head.note) == Checkpoint(ORIGIN, 1, head.root)


async def test_a_receipt_proves_the_leaf_under_the_signed_head():
    log, store = await opened_log()
    events = [entry(number) for number in range(20)]
    indices = await append(log, store, *events)
    assert indices == list(range(1, 21))
    head = await log.checkpoint(covering=indices[-1])
    for event, index in zip(events, indices, strict=True):
        assert log.entry(index) == event
        proof = log.inclusion_proof(index, head)
        verify_inclusion(
            leaf_hash=leaf_hash(event.leaf), index=index, tree_size=head.size, proof=proof, root=head.root
        )


async def test_rows_learn_the_index_of_their_leaf_in_the_same_commit():
    log, store = await opened_log()

    def note(key: bytes, txn: WriteTransaction, index: int) -> None:
        txn.put(ROWS, key, b"%d" % index)

    def write(key: bytes, txn: WriteTransaction) -> LeafRef:
        txn.put(ROWS, key, b"")
        return log.append(txn, entry(), on_index=partial(note, key))

    await asyncio.gather(*(store.update(partial(write, b"%d" % number)) for number in range(5)))
    rows = store.read(lambda txn: txn.scan(ROWS, limit=10))
    assert rows == [(b"%d" % number, b"%d" % (number + 1)) for number in range(5)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(0, 3), st.booleans()), min_size=1, max_size=4), max_size=6))
def test_any_groups_with_failing_members_make_the_reference_tree(groups):
    """Each group is a list of updates: how many leaves it appends, and whether it fails after that."""

    async def run() -> None:
        log, store = await opened_log()
        expected = [log.entry(0).leaf]
        numbers = iter(range(1000))

        def member(events, fails, txn):
            refs = [log.append(txn, event) for event in events]
            txn.put(ROWS, b"%d" % len(events), b"x")
            if fails:
                raise RefusedError("no")
            return refs

        for group in groups:
            batches = [([entry(next(numbers)) for _ in range(count)], fails) for count, fails in group]
            updates = [store.update(partial(member, *batch)) for batch in batches]
            results = await asyncio.gather(*updates, return_exceptions=True)
            for (events, fails), refs in zip(batches, results, strict=True):
                if fails:
                    assert isinstance(refs, RefusedError)
                    continue
                assert [log.entry(ref.index) for ref in refs] == events
                expected.extend(event.leaf for event in events)
        assert await leaves_of(log) == expected
        head = await log.checkpoint()
        assert (head.size, head.root) == (len(expected), reference_root(expected))
        assert await log.verify_all() == Checkpoint(ORIGIN, head.size, head.root)
        check_all_proofs(log, head, expected)

    asyncio.run(run())


def check_all_proofs(log, head, leaves):
    for index, leaf in enumerate(leaves):
        proof = log.inclusion_proof(index, head)
        verify_inclusion(
            leaf_hash=leaf_hash(leaf), index=index, tree_size=head.size, proof=proof, root=head.root
        )
    for second in range(len(leaves) + 1):
        for first in range(second + 1):
            link = log.link_sizes(first, second)
            assert link.proof == log.consistency_proof(first, second)
            verify_consistency(
                first_size=first,
                second_size=second,
                first_root=reference_root(leaves[:first]),
                second_root=link.second_root,
                proof=link.proof,
            )


async def test_a_commit_that_fails_after_the_finisher_ran_leaves_no_trace():
    log, store = await opened_log()
    await append(log, store, entry(1), entry(2))
    before = await log.checkpoint()
    store.fails = True
    with pytest.raises(StoreFullError):
        await append(log, store, entry(3), entry(4), entry(5))
    assert await log.checkpoint() is before
    store.fails = False
    assert await append(log, store, entry(6)) == [3]
    leaves = await leaves_of(log)
    assert leaves[1:] == [entry(number).leaf for number in (1, 2, 6)]
    assert (await log.verify_all()).root == (await log.checkpoint()).root == reference_root(leaves)


async def test_a_log_that_is_opened_again_goes_on(tmp_path):
    log = new_log()
    store = open_store(tmp_path, tables=TABLES, finisher=log.finisher)
    await log.open(store)
    for number in range(11):
        await append(log, store, entry(number))
    old = await log.checkpoint()
    await log.close()
    await store.close()
    log = new_log()
    store = open_store(tmp_path, tables=TABLES, finisher=log.finisher)
    await log.open(store)
    assert log.size == 12
    await append(log, store, entry(11))
    new = await log.checkpoint()
    link = log.link(old.size, new)
    verify_consistency(
        first_size=old.size, second_size=13, first_root=old.root, second_root=new.root, proof=link.proof
    )
    assert (await log.verify_all()).size == 13
    await log.close()
    await store.close()


class SlowKey:
    """An HSM that signs when the test says so, in a thread, and counts."""

    is_slow = True

    def __init__(self) -> None:
        self.signed: list[bytes] = []
        self.started = threading.Semaphore(0)
        self.may_sign = threading.Semaphore(0)
        self.failure: Exception | None = None

    def public_key(self) -> NotePublicKey:
        return ed25519_key().public_key()

    def sign(self, text: bytes) -> bytes:
        self.started.release()
        self.may_sign.acquire()
        if self.failure is not None:
            raise self.failure
        self.signed.append(text)
        return ed25519_key().sign(text)


async def slow_log() -> tuple[Log, MemoryStore, SlowKey]:
    key = SlowKey()
    log, store = await opened_log(NoteSigner(ORIGIN, key))
    return log, store, key


async def test_all_who_wait_ride_on_one_signature():
    log, store, key = await slow_log()
    indices = await append(log, store, *(entry(number) for number in range(8)))
    waiting = [asyncio.create_task(log.checkpoint(covering=index)) for index in indices]
    await asyncio.to_thread(key.started.acquire)
    key.may_sign.release()
    heads = await asyncio.gather(*waiting)
    assert len(key.signed) == 1
    assert all(head is heads[0] for head in heads)
    assert await log.checkpoint() is heads[0]
    assert len(key.signed) == 1


async def test_a_leaf_that_came_during_a_signature_waits_for_the_next_and_one_is_in_flight():
    log, store, key = await slow_log()
    first = asyncio.create_task(log.checkpoint())
    await asyncio.to_thread(key.started.acquire)
    late = [
        asyncio.create_task(log.checkpoint(covering=index))
        for index in await append(log, store, entry(1), entry(2))
    ]
    key.may_sign.release()
    assert (await first).size == 1
    await asyncio.to_thread(key.started.acquire)
    assert not any(task.done() for task in late)
    key.may_sign.release()
    assert {(await task).size for task in late} == {3}
    assert len(key.signed) == 2


async def test_a_covered_leaf_gets_the_last_signature_without_a_new_one():
    log, store, key = await slow_log()
    key.may_sign.release()
    signed = await log.checkpoint()
    await append(log, store, entry(1))
    assert await log.checkpoint(covering=0) is signed
    assert len(key.signed) == 1


async def test_who_is_cancelled_takes_the_signature_from_nobody():
    log, _, key = await slow_log()
    gone, stays = asyncio.create_task(log.checkpoint()), asyncio.create_task(log.checkpoint())
    await asyncio.to_thread(key.started.acquire)
    gone.cancel()
    key.may_sign.release()
    assert (await stays).size == 1
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_a_key_that_fails_is_told_to_all_and_asked_again():
    log, _, key = await slow_log()
    key.failure = OSError("the HSM is gone")
    key.may_sign.release()
    waiting = [asyncio.create_task(log.checkpoint()) for _ in range(3)]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(result, OSError) for result in results)
    key.failure = None
    key.may_sign.release()
    assert (await log.checkpoint()).size == 1


async def test_what_is_not_committed_is_never_signed():
    log, store, key = await slow_log()
    store.fails = True
    with pytest.raises(StoreFullError):
        await append(log, store, entry(1))
    with pytest.raises(NotFoundError):
        await log.checkpoint(covering=1)
    key.may_sign.release()
    assert (await log.checkpoint()).size == 1
    assert key.signed[0].startswith(b"example.org/drm\n1\n")


async def test_closing_lets_a_signature_end():
    log, _, key = await slow_log()
    waiting = asyncio.create_task(log.checkpoint())
    await asyncio.to_thread(key.started.acquire)
    closing = asyncio.create_task(log.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    key.may_sign.release()
    await closing
    assert (await waiting).size == 1
    with pytest.raises(LogClosedError):
        await log.checkpoint()


async def test_a_store_that_went_back_gets_no_second_tree_signed():
    log, store = await opened_log()
    before = {name: dict(rows) for name, rows in store._tables.items()}
    await append(log, store, entry(1))
    await log.checkpoint()
    store._tables = before
    with pytest.raises(LogCorruptError, match="another tree was signed"):
        await log.checkpoint()
    await append(log, store, entry(2))
    with pytest.raises(LogCorruptError, match="another tree was signed"):
        await log.checkpoint(covering=1)


async def test_a_log_that_is_not_open_appends_nothing():
    log = new_log()
    store = memory_store(log)
    with pytest.raises(LogClosedError):
        await store.update(lambda txn: (txn.put(ROWS, b"a", b""), log.append(txn, entry())))
    assert store.get(ROWS, b"a") is None


async def test_a_store_without_the_finisher_is_refused():
    log = new_log()
    with pytest.raises(LogClosedError, match="finisher"):
        await log.open(MemoryStore(tables=TABLES))
    with pytest.raises(LogClosedError):
        log.size  # noqa: B018 — reading it must raise


async def test_where_the_log_cannot_be_written_nothing_happens():
    log, store = await opened_log()
    store._tables["log_head"].clear()
    with pytest.raises(LogCorruptError):
        await store.update(lambda txn: (txn.put(ROWS, b"a", b""), log.append(txn, entry())))
    assert store.get(ROWS, b"a") is None


async def test_entries_come_in_pages():
    log, store = await opened_log()
    await append(log, store, *(entry(number) for number in range(5)))
    assert [row.index for row in await log.entries(limit=4)] == [0, 1, 2, 3]
    assert [row.index for row in await log.entries(after=3, limit=4)] == [4, 5]
    assert await log.entries(after=2**70, limit=4) == []


@pytest.mark.parametrize("index", [-1, 1, 2**70])
async def test_a_leaf_that_is_not_there_is_not_found(index):
    log, _ = await opened_log()
    with pytest.raises(NotFoundError):
        log.entry(index)
    with pytest.raises(NotFoundError):
        log.inclusion_proof(index, await log.checkpoint())
    if index > 0:
        with pytest.raises(NotFoundError):
            await log.checkpoint(covering=index)


@pytest.mark.parametrize(("first", "second"), [(2, 1), (0, 3), (-1, 1), (3, 3)])
async def test_trees_that_are_not_there_have_no_proof(first, second):
    log, store = await opened_log()
    await append(log, store, entry())
    with pytest.raises(TreeSizeError):
        log.consistency_proof(first, second)
    with pytest.raises(TreeSizeError):
        log.link_sizes(first, second)


async def test_a_head_that_was_signed_is_signed_anew_for_a_new_key():
    signer = SuccessionSigner()
    signer.begin(NoteSigner.from_private_key(ORIGIN, ecdsa_key()))
    log, _ = await opened_log(signer)
    before = await log.checkpoint()
    signer.hand_over(NoteSigner.from_private_key(ORIGIN, rsa_key()))
    assert await log.checkpoint() == before
    both = await log.sign_anew()
    assert (both.size, both.root) == (before.size, before.root)
    assert await log.checkpoint() == both
    for key in (ecdsa_key(), rsa_key()):
        spki = encode_spki(key.public_key())
        assert NoteVerifier.from_public_key(ORIGIN, spki).verify(both.note).size == before.size
    assert log.public_key_der == encode_spki(rsa_key().public_key())
