"""Archived keys are found by every field as a plain search finds them, in pages that hold while keys are added."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from drm_service.keys.search import MAX_LOOKED_AT, find_keys, index_archived, index_certified
from drm_service.records import TABLES, describe, put_row, put_sealed_key
from keyark.errors import InvalidInputError
from keyark.identity.spiffe import SpiffeId
from keyark.keys.key_types import KeyType, generate
from keyark.keys.spki import encode_spki
from keyark.records.v1.drm_pb2 import ArchivedKeyRecord
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.service.checks import key_uses
from keyark.service.paging import page_of
from keyark.statements.enrollment import build_statement, parse_statement
from keyark.store import MemoryStore
from keyark.transparency._rows import DETAILS, LEAVES, completed_count, pack_leaf, row_key
from keyark.transparency.events import new_event
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType
from keyark.v1.certificates_pb2 import KeyRole
from keyark.v1.common_pb2 import PageRequest
from keyark.v1.recovery_pb2 import ArchivedKey, KeyFilter, KeyState

SPKI = encode_spki(generate(KeyType.EC_P256).public_key())
OTHER_SPKI = encode_spki(generate(KeyType.EC_P256).public_key())
EMAILS = ("alice@example.org", "Alice@Example.org", "bob@example.org")
NAMES = ("Alice Example", "Bob Example", "alice@example.org")


@dataclass
class Archive:
    """A store with keys, and the same keys in a list."""

    store: MemoryStore
    keys: list[ArchivedKey]

    async def add(self, number: int, email: str, name: str, time_us: int, kind: str) -> None:
        request_id = number.to_bytes(6, "big") + b"\x70\x00\x80" + bytes(7)
        raw = build_statement(
            caller=SpiffeId("example.org", "client/enroller"),
            request_id=request_id,
            profile="user",
            common_name=name,
            email=email,
            signing_spki=OTHER_SPKI,
            encryption_spki=SPKI,
        ).raw
        statement = parse_statement(raw)
        event = new_event(
            AuditEvent(
                version=1,
                type=EventType.EVENT_TYPE_KEY_ARCHIVED,
                time_us=time_us,
                enrollment_id=statement.enrollment_id,
                statement_sha256=statement.sha256,
                encryption_spki_sha256=statement.encryption_spki_sha256,
            ),
            AuditDetails(),
        )
        record = ArchivedKeyRecord(statement=raw, leaf=event.leaf, log_index=number)
        serial = b"\x01" + number.to_bytes(4, "big")
        if kind != "uncertified":
            record.certificate_serial = serial
        if kind == "deactivated":
            record.deactivated_reason = "hold"

        def write(txn):  # type: ignore[no-untyped-def]
            put_row(txn, statement.enrollment_id, record)
            put_sealed_key(txn, number, record.sealed_key)
            txn.put(LEAVES, row_key(number), pack_leaf([bytes(32)] * completed_count(number), event.leaf))
            txn.put(DETAILS, row_key(number), event.salt + event.details)
            index_archived(txn, statement, time_us=time_us)
            if record.certificate_serial:
                index_certified(txn, serial, statement.enrollment_id)

        await self.store.update(write)
        self.keys.append(describe(record))

    def pages(self, key_filter: KeyFilter, size: int) -> list[ArchivedKey]:
        found, token = [], ""
        for _ in range(1000):
            page = page_of(PageRequest(page_size=size, page_token=token), query=key_filter)
            some = self.store.read(lambda txn, page=page: find_keys(txn, key_filter, page))
            assert len(some.keys) <= size
            found += some.keys
            token = page.token(some.next_position)
            if not token:
                return found
        raise AssertionError("the pages do not end")

    def plainly(self, f: KeyFilter) -> list[ArchivedKey]:
        """What a plain search finds."""
        return [
            key
            for key in self.keys
            if (
                not f.owner
                or f.owner.lower() == key.email.lower()
                or f.owner.casefold() == key.common_name.casefold()
            )
            and (not f.certificate_serial or f.certificate_serial == key.certificate_serial)
            and (not f.state or f.state == key.state)
            and key.archived_time_us >= f.archived_from_us
            and (not f.archived_until_us or key.archived_time_us < f.archived_until_us)
        ]


def new_archive() -> Archive:
    return Archive(MemoryStore(tables=TABLES, finisher=lambda txn, items: None), [])


OWNERS = st.sampled_from([None, *EMAILS, *NAMES, "ALICE@EXAMPLE.ORG", NAMES[0].upper(), "nobody"])
SERIALS = st.sampled_from([None, b"\x01\x00\x00\x00\x02", b"\xff"])
STATES, TIMES = st.sampled_from([0, *KeyState.values()]), st.integers(0, 12)
FILTERS = st.one_of(
    st.builds(KeyFilter, owner=OWNERS),
    st.builds(KeyFilter, owner=OWNERS, state=STATES),
    st.builds(KeyFilter, certificate_serial=SERIALS),
    st.builds(KeyFilter, archived_from_us=TIMES, archived_until_us=TIMES),
    st.builds(
        KeyFilter,
        owner=OWNERS,
        certificate_serial=SERIALS,
        state=STATES,
        archived_from_us=TIMES,
        archived_until_us=TIMES,
    ),
)
KEY = st.tuples(
    st.sampled_from(EMAILS),
    st.sampled_from(NAMES),
    st.integers(1, 10),
    st.sampled_from(["uncertified", "certified", "deactivated"]),
)


@given(keys=st.lists(KEY, max_size=12), key_filter=FILTERS, size=st.integers(1, 4))
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_it_finds_what_a_plain_search_finds(keys, key_filter: KeyFilter, size: int) -> None:
    archive = new_archive()
    for number, (email, name, time_us, kind) in enumerate(keys):
        await archive.add(number, email, name, time_us, kind)
    found = archive.pages(key_filter, size)
    wanted = archive.plainly(key_filter)
    assert sorted(k.log_index for k in found) == [k.log_index for k in wanted]


async def test_pages_hold_while_keys_are_added() -> None:
    archive, everything = new_archive(), KeyFilter()
    for number in range(0, 20, 2):
        await archive.add(number, EMAILS[0], NAMES[0], number + 1, "certified")
    page = page_of(PageRequest(page_size=4), query=everything)
    first = archive.store.read(lambda txn: find_keys(txn, everything, page))
    for number in range(1, 20, 2):
        await archive.add(number, EMAILS[0], NAMES[0], number + 1, "certified")
    token = page.token(first.next_position)
    after = page_of(PageRequest(page_size=100, page_token=token), query=everything)
    rest = archive.store.read(lambda txn: find_keys(txn, everything, after))
    indices = [key.log_index for key in (*first.keys, *rest.keys)]
    assert indices == sorted(set(indices))
    assert set(range(0, 20, 2)) <= set(indices)


async def test_a_token_of_another_filter_is_refused() -> None:
    archive, alice = new_archive(), KeyFilter(owner=EMAILS[0])
    for number in range(3):
        await archive.add(number, EMAILS[0], NAMES[0], 1, "certified")
    page = page_of(PageRequest(page_size=1), query=alice)
    token = page.token(archive.store.read(lambda txn: find_keys(txn, alice, page)).next_position)
    for query in (KeyFilter(), KeyFilter(owner=EMAILS[2])):
        with pytest.raises(InvalidInputError, match="page token"):
            page_of(PageRequest(page_token=token), query=query)
    for broken in ("!", token[:8], "AAAA"):
        with pytest.raises(InvalidInputError):
            page_of(PageRequest(page_token=broken), query=alice)


async def test_the_first_digits_of_a_key_id_lead_to_the_key_and_to_no_signing_key() -> None:
    archive = new_archive()
    await archive.add(0, EMAILS[0], NAMES[0], 1, "certified")
    (key,) = archive.keys
    roles = {key.key_id: KeyRole.KEY_ROLE_ENCRYPTION, key.key_id[:16] + bytes(16): KeyRole.KEY_ROLE_SIGNING}
    uses = {
        key_id: KeyUse(enrollment_id=key.enrollment_id, role=role).SerializeToString()
        for key_id, role in roles.items()
    }
    await archive.store.update(
        lambda txn: [txn.put(key_uses.TABLE, key_id, use) for key_id, use in uses.items()]
    )
    digits = key.key_id.hex()
    for some in (digits[:4], digits[:7], digits):
        assert archive.pages(KeyFilter(key_id_prefix=some), 1) == [key]
    changed = f"{int(digits[3], 16) ^ 1:x}"
    assert archive.pages(KeyFilter(key_id_prefix=digits[:3] + changed), 1) == []
    assert archive.pages(KeyFilter(key_id_prefix=digits[:6], owner="nobody"), 1) == []


async def test_a_page_looks_at_a_bounded_number_of_keys() -> None:
    archive = new_archive()
    for number in range(MAX_LOOKED_AT + 5):
        await archive.add(number, EMAILS[0], NAMES[0], 1, "certified")
    rare = KeyFilter(state=KeyState.KEY_STATE_DEACTIVATED)
    page = page_of(PageRequest(page_size=10), query=rare)
    some = archive.store.read(lambda txn: find_keys(txn, rare, page))
    assert (list(some.keys), bool(some.next_position)) == ([], True)
    assert archive.pages(rare, 10) == []


def test_a_filter_that_is_none_is_refused() -> None:
    archive = new_archive()
    for empty in (KeyFilter(owner=""), KeyFilter(owner=" "), KeyFilter(certificate_serial=b"")):
        with pytest.raises(InvalidInputError, match="match everything"):
            page_of(PageRequest(), query=empty)
    for wrong in (KeyFilter(archived_from_us=-1), KeyFilter(archived_until_us=-1), KeyFilter(state=99)):  # type: ignore[arg-type]
        with pytest.raises(InvalidInputError):
            archive.store.read(lambda txn, wrong=wrong: find_keys(txn, wrong, page_of(PageRequest())))
