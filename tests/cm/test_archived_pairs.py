"""P1 and P6 in the CM alone: pairs whose encryption key is archived, under real receipts of a log of the test's own."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from cm_service.issuance.refusals import find_refusal
from cm_service.issuance.steps import PairRequest
from cm_service.issuer.profiles import ProfileArchival
from keyark.errors import InvalidInputError, KeyarkError, NotFoundError
from keyark.identity.spiffe import SpiffeId
from keyark.identity.transport import TransportTrust
from keyark.keys.key_types import KeyType
from keyark.policy.rules.enrollment import ReceiptRule, UniqueSubjectName, ValidityRule
from keyark.service.checks.leaves import enrollment_leaf
from keyark.statements.enrollment import new_request_id, parse_statement, sign_statement
from keyark.transparency.archival import MAX_CHANGES, MAX_LINKS, ArchiveEvidence
from keyark.transparency.checkpoint import NoteSigner
from keyark.transparency.events import open_event
from keyark.transparency.heads import AcceptedHeads
from keyark.transparency.merkle import leaf_hash
from keyark.transparency.transport_keys import FollowedTransportKeys
from keyark.v1.audit_pb2 import AuditEvent, CheckpointLink, EventType, TransportKeyChange
from keyark.v1.ceremony_pb2 import CeremonyProof
from keyark.v1.common_pb2 import CertificatePair
from keyark.workers.turns import Turns
from tests.support.keys.pki import NOW, TRUST_DOMAIN, internal_ca, private_key, spki, statement_bytes
from tests.support.running.calls import signed_call
from tests.support.stories.issuance import Ca, InlinePool, request
from tests.support.stories.transparency import ORIGIN, append, memory_store, new_log, receipt_of
from tests.transparency.test_transport_keys import certificate

RM = f"spiffe://{TRUST_DOMAIN}/rm"
TRANSPORT_KEY = 0
STORAGE_KEY_ID = bytes(32)  # the one that the CM of the tests trusts


class Archived:
    """A CM that requires archival, and the log of an archive that it follows."""

    def __init__(self, ca: Ca) -> None:
        self.ca = ca
        key = private_key(KeyType.EC_P256, TRANSPORT_KEY)
        self.log = new_log(NoteSigner.from_private_key(ORIGIN, key))
        self.store = memory_store(self.log)
        profiles, receipts = ca.issuance.profiles, ca.issuance.receipts
        profiles["person"] = profiles["person"].model_copy(update={"archival": ProfileArchival.REQUIRED})
        receipts.keys = FollowedTransportKeys(
            TransportTrust(anchors=[internal_ca().certificate], trust_domain=TRUST_DOMAIN)
        )

    async def archived(self, asked: PairRequest, **ids: Any) -> PairRequest:
        """The request with a receipt for it."""
        leaf = enrollment_leaf(
            EventType.EVENT_TYPE_KEY_ARCHIVED,
            parse_statement(asked.statement),
            time_us=NOW * 1_000_000,
            **({"storage_key_id": STORAGE_KEY_ID} | ids),
        )
        (index,) = await append(self.log, self.store, leaf)
        return replace(asked, receipt=await receipt_of(self.log, index), call=signed_call(asked.statement))

    async def issue(self, *asked: PairRequest) -> list[CertificatePair | KeyarkError]:
        """Show the requests, with a link to every head that their receipts are under."""
        size, head = self.ca.issuance.receipts.heads.size, await self.log.checkpoint()
        links = [self.log.link_sizes(end, end + 1) for end in range(size, head.size)]
        evidence = ArchiveEvidence(
            brought_by=RM, links=links, transport_certificates=[certificate(TRANSPORT_KEY)]
        )
        return await self.ca.issuance.issue_pairs(asked, evidence)

    def refused(self, asked: PairRequest) -> bool:
        """Whether an enrollment is refused for good."""
        wanted = parse_statement(asked.statement).enrollment_id
        try:
            self.ca.store.read(lambda txn: find_refusal(txn, wanted))
        except NotFoundError:
            return False
        return True


@pytest.fixture
async def archive(ca: Ca) -> Archived:
    made = Archived(ca)
    await made.log.open(made.store)
    return made


def reasons(outcomes: list[Any]) -> list[str]:
    return [outcome.reason if isinstance(outcome, KeyarkError) else "" for outcome in outcomes]


async def test_an_archived_pair_is_issued_and_its_leaf_names_the_receipts(archive: Archived) -> None:
    archive.ca.issuance.policy.rules = {"issue": [ReceiptRule(name="r", type="Receipt", stage="issue")]}
    assert reasons(await archive.issue(await archive.archived(request()))) == [""]
    issued = (await archive.ca.events())[-1]
    assert issued.type == EventType.EVENT_TYPE_PAIR_ISSUED
    leaf = archive.log.entry(archive.log.size - 1).leaf
    assert issued.receipt_leaf_hash == leaf_hash(leaf)
    assert AuditEvent.FromString(leaf).enrollment_id == issued.enrollment_id


async def test_the_head_that_receipts_led_to_is_durable_with_the_pair(archive: Archived) -> None:
    """P6: after a restart the archive cannot go back behind what this CM issued on."""
    await archive.issue(await archive.archived(request()))
    again = AcceptedHeads.load(archive.ca.store, origin=ORIGIN)
    assert again.size == archive.log.size
    assert again.root == archive.ca.issuance.receipts.heads.root


async def test_no_pair_is_issued_on_what_is_no_receipt_for_it(archive: Archived) -> None:
    mine, other = request(0), request(1)
    receipt = (await archive.archived(other)).receipt
    foreign = replace(mine, receipt=receipt, call=signed_call(mine.statement))
    unknown = await archive.archived(request(2), storage_key_id=b"\x01" * 32)
    none = request(3)
    none = replace(none, call=signed_call(none.statement))
    garbage = replace(none, receipt=b"garbage")
    outcomes = await archive.issue(foreign, unknown, none, garbage)
    assert reasons(outcomes) == [
        "RECEIPT_MISMATCH",
        "UNKNOWN_STORAGE_KEY",
        "RECEIPT_REQUIRED",
        "RECEIPT_FORMAT",
    ]
    assert archive.ca.issued() == []


async def test_what_policy_rejects_although_its_key_is_archived_is_refused_for_good(
    archive: Archived,
) -> None:
    """P1: no later policy certifies a key whose owner was told no."""
    rules = archive.ca.issuance.policy.rules
    rules["issue"] = [ValidityRule(name="short", type="Validity", stage="issue", max_days=1)]
    asked = await archive.archived(request())
    assert reasons(await archive.issue(asked)) == ["POLICY_REJECTED"]
    assert archive.refused(asked)
    rules.clear()
    assert reasons(await archive.issue(asked)) == ["POLICY_REJECTED"]
    assert archive.ca.issued() == []


async def test_what_is_rejected_only_when_it_commits_is_refused_for_good_too(archive: Archived) -> None:
    rules = archive.ca.issuance.policy.rules
    rules["issue"] = [UniqueSubjectName(name="unique", type="UniqueSubjectName", stage="issue")]
    first = await archive.archived(request(0, email="alice@example.org"))
    second = await archive.archived(request(1, email="other@example.org"))
    assert reasons(await archive.issue(first, second)) == ["", "POLICY_REJECTED"]
    assert (archive.refused(first), archive.refused(second)) == (False, True)
    rules.clear()
    assert reasons(await archive.issue(second)) == ["POLICY_REJECTED"]


async def test_a_refusal_for_good_has_its_leaf_in_the_same_commit(archive: Archived) -> None:
    """P6: a CM that is killed right after it refused leaves no refusal that its log does not tell."""
    rules = archive.ca.issuance.policy.rules
    rules["issue"] = [ValidityRule(name="short", type="Validity", stage="issue", max_days=1)]
    at_once = await archive.archived(request(0))
    key_archived = archive.log.entry(archive.log.size - 1)
    await archive.issue(at_once)
    rules["issue"] = [UniqueSubjectName(name="unique", type="UniqueSubjectName", stage="issue")]
    first = await archive.archived(request(1, email="alice@example.org"))
    late = await archive.archived(request(2, email="other@example.org"))
    await archive.issue(first, late)
    for again in (at_once, late):  # the first refusal stands, and is told once
        await archive.issue(again)
    entries = [open_event(entry.event) for entry in await archive.ca.log.entries(limit=100)]
    refused = [e for e in entries if e.event.type == EventType.EVENT_TYPE_ENROLLMENT_REFUSED]
    assert [e.event.enrollment_id for e in refused] == [
        parse_statement(asked.statement).enrollment_id for asked in (at_once, late)
    ]
    assert [e.details.reason for e in refused if e.details] == ["POLICY_REJECTED"] * 2
    assert refused[0].event.receipt_leaf_hash == leaf_hash(key_archived.leaf)


async def test_an_enrollment_that_another_call_got_refused_meanwhile_is_not_issued(archive: Archived) -> None:
    """P1: policy is reloaded while a call is at the signing workers; what it rejects in between stays rejected."""
    issuance, asked = archive.ca.issuance, await archive.archived(request())
    refused_meanwhile: list[Any] = []

    async def refuse(items: Sequence[bytes]) -> Sequence[bytes | KeyarkError]:
        issuance.policy.rules["issue"] = [
            ValidityRule(name="short", type="Validity", stage="issue", max_days=1)
        ]
        refused_meanwhile.extend(await archive.issue(asked))
        return await InlinePool.run(archive.ca.pool, items)

    archive.ca.pool.run = refuse  # type: ignore[method-assign]
    outcomes = await archive.issue(asked)
    assert (reasons(refused_meanwhile), reasons(outcomes)) == (["POLICY_REJECTED"], ["POLICY_REJECTED"])
    assert archive.ca.issued() == []


async def test_what_is_rejected_without_an_archived_key_is_not_refused_for_good(ca: Ca) -> None:
    rules = ca.issuance.policy.rules
    rules["issue"] = [ValidityRule(name="short", type="Validity", stage="issue", max_days=1)]
    asked = request()
    assert reasons(await ca.issue(asked)) == ["POLICY_REJECTED"]
    rules.clear()
    assert reasons(await ca.issue(asked)) == [""]


MALLORY = SpiffeId(TRUST_DOMAIN, "client/mallory")


def in_mallorys_name(encryption: bytes, *, signing: int = 190) -> PairRequest:
    """A request of another caller, with its own signing key, for whatever encryption key."""
    raw = statement_bytes(
        request_id=new_request_id(),
        caller=MALLORY,
        signing_spki=spki(KeyType.EC_P256, signing),
        encryption_spki=encryption,
    )
    return PairRequest(
        statement=raw,
        signature=sign_statement(raw, private_key(KeyType.EC_P256, signing)),
        receipt=b"",
        call=signed_call(raw, path=MALLORY.path, number=904),
    )


def permit(archive: Archived) -> None:
    profiles = archive.ca.issuance.profiles
    profiles["person"] = profiles["person"].model_copy(update={"archival": ProfileArchival.PERMITTED})


async def test_a_key_that_another_only_claimed_is_still_certified_for_its_owner(archive: Archived) -> None:
    """P5: an RM and its accomplice are quicker, with no receipt; afterwards the key is the owner's alone."""
    permit(archive)
    mine = request()
    encryption = parse_statement(mine.statement).encryption_spki
    assert reasons(await archive.issue(in_mallorys_name(encryption))) == [""]
    assert reasons(await archive.issue(await archive.archived(mine))) == [""]
    assert reasons(await archive.issue(in_mallorys_name(encryption, signing=191))) == ["PUBLIC_KEY_IN_USE"]


