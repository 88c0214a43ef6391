"""Finding archived keys: by owner, certificate serial, time and state; a page costs O(log n) and what it looks at.

The index rows are written in the transactions that write the rows they lead to, and hold ids and hashes only::

    keys_by_owner    hash of "email" and the address in lower case, of "name" and the common name, or of "folded name"
                     and the name as names are compared, which older releases did not write; enrollment id
    keys_by_serial   serial number of the encryption certificate, to the enrollment id
    keys_by_time     when it was archived, microseconds, 8 bytes; enrollment id
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from heapq import merge
from itertools import takewhile
from typing import Final

from drm_service.keys.failed_keys import failure_time_us
from drm_service.records import (
    BY_OWNER,
    BY_SERIAL,
    BY_TIME,
    FAILED_KEYS,
    KEYS,
    describe,
    find_by_key_id,
    read_record,
)
from keyark.contexts import context
from keyark.errors import InvalidInputError
from keyark.records.v1.keys_pb2 import KeyUse
from keyark.service.checks import key_uses
from keyark.service.id_prefix import IdPrefix
from keyark.service.paging import Page
from keyark.statements.enrollment import Statement
from keyark.store import ReadTransaction, WriteTransaction
from keyark.v1.audit_pb2 import AuditEvent
from keyark.v1.certificates_pb2 import KeyRole
from keyark.v1.recovery_pb2 import ArchivedKey, KeyFilter, KeyState
from keyark.x509.names import folded_name

OWNER_LABEL: Final = "keyark/v1/key-owner"
MAX_LOOKED_AT: Final = 1000
"""Rows that one page may look at; a page that finds fewer than it should leads on all the same."""

_HASH_SIZE: Final = 16
"""Of SHA-256, cut off: what two owners share by chance, the records tell apart."""
_ROWS: Final = 256
_TIME_SIZE: Final = 8


@dataclass(frozen=True)
class FoundKeys:
    """A page of keys; ``next_position`` is empty after the last."""

    keys: Sequence[ArchivedKey]
    next_position: bytes


def index_archived(txn: WriteTransaction, statement: Statement, *, time_us: int) -> None:
    """Index a key that is archived in this transaction."""
    for owner in (*owner_hashes(statement), by_folded_name(statement.common_name)):
        txn.put(BY_OWNER, owner + statement.enrollment_id, b"")
    txn.put(BY_TIME, time_us.to_bytes(_TIME_SIZE, "big") + statement.enrollment_id, b"")


def index_certified(txn: WriteTransaction, serial: bytes, enrollment_id: bytes) -> None:
    """Index a key by the certificate (serial number, big-endian) that is linked to it in this transaction."""
    txn.put(BY_SERIAL, serial, enrollment_id)


def owner_hashes(statement: Statement) -> tuple[bytes, bytes]:
    """Return what the owner of a statement is indexed under, 16 bytes each: address, then name."""
    return _by_email(statement.email), _by_name(statement.common_name)


def find_keys(txn: ReadTransaction, key_filter: KeyFilter, page: Page) -> FoundKeys:
    """Return a page of the keys that every field of the filter selects, oldest first.

    Raises InvalidInputError for a filter or position that is none.
    """
    _check(key_filter)
    fits, found = _fits(key_filter), list[ArchivedKey]()
    for looked_at, (position, enrollment_id) in enumerate(_candidates(txn, key_filter, page.after), 1):
        record = read_record(txn, enrollment_id)
        if record is not None and fits(
            view := describe(record, failed_time_us=failure_time_us(txn, enrollment_id))
        ):
            found.append(view)
        if len(found) == page.limit or looked_at == MAX_LOOKED_AT:
            return FoundKeys(found, position)
    return FoundKeys(found, b"")


def find_key(txn: ReadTransaction, key_id: bytes) -> ArchivedKey:
    """Return the archived key with this key id (32 bytes); raises NotFoundError."""
    record = find_by_key_id(txn, key_id)
    enrollment_id = AuditEvent.FromString(record.leaf).enrollment_id
    return describe(record, failed_time_us=failure_time_us(txn, enrollment_id))


def _check(key_filter: KeyFilter) -> None:
    if key_filter.archived_from_us < 0 or key_filter.archived_until_us < 0:
        raise InvalidInputError("A time lies after 1970.", field="filter.archived_from_us")
    if key_filter.state and key_filter.state not in KeyState.values():
        raise InvalidInputError("The state is not known.", field="filter.state")


def _candidates(
    txn: ReadTransaction, key_filter: KeyFilter, after: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    """Yield positions and enrollment ids of what the most selective index leads to, in order, after a position."""
    if key_filter.certificate_serial:
        enrollment_id = txn.get(BY_SERIAL, key_filter.certificate_serial)
        return iter([] if enrollment_id is None or after else [(b"\x01", enrollment_id)])
    if key_filter.key_id_prefix:
        return _beginning(txn, IdPrefix(key_filter.key_id_prefix), after)
    if key_filter.failed:
        return ((key, key) for key in _keys(txn, FAILED_KEYS, after))
    if key_filter.owner:
        return _owned(txn, key_filter.owner, after)
    if key_filter.archived_from_us or key_filter.archived_until_us:
        return _archived(txn, key_filter, after)
    return ((key, key) for key in _keys(txn, KEYS, after))


def _beginning(txn: ReadTransaction, prefix: IdPrefix, after: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    while rows := prefix.rows(txn, key_uses.TABLE, after=after, limit=_ROWS):
        for key_id, value in rows:
            use = KeyUse.FromString(value)
            if use.role == KeyRole.KEY_ROLE_ENCRYPTION:
                yield key_id, use.enrollment_id
        after = rows[-1][0]


def _owned(txn: ReadTransaction, owner: str, after: bytes | None) -> Iterator[tuple[bytes, bytes]]:
    """An address and a name may be the same text, so both are looked up."""
    last = after
    prefixes = (_by_email(owner), _by_name(owner), by_folded_name(owner))
    for enrollment_id in merge(*(_below(txn, prefix, after) for prefix in prefixes)):
        if enrollment_id != last:
            yield enrollment_id, enrollment_id
        last = enrollment_id


def _below(txn: ReadTransaction, prefix: bytes, after: bytes | None) -> Iterator[bytes]:
    keys = _keys(txn, BY_OWNER, prefix + (after or b""))
    return (key[_HASH_SIZE:] for key in takewhile(lambda key: key.startswith(prefix), keys))


def _archived(
    txn: ReadTransaction, key_filter: KeyFilter, after: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    keys = _keys(txn, BY_TIME, after or key_filter.archived_from_us.to_bytes(_TIME_SIZE, "big"))
    if until := key_filter.archived_until_us:
        end = until.to_bytes(_TIME_SIZE, "big")
        keys = takewhile(lambda key: key < end, keys)
    return ((key, key[_TIME_SIZE:]) for key in keys)


def _keys(txn: ReadTransaction, table: str, after: bytes | None) -> Iterator[bytes]:
    """Yield the keys of a table after one, as far as somebody asks."""
    while rows := txn.scan(table, after=after, limit=_ROWS):
        for key, _ in rows:
            yield key
        after = rows[-1][0]


def _fits(key_filter: KeyFilter) -> Callable[[ArchivedKey], bool]:
    owner, until = key_filter.owner, key_filter.archived_until_us
    name = folded_name(owner)

    def fits(key: ArchivedKey) -> bool:
        return (
            (not owner or key.email.lower() == owner.lower() or folded_name(key.common_name) == name)
            and key_filter.state in (0, key.state)
            and bool(key.failed_time_us) >= key_filter.failed
            and key.key_id.hex().startswith(key_filter.key_id_prefix)
            and key_filter.certificate_serial in (b"", key.certificate_serial)
            and key_filter.archived_from_us <= key.archived_time_us
            and (not until or key.archived_time_us < until)
        )

    return fits


def by_folded_name(name: str) -> bytes:
    """Return what a name is indexed under as names are compared, 16 bytes; keys of older releases have no such row."""
    return sha256(context(OWNER_LABEL, b"folded name", folded_name(name).encode())).digest()[:_HASH_SIZE]


def _by_email(email: str) -> bytes:
    return sha256(context(OWNER_LABEL, b"email", email.lower().encode())).digest()[:_HASH_SIZE]


def _by_name(common_name: str) -> bytes:
    return sha256(context(OWNER_LABEL, b"name", common_name.encode())).digest()[:_HASH_SIZE]
