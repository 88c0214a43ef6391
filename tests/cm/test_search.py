"""Certificates are found by everything that the filter knows: what a page shows is what a look at all would show."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cm_service.certificates.index import complete_index
from cm_service.certificates.search import search
from cm_service.records import INDEX, PAIRS, TABLES, PairRecord, describe_pair
from keyark.errors import InvalidInputError
from keyark.service.paging import Page, page_of
from keyark.store import MemoryStore
from keyark.v1.certificates_pb2 import Certificate, CertificateFilter, CertificateState
from keyark.v1.common_pb2 import PageRequest
from tests.support.keys.certificates import add_pairs, enrollment_id, pair_record
from tests.support.keys.pki import DAY, NOW

NAMES = ("Alice Example", "ALICE EXAMPLE", "Straße", "STRASSE", "Bob")
EMAILS = ("a@example.org", "A@Example.org", "b@example.org")
PROFILES = ("user", "us", "server")

pairs = st.lists(
    st.builds(
        dict,
        common_name=st.sampled_from(NAMES),
        email=st.sampled_from(EMAILS),
        profile=st.sampled_from(PROFILES),
        not_after=st.integers(NOW - 5, NOW + 5),
    ),
    max_size=12,
)
filters = st.builds(
    CertificateFilter,
    common_name=st.sampled_from((None, *NAMES, "Nobody")),
    email=st.sampled_from((None, *EMAILS, "nobody@example.org")),
    profile=st.sampled_from((None, *PROFILES, "none")),
    state=st.sampled_from(CertificateState.values()),
    expires_from=st.sampled_from((0, NOW - 2, NOW, NOW + 3)),
    expires_until=st.sampled_from((0, NOW - 2, NOW, NOW + 3)),
)


async def store_of(records: list[PairRecord]) -> MemoryStore:
    store = MemoryStore(tables=TABLES)
    await add_pairs(store, records)
    return store


def all_pages(store: MemoryStore, wanted: CertificateFilter, size: int) -> list[Certificate]:
    """Every certificate that matches, asked for page by page."""
    found: list[Certificate] = []
    token = ""
    for _ in range(1000):
        page = page_of(PageRequest(page_size=size, page_token=token), query=wanted)
        result = store.read(lambda txn, page=page: search(txn, wanted, page, NOW))
        assert len(result.certificates) <= 2 * size
        found += result.certificates
        if not (token := result.next_token):
            return found
    raise AssertionError("the pages do not end")


def plainly(records: list[PairRecord], wanted: CertificateFilter) -> set[bytes]:
    """The serial numbers that a look at every certificate finds."""
    every = [c for i, r in enumerate(records) for c in describe_pair(enrollment_id(i), r, NOW)]
    return {
        c.serial
        for c in every
        if (not wanted.common_name or c.common_name.casefold() == wanted.common_name.casefold())
        and (not wanted.email or c.email.lower() == wanted.email.lower())
        and (not wanted.profile or c.profile == wanted.profile)
        and (not wanted.state or c.state == wanted.state)
        and (not wanted.expires_from or c.not_after >= wanted.expires_from)
        and (not wanted.expires_until or c.not_after <= wanted.expires_until)
    }


@given(pairs, filters, st.integers(1, 5))
async def test_pages_together_hold_what_matches_and_nothing_twice(values, wanted, size) -> None:
    records = [pair_record(number, **replaced) for number, replaced in enumerate(values)]
    store = await store_of(records)
    serials = [c.serial for c in all_pages(store, wanted, size)]
    assert len(serials) == len(set(serials))
    assert set(serials) == plainly(records, wanted)


async def test_a_serial_number_and_a_key_lead_to_their_one_certificate() -> None:
    store = await store_of([pair_record(number) for number in range(3)])
    record = pair_record(1)
    by_serial = all_pages(store, CertificateFilter(serial=record.encryption_serial), 5)
    by_key = all_pages(store, CertificateFilter(spki_sha256=record.encryption_spki_sha256), 5)
    assert [c.serial for c in by_serial] == [record.encryption_serial]
    assert by_key == by_serial
    assert by_key[0].spki_sha256 == record.encryption_spki_sha256
    wrong = CertificateFilter(serial=record.encryption_serial, email="person2@example.org")
    assert all_pages(store, wrong, 5) == []
    assert all_pages(store, CertificateFilter(serial=b"\x01"), 5) == []
    assert all_pages(store, CertificateFilter(spki_sha256=bytes(32)), 5) == []


async def test_the_first_digits_of_serial_numbers_lead_to_all_that_begin_so() -> None:
    alike = pair_record(20, signing_serial=b"\xaa\xbb\x01", encryption_serial=b"\xaa\xbb\x02")
    records = [*(pair_record(number) for number in range(20)), alike]
    store = await store_of(records)
    every = {c.serial for c in all_pages(store, CertificateFilter(), 5)}
    for digits in (
        "0000",
        "aabb",
        "abcd",
        records[3].signing_serial.hex()[:5],
        records[3].signing_serial.hex(),
    ):
        found = [c.serial for c in all_pages(store, CertificateFilter(serial_prefix=digits), 3)]
        assert sorted(found) == sorted(serial for serial in every if serial.hex().startswith(digits))
    elsewhere = CertificateFilter(
        serial_prefix=records[3].signing_serial.hex()[:5], email="nobody@example.org"
    )
    assert all_pages(store, elsewhere, 3) == []
    with pytest.raises(InvalidInputError):
        all_pages(store, CertificateFilter(serial_prefix="abc"), 3)


async def test_what_is_only_reserved_is_not_found() -> None:
    store = await store_of([pair_record(0)])
    reserved = pair_record(1, signing_certificate=b"", encryption_certificate=b"")
    await store.update(lambda txn: txn.put(PAIRS, enrollment_id(1), reserved.SerializeToString()))
    assert len(all_pages(store, CertificateFilter(), 1)) == 2


async def test_a_narrow_filter_on_many_gives_short_pages_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Among a hundred of one name, one has the profile; no page looks at more than ten."""
    monkeypatch.setattr("cm_service.certificates.search.MAX_EXAMINED", 10)
    records = [pair_record(n, common_name="Same", profile="rare" if n == 57 else "user") for n in range(100)]
    store = await store_of(records)
    wanted = CertificateFilter(common_name="same", profile="rare")
    assert store.read(lambda txn: search(txn, wanted, Page(5, None), NOW)).certificates == []
    assert {c.serial for c in all_pages(store, wanted, 5)} == {
        records[57].signing_serial,
        records[57].encryption_serial,
    }


