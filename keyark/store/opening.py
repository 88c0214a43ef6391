"""Opens the store that is embedded by default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keyark.store.interface import Finisher, Store

DEFAULT_MAP_SIZE: Final = 1 << 40


def open_store(
    path: Path,
    *,
    tables: Sequence[str],
    finisher: Finisher | None = None,
    schema_version: int = 1,
    map_size: int = DEFAULT_MAP_SIZE,
) -> Store:
    """Open or create the LMDB store in a folder; one process at a time.

    ``map_size`` (bytes) is reserved once and sparse: resizing under a reader crashes. Raises StoreLockedError,
    SchemaVersionError, StoreCorruptError and StoreError.
    """
    from keyark.store.lmdb_store import LmdbStore  # noqa: PLC0415 — the SDK is installed without lmdb

    return LmdbStore(path, tables=tables, finisher=finisher, schema_version=schema_version, map_size=map_size)
