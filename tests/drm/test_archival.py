"""P1, P3, P9 in the DRM alone, on the store in memory that runs every transaction twice."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drm_service.archival.steps import ArchiveRequest, KeyArchive, SigningKeyRequest
from drm_service.keys.storage_keys import StorageKeys
from drm_service.records import KEYS, TABLES, find_by_key_id, read_record
from drm_service.transport.restored import mark_row
from drm_service.transport.rows import ROTATED, put_new_key, transport_key_leaf
from drm_service.workers.key_worker import open_worker, worker_setup
from keyark.clock import ManualClock
from keyark.custody.envelopes import TransportPublicKey, seal_to_transport
from keyark.custody.storage import StoragePrivateKey
from keyark.errors import InvalidInputError, KeyarkError, NotFoundError
from keyark.errors.services import StoreFullError
from keyark.keys.key_types import KeyType
from keyark.keys.known_keys import KnownKeys
from keyark.keys.private_keys import save_private_key
from keyark.keys.spki import encode_spki
from keyark.policy.engine import PolicyEngine
from keyark.policy.rules.enrollment import ArchivalRule
from keyark.records.v1.drm_pb2 import SoftwareToken, TransportKeyRecord
from keyark.statements.enrollment import new_request_id, parse_statement, sign_statement
from keyark.store import MemoryStore
from keyark.transparency.archival import check_receipt_for
from keyark.transparency.events import open_event
from keyark.transparency.receipts import ReceiptVerifier
from keyark.transparency.rejections import Sender
from keyark.v1.audit_pb2 import EventType, LoggedEvent
from keyark.workers.turns import Turns
from tests.support.keys.known import known_list
from tests.support.keys.pki import NOW, private_key, spki, statement_bytes
from tests.support.keys.related import negated_ec
from tests.support.running.calls import caller_checks, signed_call
from tests.support.stories.enrolling import pkcs8
from tests.support.stories.transparency import ORIGIN, ecdsa_key, new_log

STORAGE = StoragePrivateKey.generate()


class InlinePool:
    """Works here, with the real worker's function, and counts what it was given."""

    def __init__(self, folder: Path) -> None:
        folder.chmod(0o700)
        save_private_key(folder / "transport-key.pem", ecdsa_key())
        self.batches: list[int] = []
        self._work = open_worker(
            worker_setup(
                transport_key_uris=["file:transport-key.pem"],
                base=folder,
                storage_public_keys=[STORAGE.public_key.to_bytes()],
            )
        )

    async def run(self, items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        self.batches.append(len(items))
        return self._work(list(items))


class Archive:
    """A KeyArchive with what it needs."""

    def __init__(self, folder: Path) -> None:
        clock = ManualClock(NOW * 1_000_000)
        self.log = new_log(clock=clock)
        self.store = MemoryStore(tables=TABLES, finisher=self.log.finisher)
        self.pool = InlinePool(folder)
        self.verifier = ReceiptVerifier(ORIGIN, encode_spki(ecdsa_key().public_key()))
        self.keys = KeyArchive(
            trust_domain="example.org",
            storage_keys=StorageKeys([SoftwareToken(public_key=STORAGE.public_key.to_bytes())]),
            store=self.store,
            log=self.log,
            policy=PolicyEngine(subsystem="drm", rules={}),
            clock=clock,
            callers=caller_checks(clock),
            waived_profiles=frozenset(),
            pool=self.pool,
        )

    async def archive(self, *requests: ArchiveRequest) -> list[bytes | KeyarkError]:
        """Archive what callers send now, but for requests that have a signed call already."""
        sent = [r if r.call else replace(r, call=signed_call(r.statement)) for r in requests]
        return (await self.keys.archive_keys(sent, known_tree_size=0)).outcomes


@pytest.fixture
async def archive(tmp_path: Path) -> Archive:
    made = Archive(tmp_path)
    await made.log.open(made.store)
    return made


def request(number: int = 0, **replaced: Any) -> ArchiveRequest:
    """A request whose keys are all its own."""
    signing, encryption = 200 + 2 * number, 201 + 2 * number
    statement = statement_bytes(
        request_id=replaced.get("request_id") or new_request_id(),
        signing_spki=spki(KeyType.EC_P256, signing),
        encryption_spki=spki(KeyType.EC_P256, encryption),
    )
    return ArchiveRequest(
        statement=statement,
        signature=sign_statement(statement, private_key(KeyType.EC_P256, signing)),
        wrapped_private_key=replaced.get("envelope") or wrap(statement, encryption),
    )


def wrap(statement: bytes, number: int) -> bytes:
    return seal_to_transport(
        pkcs8(private_key(KeyType.EC_P256, number)),
        transport_public_key=TransportPublicKey.from_spki(encode_spki(ecdsa_key().public_key())),
        statement_sha256=parse_statement(statement).sha256,
    )


async def test_a_batch_is_worked_once_signed_once_and_every_receipt_verifies(archive: Archive) -> None:
    requests = [request(i) for i in range(6)]
    outcomes = await archive.archive(*requests)
    receipts = [archive.verifier.verify(outcome) for outcome in outcomes]
    assert archive.pool.batches == [6]
    assert len({receipt.note for receipt in receipts}) == 1
    assert len({receipt.index for receipt in receipts}) == 6
    for asked, receipt in zip(requests, receipts, strict=True):
        check_receipt_for(receipt, parse_statement(asked.statement))


async def test_the_record_holds_the_key_sealed_for_its_leaf_and_the_leafs_place(archive: Archive) -> None:
    asked = request()
    receipt = archive.verifier.verify((await archive.archive(asked))[0])
    statement = parse_statement(asked.statement)
    record = archive.store.read(lambda txn: read_record(txn, statement.enrollment_id))
    assert record.log_index == receipt.index
    assert record.leaf == receipt.leaf
    assert (record.statement, record.signature) == (asked.statement, asked.signature)
    told = open_event(LoggedEvent(leaf=record.leaf, salt=record.salt, details=record.details))
    assert told.event.time_us == NOW * 1_000_000
    assert told.details.match_proof == "ec-p256: derived public key"
    assert STORAGE.open(record.sealed_key, record.leaf) == pkcs8(private_key(KeyType.EC_P256, 201))
    found = archive.store.read(lambda txn: find_by_key_id(txn, statement.encryption_spki_sha256))
    assert found == record
    with pytest.raises(NotFoundError):
        archive.store.read(lambda txn: find_by_key_id(txn, statement.signing_spki_sha256))


async def test_what_was_archived_is_not_worked_again(archive: Archive) -> None:
    asked = request()
    first = archive.verifier.verify((await archive.archive(asked))[0])
    await archive.archive(request(1))
    again = archive.verifier.verify((await archive.archive(asked))[0])
    assert (again.index, again.leaf) == (first.index, first.leaf)
    assert archive.pool.batches == [1, 1]


async def test_a_request_id_stands_for_one_content_only(archive: Archive) -> None:
    """P9: nobody gets another content's receipt, neither later nor in one batch with the first."""
    number = new_request_id()
    first, other = request(0, request_id=number), request(1, request_id=number)
    assert reasons(await archive.archive(first, other)) == ["", "REQUEST_ID_REUSED"]
    assert reasons(await archive.archive(other, first)) == ["REQUEST_ID_REUSED", ""]
    assert archive.store.read(lambda txn: txn.count(KEYS)) == 1


async def test_one_head_covers_old_and_new_receipts_of_a_batch(archive: Archive) -> None:
    asked = request()
    await archive.archive(asked)
    for batch in ([asked, request(1)], [request(2), asked]):
        receipts = [archive.verifier.verify(outcome) for outcome in await archive.archive(*batch)]
        assert len({receipt.note for receipt in receipts}) == 1


async def test_the_link_leads_from_the_callers_tree_to_that_of_the_receipts(archive: Archive) -> None:
    (first,) = await archive.archive(request())
    size = archive.verifier.verify(first).head.checkpoint.size
    asked = request(1)
    asked = replace(asked, call=signed_call(asked.statement))
    batch = await archive.keys.archive_keys([asked], known_tree_size=size)
    (receipt,) = [archive.verifier.verify(outcome) for outcome in batch.outcomes]
    assert (batch.link.first_size, batch.link.second_size) == (size, receipt.head.checkpoint.size)
    assert batch.link.second_root == receipt.head.checkpoint.root


async def test_the_same_request_twice_in_a_batch_is_archived_once(archive: Archive) -> None:
    asked = request()
    outcomes = await archive.archive(asked, asked)
    assert outcomes[0] == outcomes[1]
    assert archive.store.read(lambda txn: txn.count(KEYS)) == 1


async def test_the_same_request_twice_at_once_is_archived_once(archive: Archive) -> None:
    asked = request()
    both = await asyncio.gather(archive.archive(asked), archive.archive(asked, request(1)))
    receipts = [archive.verifier.verify(outcomes[0]) for outcomes in both]
    assert receipts[0].index == receipts[1].index
    assert archive.store.read(lambda txn: txn.count(KEYS)) == 2


async def test_where_the_commit_fails_there_is_no_receipt_and_no_record(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: a full disk answers with an error, and a retry archives."""
    asked = request()

    def fail(tables: Any) -> None:
        raise StoreFullError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(archive.store, "commit", fail)
        with pytest.raises(StoreFullError):
            await archive.archive(asked)
    assert archive.store.read(lambda txn: txn.count(KEYS)) == 0
    archive.verifier.verify((await archive.archive(asked))[0])


async def test_a_batch_in_which_all_fail_writes_no_key_and_signs_nothing(archive: Archive) -> None:
    before = archive.log.size
    outcomes = await archive.archive(request(0, envelope=b"garbage"), request(1, envelope=b"\x08\x01"))
    assert [type(outcome).__name__ for outcome in outcomes] == ["EnvelopeError", "EnvelopeError"]
    assert archive.log.size == before
    assert archive.store.read(lambda txn: txn.count(KEYS)) == 0


async def test_an_envelope_that_does_not_open_refuses_nothing_for_good(archive: Archive) -> None:
    """An RM that garbles an envelope does not lock its owner out."""
    asked = request()
    assert reasons(await archive.archive(replace(asked, wrapped_private_key=b"garbage"))) == ["ENVELOPE"]
    assert reasons(await archive.archive(asked)) == [""]


async def test_what_has_no_key_to_archive_is_told_which_field_it_lacks(archive: Archive) -> None:
    (outcome,) = await archive.archive(replace(request(), wrapped_private_key=b""))
    assert isinstance(outcome, InvalidInputError)
    assert outcome.field == "wrapped_private_key"


async def test_the_archives_own_policy_rejects(archive: Archive) -> None:
    archive.keys.policy.rules = {
        "archive": [ArchivalRule(name="never", type="Archival", stage="archive", archival="forbidden")]
    }
    assert reasons(await archive.archive(request())) == ["POLICY_REJECTED"]
    assert archive.store.read(lambda txn: txn.count(KEYS)) == 0


@pytest.mark.parametrize(("waived", "reason"), [("person", ""), ("other", "CALLER_SIGNATURE_REQUIRED")])
async def test_only_a_profile_that_waives_it_archives_without_the_callers_word(
    archive: Archive, waived: str, reason: str
) -> None:
    keys, asked = replace(archive.keys, waived_profiles=frozenset([waived])), request()
    assert reasons((await keys.archive_keys([asked], known_tree_size=0)).outcomes) == [reason]


async def test_a_key_that_is_known_to_others_is_not_archived(archive: Archive, tmp_path: Path) -> None:
    asked = request()
    (tmp_path / "known").write_bytes(known_list([parse_statement(asked.statement).encryption_spki]))
    archive.keys = replace(archive.keys, known_keys=KnownKeys.load([tmp_path / "known"]))
    assert reasons(await archive.archive(asked)) == ["WEAK_KEY"]


def reservation(number: int) -> SigningKeyRequest:
    asked = request(number)
    return signing_alone(asked.statement, asked.signature)


def signing_alone(statement: bytes, signature: bytes) -> SigningKeyRequest:
    """An enrollment that archives nothing, as its caller sends it."""
    return SigningKeyRequest(statement=statement, signature=signature, call=signed_call(statement))


def request_with(signing: Any, encryption: Any, *, wrapped: Any = None) -> ArchiveRequest:
    """A request for any keys; ``wrapped`` travels in place of the encryption key."""
    statement = statement_bytes(
        request_id=new_request_id(),
        signing_spki=encode_spki(signing.public_key()),
        encryption_spki=encode_spki(encryption.public_key()),
    )
    envelope = seal_to_transport(
        pkcs8(wrapped or encryption),
        transport_public_key=TransportPublicKey.from_spki(encode_spki(ecdsa_key().public_key())),
        statement_sha256=parse_statement(statement).sha256,
    )
    return ArchiveRequest(
        statement=statement, signature=sign_statement(statement, signing), wrapped_private_key=envelope
    )


def reasons(outcomes: Sequence[Any]) -> list[str]:
    return [outcome.reason if isinstance(outcome, KeyarkError) else "" for outcome in outcomes]


async def test_a_reserved_signing_key_is_never_archived_nor_a_relative_of_it(archive: Archive) -> None:
    """P8: a key is reserved once or often, and for no enrollment; an archived one never signs."""
    signing, fresh = private_key(KeyType.EC_P256, 200), private_key(KeyType.EC_P256, 199)
    assert await archive.keys.reserve_signing_keys([reservation(0), reservation(0)]) == [None, None]
    for secret in (signing, negated_ec(signing)):
        assert reasons(await archive.archive(request_with(fresh, secret))) == ["KEY_ROLE_CONFLICT"]
    assert reasons(await archive.archive(request(0))) == [""]  # in its own role it is as free as before
    again = request_with(signing, fresh)
    assert await archive.keys.reserve_signing_keys([signing_alone(again.statement, again.signature)]) == [
        None
    ]
    encryption = private_key(KeyType.EC_P256, 201)
    for secret in (encryption, negated_ec(encryption)):
        asked = request_with(secret, fresh)
        outcome = await archive.keys.reserve_signing_keys([signing_alone(asked.statement, asked.signature)])
        assert reasons(outcome) == ["KEY_ROLE_CONFLICT"]


async def test_a_signing_key_is_reserved_on_its_own_word_only(archive: Archive) -> None:
    """Nobody keeps another's key out of the archive."""
    forged = signing_alone(request(0).statement, request(1).signature)
    assert reasons(await archive.keys.reserve_signing_keys([forged])) == ["STATEMENT_SIGNATURE"]
    fresh = private_key(KeyType.EC_P256, 199)
    victim = private_key(KeyType.EC_P256, 200)
    assert reasons(await archive.archive(request_with(fresh, victim))) == [""]


ENROLLER, MALLORY = 903, 904  # numbers of identity keys


def sent_by(asked: ArchiveRequest, *, signer: int) -> ArchiveRequest:
    """The request, whose call its caller signs with another identity key."""
    return replace(asked, call=signed_call(asked.statement, number=signer))


async def test_the_identity_key_of_one_call_is_not_archived_by_another(archive: Archive) -> None:
    """P8: in either order and both at once, the key itself and one that reveals it, archived or reserved alone."""
    identity, fresh = private_key(KeyType.EC_P256, ENROLLER), private_key(KeyType.EC_P256, 199)
    assert reasons(await archive.archive(sent_by(request(0), signer=ENROLLER))) == [""]
    for secret in (identity, negated_ec(identity)):
        stolen = sent_by(request_with(fresh, secret), signer=MALLORY)
        assert reasons(await archive.archive(stolen)) == ["KEY_ROLE_CONFLICT"]
    other = private_key(KeyType.EC_P256, MALLORY)
    alone = reservation(1)
    alone = replace(alone, call=signed_call(alone.statement, number=MALLORY))
    assert await archive.keys.reserve_signing_keys([alone]) == [None]
    assert reasons(await archive.archive(request_with(fresh, other))) == ["KEY_ROLE_CONFLICT"]


async def test_an_identity_key_that_is_archived_signs_no_calls(archive: Archive) -> None:
    """P8: archived first, through another identity; both in one batch too."""
    identity = private_key(KeyType.EC_P256, ENROLLER)
    fresh = private_key(KeyType.EC_P256, 199)
    archived = sent_by(request_with(fresh, identity), signer=MALLORY)
    outcomes = await archive.archive(archived, sent_by(request(0), signer=ENROLLER))
    assert reasons(outcomes) == ["", "KEY_ROLE_CONFLICT"]
    assert reasons(await archive.archive(sent_by(request(1), signer=ENROLLER))) == ["KEY_ROLE_CONFLICT"]
    alone = reservation(2)
    alone = replace(alone, call=signed_call(alone.statement, number=ENROLLER))
    assert reasons(await archive.keys.reserve_signing_keys([alone])) == ["KEY_ROLE_CONFLICT"]
    assert reasons(await archive.archive(sent_by(request(1), signer=MALLORY))) == [""]


async def test_a_key_archived_for_one_enrollment_is_certified_for_no_other(archive: Archive) -> None:
    """P5: a statement without archival that names another's archived key goes no further than the DRM."""
    assert reasons(await archive.archive(request(0))) == [""]
    mine = request_with(private_key(KeyType.EC_P256, 199), private_key(KeyType.EC_P256, 201))
    outcomes = await archive.keys.reserve_signing_keys([signing_alone(mine.statement, mine.signature)])
    assert reasons(outcomes) == ["PUBLIC_KEY_IN_USE"]
    theirs = request(1)  # nothing is archived yet, so nothing is known of the key
    key = private_key(KeyType.EC_P256, 203)
    early = request_with(private_key(KeyType.EC_P256, 199), key)
    assert await archive.keys.reserve_signing_keys([signing_alone(early.statement, early.signature)]) == [
        None
    ]
    assert reasons(await archive.archive(theirs)) == [""]  # and its owner archives it none the less


async def test_a_pair_that_did_not_match_is_refused_for_good_and_nobody_elses_is(archive: Archive) -> None:
    mine, yours, key = (private_key(KeyType.EC_P256, number) for number in (197, 198, 199))
    wrong = request_with(mine, key, wrapped=yours)
    assert reasons(await archive.archive(wrong, request(0))) == ["KEY_MISMATCH", ""]
    assert reasons(await archive.archive(wrong)) == ["KEY_PAIR_REFUSED"]
    batches = list(archive.pool.batches)
    assert reasons(await archive.archive(request_with(mine, key))) == ["KEY_PAIR_REFUSED"]
    assert archive.pool.batches == batches  # no worker looks at it again
    assert reasons(await archive.archive(request_with(yours, key))) == [""]


async def test_a_batch_is_accepted_in_slices_and_the_loop_goes_on_between_them(archive: Archive) -> None:
    seconds, passes = iter(range(1, 10_000)), 0
    keys = replace(archive.keys, turns=Turns(slice_seconds=4.0, clock=lambda: float(next(seconds))))
    batch = asyncio.create_task(
        keys.archive_keys([replace(request(0), signature=b"no")] * 64, known_tree_size=0)
    )
    while not batch.done():
        passes += 1
        await asyncio.sleep(0)
    assert passes >= 16
    outcomes = (await batch).outcomes
    assert [getattr(outcome, "reason", "") for outcome in outcomes] == ["STATEMENT_SIGNATURE"] * 64


@pytest.mark.parametrize("archived_first", [True, False])
async def test_a_batch_never_archives_a_key_that_signs_in_it(archive: Archive, archived_first: bool) -> None:
    """P8: both are looked at before either is recorded."""
    key, one, other = (private_key(KeyType.EC_P256, number) for number in (190, 191, 192))
    signs, archives = request_with(key, one), request_with(other, negated_ec(key))
    batch = [archives, signs] if archived_first else [signs, archives]
    assert reasons(await archive.archive(*batch)) == ["", "KEY_ROLE_CONFLICT"]
    assert archive.store.read(lambda txn: txn.count(KEYS)) == 1


async def test_a_client_is_named_for_what_it_sent_and_never_for_what_was_made_up(archive) -> None:
    """P6: an RM that adds rubbish to another's statement is the one that the entry names."""
    asked = request(0)
    genuine = replace(
        asked, wrapped_private_key=b"rubbish", call=signed_call(asked.statement), sender=Sender()
    )
    forged = replace(genuine, signature=b"rubbish", sender=Sender())
    without = replace(genuine, call=None, sender=Sender())
    await archive.keys.archive_keys([genuine, forged, without], known_tree_size=0)
    client = genuine.sender.claimed
    assert genuine.sender == Sender(proven=client, claimed=client)
    assert forged.sender == without.sender == Sender(claimed=client)


async def test_an_archive_that_came_from_a_backup_gives_no_receipt_until_another_transport_key_is_in_force(
    archive: Archive,
) -> None:
    """P1, P6: of earlier keys neither, for the key that signed the lost log would sign it."""
    earlier = request(0)
    assert reasons(await archive.archive(earlier)) == [""]
    await archive.store.update(lambda txn: txn.put(*mark_row(archive.keys.clock)))
    before = archive.log.size
    garbage = replace(request(2), statement=b"garbage")
    outcomes = await archive.archive(earlier, request(1), garbage)
    assert reasons(outcomes) == ["ARCHIVE_RESTORED", "ARCHIVE_RESTORED", "INVALID_INPUT"]
    assert (archive.log.size, archive.pool.batches) == (before, [1])
    leaf = transport_key_leaf(ROTATED, bytes(32), NOW * 1_000_000)
    record = TransportKeyRecord(generation=2, key_id=bytes(32))
    await archive.store.update(lambda txn: put_new_key(txn, archive.log, leaf, record=record))
    assert reasons(await archive.archive(earlier, request(1))) == ["", ""]


async def test_a_refusal_for_good_has_its_leaf_in_the_same_commit(archive) -> None:
    before = archive.log.size
    mine, yours, key = (private_key(KeyType.EC_P256, number) for number in (197, 198, 199))
    asked = request_with(mine, key, wrapped=yours)
    assert reasons(await archive.archive(asked)) == ["KEY_MISMATCH"]
    opened = open_event(archive.log.entry(before))
    event = opened.event
    assert opened.details
    assert opened.details.reason == "KEY_MISMATCH"
    assert event.type == EventType.EVENT_TYPE_KEY_PAIR_REFUSED
    assert event.enrollment_id == parse_statement(asked.statement).enrollment_id
    assert archive.log.size == before + 1