async def test_a_page_token_holds_for_its_own_filter_only() -> None:
    store = await store_of([pair_record(number) for number in range(5)])
    wanted = CertificateFilter(profile="user")
    first = page_of(PageRequest(page_size=2), query=wanted)
    token = store.read(lambda txn: search(txn, wanted, first, NOW)).next_token
    page_of(PageRequest(page_size=2, page_token=token), query=wanted)
    for other in (CertificateFilter(), CertificateFilter(profile="us"), CertificateFilter(email="a@b.org")):
        with pytest.raises(InvalidInputError) as caught:
            page_of(PageRequest(page_size=2, page_token=token), query=other)
        assert caught.value.field == "page.page_token"


@pytest.mark.parametrize("after", [b"x", b"12345678", b"12345678\x00short"])
async def test_a_made_up_token_is_refused(after: bytes) -> None:
    store = await store_of([])
    with pytest.raises(InvalidInputError):
        store.read(lambda txn: search(txn, CertificateFilter(), Page(2, after), NOW))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"serial": b"\x00\x01"}, "serial"),
        ({"serial": bytes([1]) * 21}, "serial"),
        ({"spki_sha256": b"short"}, "filter.spki_sha256"),
        ({"state": 99}, "filter.state"),
        ({"expires_from": -1}, "filter.expires_from"),
        ({"expires_until": (1 << 63) - 1}, "filter.expires_until"),
    ],
)
async def test_a_malformed_filter_is_refused_with_its_field(wrong, field: str) -> None:
    store = await store_of([])
    with pytest.raises(InvalidInputError) as caught:
        store.read(lambda txn: search(txn, CertificateFilter(**wrong), Page(2, None), NOW))
    assert caught.value.field == field


@pytest.mark.parametrize("name", ["common_name", "email", "serial", "spki_sha256", "profile"])
def test_an_empty_text_is_no_filter(name: str) -> None:
    empty = CertificateFilter(**{name: b"" if name in {"serial", "spki_sha256"} else ""})
    with pytest.raises(InvalidInputError, match="match everything") as caught:
        page_of(PageRequest(), query=empty)
    assert caught.value.field == f"filter.{name}"


async def test_what_an_earlier_release_issued_is_indexed_at_the_start() -> None:
    store = await store_of([pair_record(number, not_after=NOW + DAY) for number in range(4)])

    def forget(txn) -> None:
        for key, _ in txn.scan(INDEX, limit=100):
            txn.delete(INDEX, key)

    await store.update(forget)
    wanted = CertificateFilter(email="PERSON3@example.org")
    assert all_pages(store, wanted, 5) == []
    await complete_index(store)
    assert len(all_pages(store, wanted, 5)) == 2
    assert len(all_pages(store, CertificateFilter(expires_until=NOW + DAY), 3)) == 8
    await store.update(forget_but_mark)
    await complete_index(store)  # done once, it is not done again
    assert all_pages(store, wanted, 5) == []


def forget_but_mark(txn) -> None:
    for key, _ in txn.scan(INDEX, limit=100):
        if key != b"\x00complete":
            txn.delete(INDEX, key)
