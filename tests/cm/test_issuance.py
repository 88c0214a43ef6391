"""P2 and P9 in the CM alone: both certificates or neither, whatever workers and the store do.

The store is the one in memory, which runs every transaction twice: an effect outside of it would show.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from hashlib import sha256
from typing import Any

import pytest

from cm_service.issuance.serial_blocks import SerialBlocks
from cm_service.issuance.steps import PairRequest
from keyark.errors import KeyarkError
from keyark.errors.services import StoreError, WorkerDiedError
from keyark.keys.key_types import KeyType
from keyark.keys.spki import encode_spki
from keyark.records.v1.cm_pb2 import SignPairResult
from keyark.statements.enrollment import new_request_id, parse_statement
from keyark.store import MemoryStore
from keyark.transparency.archival import ArchiveEvidence
from keyark.v1.audit_pb2 import EventType
from keyark.v1.common_pb2 import CertificatePair
from keyark.workers.turns import Turns
from keyark.x509.certificates import Validity, load_certificate
from keyark.x509.serials import encode_serial
from tests.support.keys.pki import NOW, issue_pair, issuing_ca, signed_statement, spki
from tests.support.running.calls import signed_call
from tests.support.stories.issuance import Ca, request

NOTHING = ArchiveEvidence(brought_by="spiffe://example.org/rm", links=[], transport_certificates=[])


async def test_a_batch_shares_its_reservation_and_every_pair_is_logged(ca: Ca) -> None:
    outcomes = await ca.issue(*(request(i) for i in range(5)))
    assert all(isinstance(outcome, CertificatePair) for outcome in outcomes)
    kinds = [event.type for event in await ca.events()]
    assert kinds.count(EventType.EVENT_TYPE_SERIALS_RESERVED) == 1
    assert kinds.count(EventType.EVENT_TYPE_PAIR_ISSUED) == 5
    certificates = [der for o in outcomes for der in (o.signing_certificate, o.encryption_certificate)]
    assert len({load_certificate(der).serial_number for der in certificates}) == 10


async def test_the_pair_and_its_leaf_name_who_asked_and_what_was_signed(ca: Ca) -> None:
    asked = request(common_name="Bob Example", email="bob@example.org")
    (outcome,) = await ca.issue(asked)
    statement, (pair,), leaf = parse_statement(asked.statement), ca.issued(), (await ca.events())[-1]
    assert (pair.common_name, pair.email, pair.profile) == ("Bob Example", "bob@example.org", "person")
    assert pair.signing_spki_sha256 == leaf.signing_spki_sha256 == statement.signing_spki_sha256
    assert pair.encryption_spki_sha256 == leaf.encryption_spki_sha256 == statement.encryption_spki_sha256
    assert leaf.time_us == NOW * 1_000_000
    assert list(leaf.serials) == [pair.signing_serial, pair.encryption_serial]
    assert list(leaf.certificate_sha256) == [
        sha256(outcome.signing_certificate).digest(),
        sha256(outcome.encryption_certificate).digest(),
    ]


async def test_serial_numbers_are_reserved_before_anything_is_signed(ca: Ca) -> None:
    """By a leaf that is durable while the workers sign; a crash then burns the numbers."""
    seen = list[set[bytes]]()

    def watch(results: list[bytes]) -> list[bytes]:
        leaves = [event for event in ca.committed() if event.type == EventType.EVENT_TYPE_SERIALS_RESERVED]
        reserved = {serial for event in leaves for serial in event.serials}
        pairs = [SignPairResult.FromString(result) for result in results]
        ders = [der for pair in pairs for der in (pair.signing_certificate, pair.encryption_certificate)]
        assert {encode_serial(load_certificate(der).serial_number) for der in ders} <= reserved
        seen.append(reserved)
        return results

    ca.pool.alter = watch
    await ca.issue(request(0), request(1))
    await ca.issue(request(2))
    assert len(seen) == 2


async def test_most_batches_take_serial_numbers_of_a_block_and_commit_once(ca: Ca) -> None:
    await ca.issue(request(0))
    before = ca.store.stats.commits
    await ca.issue(request(1), request(2))
    await ca.issue(request(3))
    assert ca.store.stats.commits == before + 2


async def test_a_serial_number_is_given_out_once_whoever_asks_together(ca: Ca) -> None:
    blocks = ca.issuance.serials
    taken = await asyncio.gather(*(blocks.take(count) for count in (1, 40, 0, 7, 300, 3)))
    serials = [serial for pairs in taken for pair in pairs for serial in (pair.signing, pair.encryption)]
    assert [len(pairs) for pairs in taken] == [1, 40, 0, 7, 300, 3]
    assert len(set(serials)) == len(serials)


async def test_a_later_process_gives_out_no_serial_number_of_an_earlier_one(ca: Ca) -> None:
    first = (await ca.issuance.serials.take(1))[0]
    later = SerialBlocks(store=ca.store, log=ca.log, clock=ca.clock, crl_shards=1)
    reserved = [event for event in ca.committed() if event.type == EventType.EVENT_TYPE_SERIALS_RESERVED]
    taken = {pair.signing for pair in await later.take(100)}
    assert first.signing in reserved[0].serials
    assert taken.isdisjoint(reserved[0].serials)


async def test_a_block_that_is_not_durable_gives_out_nothing(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise StoreError("no room")

    with monkeypatch.context() as failing:
        failing.setattr(ca.store, "commit", fail)
        with pytest.raises(StoreError):
            await ca.issue(request(0))
    assert ca.issued() == []
    assert isinstance((await ca.issue(request(0)))[0], CertificatePair)


async def test_the_certificates_of_a_pair_stand_on_one_shard_of_the_crl(ca: Ca) -> None:
    blocks = SerialBlocks(store=ca.store, log=ca.log, clock=ca.clock, crl_shards=16)
    assert all(pair.signing[-1] == pair.encryption[-1] for pair in await blocks.take(50))


async def test_nothing_is_signed_for_a_key_that_is_being_signed_for_in_another_enrollment(ca: Ca) -> None:
    """P8: while the workers sign, nothing of it is in the store yet."""
    mine, theirs = request(0), request(0)
    signed = []

    def count(results: list[bytes]) -> list[bytes]:
        signed.extend(results)
        return results

    ca.pool.alter = count
    outcomes = await asyncio.gather(ca.issue(mine), ca.issue(theirs))
    assert sorted(getattr(outcome[0], "reason", "") for outcome in outcomes) == ["", "PUBLIC_KEY_IN_USE"]
    assert len(signed) == 1


@pytest.mark.parametrize(
    "alter", [list, lambda results: [WorkerDiedError("A worker died.") for _ in results]]
)
async def test_keys_are_let_go_when_a_request_is_over(ca: Ca, alter: Any) -> None:
    ca.pool.alter = alter
    await ca.issue(request(0))
    assert ca.issuance.claims.is_empty


def only_one(results: list[bytes]) -> list[bytes]:
    """The signing certificate twice."""
    altered = []
    for result in results:
        pair = SignPairResult.FromString(result)
        pair.encryption_certificate = pair.signing_certificate
        altered.append(pair.SerializeToString())
    return altered


def crossed(results: list[bytes]) -> list[bytes]:
    """Each request gets its neighbour's certificates."""
    return results[::-1]