async def test_a_receipt_goes_before_a_claim_of_the_same_batch(archive: Archived) -> None:
    permit(archive)
    mine = request()
    claim = in_mallorys_name(parse_statement(mine.statement).encryption_spki)
    outcomes = await archive.issue(claim, await archive.archived(mine))
    assert reasons(outcomes) == ["PUBLIC_KEY_IN_USE", ""]


async def test_an_identity_key_that_another_only_claimed_still_signs_calls(archive: Archived) -> None:
    """P7, P8: nobody locks a client out by enrolling its identity key to encrypt with; afterwards that is refused."""
    permit(archive)
    identity = spki(KeyType.EC_P256, 903)
    assert reasons(await archive.issue(in_mallorys_name(identity))) == [""]
    assert reasons(await archive.issue(await archive.archived(request()))) == [""]
    assert reasons(await archive.issue(in_mallorys_name(identity, signing=191))) == ["KEY_ROLE_CONFLICT"]


async def test_a_signing_key_that_another_only_claimed_is_still_certified(archive: Archived) -> None:
    permit(archive)
    mine = request()
    signing = parse_statement(mine.statement).signing_spki
    assert reasons(await archive.issue(in_mallorys_name(signing))) == [""]
    assert reasons(await archive.issue(await archive.archived(mine))) == [""]
    assert reasons(await archive.issue(in_mallorys_name(signing, signing=191))) == ["KEY_ROLE_CONFLICT"]


