"""Transactional storage of ordered byte keys in named tables; LMDB is hidden behind it."""

from keyark.errors.services import StoreClosedError, StoreCorruptError, StoreError, StoreFullError
from keyark.store.interface import (
    Backups,
    Finisher,
    KeyExistsError,
    ReadTransaction,
    Row,
    SchemaVersionError,
    Store,
    StoreLockedError,
    StoreStats,
    VanishingTable,
    WriteTransaction,
    row_keys_beside,
)
from keyark.store.memory import MemoryStore
from keyark.store.opening import open_store

__all__ = [
    "Backups",
    "Finisher",
    "KeyExistsError",
    "MemoryStore",
    "ReadTransaction",
    "Row",
    "SchemaVersionError",
    "Store",
    "StoreClosedError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreStats",
    "VanishingTable",
    "WriteTransaction",
    "open_store",
    "row_keys_beside",
]
