"""Transactional storage of ordered byte keys in named tables; LMDB stands behind it and does not show."""

from keyark.store.interface import (
    Finisher,
    KeyExistsError,
    ReadTransaction,
    SchemaVersionError,
    Store,
    StoreClosedError,
    StoreCorruptError,
    StoreError,
    StoreFullError,
    StoreLockedError,
    StoreStats,
    WriteTransaction,
)
from keyark.store.memory import MemoryStore
from keyark.store.opening import open_store

__all__ = [
    "Finisher",
    "KeyExistsError",
    "MemoryStore",
    "ReadTransaction",
    "SchemaVersionError",
    "Store",
    "StoreClosedError",
    "StoreCorruptError",
    "StoreError",
    "StoreFullError",
    "StoreLockedError",
    "StoreStats",
    "WriteTransaction",
    "open_store",
]