async def test_a_caller_enrolls_no_key_in_both_roles_archived_or_not(archive: Archived) -> None:
    """P8: what gives way is another caller's claim, never one's own."""
    permit(archive)
    claimed, later = request(0), request(1)
    key = parse_statement(later.statement).signing_spki
    raw = statement_bytes(
        request_id=new_request_id(),
        signing_spki=parse_statement(claimed.statement).signing_spki,
        encryption_spki=key,
    )
    signature = sign_statement(raw, private_key(KeyType.EC_P256, 100))
    assert reasons(
        await archive.issue(replace(claimed, statement=raw, signature=signature, call=signed_call(raw)))
    ) == [""]
    assert reasons(await archive.issue(await archive.archived(later))) == ["KEY_ROLE_CONFLICT"]


async def test_what_a_receipt_proved_stays_proven(archive: Archived) -> None:
    """An RM that shows a request again without its receipt does not make the key anybody's."""
    permit(archive)
    mine = await archive.archived(request())
    assert reasons(await archive.issue(mine)) == [""]
    assert reasons(await archive.issue(replace(mine, receipt=b""))) == [""]
    theirs = in_mallorys_name(parse_statement(mine.statement).encryption_spki)
    shown = replace(await archive.archived(theirs), call=theirs.call)
    assert reasons(await archive.issue(shown)) == ["PUBLIC_KEY_IN_USE"]


