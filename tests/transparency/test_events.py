"""P6, P10: a leaf holds ids and hashes only, and binds exactly one set of details."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyark.transparency.events import EventError, new_event, open_event, parse_leaf, parse_logged_event
from keyark.v1.audit_pb2 import AuditDetails, AuditEvent, EventType, LoggedEvent
from tests.support.stories.transparency import archived_event, entry

DETAILS = AuditDetails(caller="spiffe://example.org/client/alice", common_name="Alice", email="a@example.org")


def unknown_field(message: bytes) -> bytes:
    return message + b"\xf8\x3f\x01"  # field 1023, a varint


def test_an_entry_opens_to_what_it_was_made_of():
    logged = new_event(archived_event(), DETAILS)
    opened = open_event(parse_logged_event(logged.SerializeToString()))
    assert opened.details == DETAILS
    assert opened.event.details_sha256 == sha256(logged.salt + logged.details).digest()
    opened.event.details_sha256 = b""
    assert opened.event == archived_event()


def test_the_leaf_holds_nothing_of_the_person():
    leaf = new_event(archived_event(), DETAILS).leaf
    for told in (DETAILS.caller, DETAILS.common_name, DETAILS.email):
        assert told.encode() not in leaf


def test_salts_differ_so_that_details_cannot_be_guessed_from_the_leaf():
    one, other = new_event(archived_event(), DETAILS), new_event(archived_event(), DETAILS)
    assert len(one.salt) == 16
    assert one.salt != other.salt
    assert one.leaf != other.leaf


def test_an_entry_whose_details_were_erased_still_opens():
    logged = LoggedEvent(leaf=entry().leaf)
    assert open_event(logged).details is None


@pytest.mark.parametrize(
    "change",
    [
        {"salt": b"t" * 16},
        {"salt": b"s" * 15},
        {"salt": b""},
        {"details": b""},
        {"details": DETAILS.SerializeToString()},
        {"details": b"s" + entry().details, "salt": b"s" * 15},
        {"leaf": entry(1).leaf[:-32] + entry(2).details[:32]},
        {"leaf": b""},
        {"leaf": b"\xff"},
        {"leaf": unknown_field(entry().leaf)},
    ],
)
def test_an_altered_entry_is_refused(change):
    logged = entry()
    for name, value in change.items():
        setattr(logged, name, value)
    with pytest.raises(EventError):
        open_event(logged)


def test_a_salt_that_reads_as_details_does_not_become_details():
    salt = AuditDetails(caller="mallory@home!!").SerializeToString()
    logged = new_event(archived_event(), AuditDetails(count=1), salt=salt)
    shifted = LoggedEvent(leaf=logged.leaf, details=logged.salt + logged.details)
    assert AuditDetails.FromString(shifted.details).caller
    with pytest.raises(EventError, match="binds"):
        open_event(shifted)


def test_details_with_unknown_fields_are_refused_even_if_they_are_bound():
    event, salt, details = archived_event(), b"s" * 16, unknown_field(DETAILS.SerializeToString())
    event.details_sha256 = sha256(salt + details).digest()
    with pytest.raises(EventError, match="not known here"):
        open_event(LoggedEvent(leaf=event.SerializeToString(), salt=salt, details=details))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 0},
        {"version": 2},
        {"type": EventType.EVENT_TYPE_UNSPECIFIED},
        {"enrollment_id": b"x" * 31},
        {"storage_key_id": b"x"},
        {"receipt_leaf_hash": b"x" * 33},
    ],
)
def test_an_event_that_is_not_of_this_version_or_malformed_is_neither_made_nor_read(change):
    event = archived_event()
    for name, value in change.items():
        setattr(event, name, value)
    with pytest.raises(EventError):
        new_event(event, DETAILS)
    event.details_sha256 = bytes(32)
    with pytest.raises(EventError):
        parse_leaf(event.SerializeToString())


def test_a_leaf_that_binds_no_details_is_refused():
    with pytest.raises(EventError, match="bind"):
        parse_leaf(AuditEvent(version=1, type=EventType.EVENT_TYPE_LOG_CREATED).SerializeToString())


def test_a_salt_of_another_size_is_refused():
    with pytest.raises(EventError, match="salt"):
        new_event(archived_event(), DETAILS, salt=b"s")


def test_a_wrapper_in_another_encoding_is_refused():
    logged = entry()
    turned = (
        LoggedEvent(salt=logged.salt).SerializeToString() + LoggedEvent(leaf=logged.leaf).SerializeToString()
    )
    for data in (turned, logged.SerializeToString() * 2, unknown_field(logged.SerializeToString())):
        with pytest.raises(EventError):
            parse_logged_event(data)


@given(st.binary(max_size=100))
def test_any_bytes_give_a_typed_error_or_an_entry(data):
    for read in (parse_leaf, lambda value: open_event(parse_logged_event(value))):
        try:
            read(data)
        except EventError:
            continue
        raise AssertionError("random bytes are no entry")