def dead(results: list[bytes]) -> list[KeyarkError]:
    """The workers died."""
    return [WorkerDiedError("A worker died.") for _ in results]


def another_key(role: str) -> Any:
    """Certificates with the serial numbers and names that were asked for; the one of ``role`` is for another key."""

    def alter(results: list[bytes]) -> list[bytes]:
        altered = []
        for result in results:
            pair = SignPairResult.FromString(result)
            signing = load_certificate(pair.signing_certificate)
            encryption = load_certificate(pair.encryption_certificate)
            spkis = {
                "signing_spki": encode_spki(signing.public_key()),
                "encryption_spki": encode_spki(encryption.public_key()),
            }
            forged = issue_pair(
                issuing_ca(),
                signing_serial=encode_serial(signing.serial_number),
                encryption_serial=encode_serial(encryption.serial_number),
                **(spkis | {f"{role}_spki": spki(KeyType.EC_P256, 99)}),
            )
            pair = SignPairResult(
                signing_certificate=forged.signing, encryption_certificate=forged.encryption
            )
            altered.append(pair.SerializeToString())
        return altered

    return alter


def hidden(results: list[bytes]) -> list[bytes]:
    """Each certificate follows one for another key: the serial number and the key are somewhere in the bytes."""
    altered = []
    for result in results:
        pair = SignPairResult.FromString(result)
        forged = issue_pair(issuing_ca(), signing_spki=spki(KeyType.EC_P256, 99))
        pair.signing_certificate = forged.signing + pair.signing_certificate
        altered.append(pair.SerializeToString())
    return altered


def no_encryption(results: list[bytes]) -> list[bytes]:
    """The signing certificate alone."""
    return [
        SignPairResult(
            signing_certificate=SignPairResult.FromString(result).signing_certificate
        ).SerializeToString()
        for result in results
    ]