async def test_receipts_are_verified_in_slices_and_the_loop_goes_on_between_them(archive: Archived) -> None:
    """P7: a hostile RM shows one receipt 256 times, each with another signature line that nobody knows."""
    mine = await archive.archived(request())
    line = "— example.org/drm {}\n"
    copies = [
        mine.receipt + line.format(b64encode(number.to_bytes(12, "big")).decode()).encode()
        for number in range(256)
    ]
    seconds, passes = iter(range(1, 100_000)), 0
    receipts = archive.ca.issuance.receipts
    receipts.turns = Turns(slice_seconds=4.0, clock=lambda: float(next(seconds)))
    links = [archive.log.link_sizes(end, end + 1) for end in range(archive.log.size)]
    evidence = ArchiveEvidence(
        brought_by=RM, links=links, transport_certificates=[certificate(TRANSPORT_KEY)]
    )
    batch = asyncio.create_task(receipts.verify_receipts(copies, evidence))
    while not batch.done():
        passes += 1
        await asyncio.sleep(0)
    assert passes >= 64
    assert reasons(await batch) == [""] * 256


async def test_calls_that_overlap_do_not_take_one_anothers_links(archive: Archived) -> None:
    """The signatures of both are verified in turns; each call's own links lead to its heads."""
    first = await archive.archived(request(0))
    short = [archive.log.link_sizes(0, archive.log.size)]
    second = await archive.archived(request(1))
    long = [*short, archive.log.link_sizes(short[0].second_size, archive.log.size)]
    receipts = archive.ca.issuance.receipts
    receipts.turns = Turns(slice_seconds=0.0)
    transport = [certificate(TRANSPORT_KEY)]
    calls = [
        receipts.verify_receipts(
            [asked.receipt], ArchiveEvidence(brought_by=RM, links=links, transport_certificates=transport)
        )
        for asked, links in ((first, short), (second, long))
    ]
    assert [reasons(found) for found in await asyncio.gather(*calls)] == [[""], [""]]


@pytest.mark.parametrize(
    ("field", "too_many"),
    [
        ("links", [CheckpointLink()] * (MAX_LINKS + 1)),
        ("transport_key_changes", [TransportKeyChange()] * (MAX_CHANGES + 1)),
        ("trust_changes", [CeremonyProof()] * (MAX_CHANGES + 1)),
    ],
)
async def test_more_evidence_than_a_call_needs_is_refused_unread(
    archive: Archived, field: str, too_many: Sequence[Any]
) -> None:
    evidence = ArchiveEvidence(brought_by=RM, **({"links": []} | {field: too_many}))
    with pytest.raises(InvalidInputError, match=f"at most .* {field}"):
        await archive.ca.issuance.receipts.verify_receipts([], evidence)