@pytest.mark.parametrize(
    "alter",
    [only_one, crossed, dead, another_key("signing"), another_key("encryption"), hidden, no_encryption],
)
async def test_what_was_not_asked_for_is_not_issued_and_a_retry_burns_the_serials(ca: Ca, alter: Any) -> None:
    requests = [request(0), request(1)]
    ca.pool.alter = alter
    assert all(isinstance(outcome, KeyarkError) for outcome in await ca.issue(*requests))
    assert ca.issued() == []
    burned = {serial for asked in ca.pool.asked for serial in (asked.signing_serial, asked.encryption_serial)}
    assert len(burned) == 4
    ca.pool.alter = list
    outcomes = await ca.issue(*requests)
    assert all(isinstance(outcome, CertificatePair) for outcome in outcomes)
    used = {serial for pair in ca.issued() for serial in (pair.signing_serial, pair.encryption_serial)}
    assert len(used) == 4
    assert not used & burned


async def test_where_the_last_write_fails_nothing_is_issued(ca: Ca, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit of the certificates fails: neither exists, and a retry issues both."""
    asked = request()
    commits = []

    def fail_second(tables: Any) -> None:
        commits.append(1)
        if len(commits) == 2:
            raise StoreError("no room")
        MemoryStore.commit(ca.store, tables)

    monkeypatch.setattr(ca.store, "commit", fail_second)
    with pytest.raises(StoreError):
        await ca.issue(asked)
    assert ca.issued() == []
    assert isinstance((await ca.issue(asked))[0], CertificatePair)
    assert len(ca.issued()) == 1


async def test_the_same_request_gets_its_first_pair_again(ca: Ca) -> None:
    asked = request()
    first = (await ca.issue(asked))[0]
    ca.clock.advance(3600)
    assert (await ca.issue(asked))[0] == first
    together = await asyncio.gather(ca.issue(asked), ca.issue(asked))
    assert [outcomes[0] for outcomes in together] == [first, first]
    assert len(ca.issued()) == 1


async def test_two_calls_for_one_enrollment_have_one_outcome(ca: Ca) -> None:
    """Both are signed before either commits; the quicker one's pair is the pair."""
    asked = request()
    together = await asyncio.gather(ca.issue(asked), ca.issue(asked), ca.issue(asked))
    assert len({outcomes[0].signing_certificate for outcomes in together}) == 1
    assert len(ca.issued()) == 1
    assert [e.type for e in await ca.events()].count(EventType.EVENT_TYPE_PAIR_ISSUED) == 1


async def test_one_bad_request_does_not_hurt_its_neighbours(ca: Ca) -> None:
    raw, _ = signed_statement(request_id=new_request_id())
    bad = PairRequest(statement=raw, signature=b"bad", receipt=b"")
    outcomes = await ca.issue(request(0), bad, request(1))
    assert [isinstance(outcome, KeyarkError) for outcome in outcomes] == [False, True, False]


async def test_a_receipt_is_refused_where_archival_is_forbidden(ca: Ca) -> None:
    asked = request()
    outcome = (await ca.issue(replace(asked, receipt=b"x")))[0]
    assert outcome.reason in ("ARCHIVAL_FORBIDDEN", "TRANSPORT_KEY_UNPROVEN")


async def test_the_ca_issues_nothing_that_outlives_it(ca: Ca) -> None:
    end = Validity.of(issuing_ca().certificate).not_after
    ca.clock.advance(end - NOW - 60)
    pair = (await ca.issue(request()))[0]
    certificate = load_certificate(pair.signing_certificate)
    assert certificate.not_valid_after_utc == issuing_ca().certificate.not_valid_after_utc
    late = request(1)
    late = replace(late, call=signed_call(late.statement, time=end))
    ca.clock.advance(120)
    outcome = (await ca.issue(late))[0]
    assert isinstance(outcome, KeyarkError)
    assert outcome.reason == "ISSUER_VALIDITY"


async def test_a_batch_is_accepted_in_slices_and_the_loop_goes_on_between_them(ca: Ca) -> None:
    seconds, passes = iter(range(1, 10_000)), 0
    turns = Turns(slice_seconds=4.0, clock=lambda: float(next(seconds)))
    issuance = replace(ca.issuance, turns=turns)
    bad = PairRequest(statement=request().statement, signature=b"no", receipt=b"")
    batch = asyncio.create_task(issuance.issue_pairs([bad] * 64, NOTHING))
    while not batch.done():
        passes += 1
        await asyncio.sleep(0)
    assert passes >= 16
    assert all(isinstance(outcome, KeyarkError) for outcome in await batch)
