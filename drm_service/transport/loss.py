"""`keyark-drm transport-key replace-lost`: a way on, while the DRM is stopped, for who lost a transport key.

A DRM with a transport key in force whose private half is gone does not start, so nothing could be rotated. Lost keys
become retired ones and, for the newest, another generation comes into force, in one transaction. No handover is signed:
the lost key cannot. What was wrapped to a lost key and not archived has to be wrapped anew; archived keys do not depend
on it.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from drm_service.config import DrmConfig
from drm_service.records import SCHEMA_VERSION, TABLES
from drm_service.transport.files import TransportFiles
from drm_service.transport.restored import log_first_start_after_restore
from drm_service.transport.rows import (
    RETIRED,
    ROTATED,
    TransportKeyStateError,
    check_begins_later,
    put_new_key,
    put_retired_key,
    read_transport_records,
    transport_key_leaf,
)
from keyark.clock import SystemClock
from keyark.keys.key_types import KeyType
from keyark.keys.spki import key_id
from keyark.records.v1.drm_pb2 import TransportKeyRecord
from keyark.service.program.assembly import make_store_folder
from keyark.store import Store, WriteTransaction, open_store
from keyark.transparency.checkpoint import NoteSigner
from keyark.transparency.log import Log
from keyark.transparency.succession import SuccessionSigner

WAITING: Final = "WAITING"
OFFERED: Final = "OFFERED"


def replace_lost_key(config: DrmConfig, key_type: KeyType) -> dict[str, Any]:
    """Retire what is lost; for the newest, make a key and request, and once its certificate is there put it in force.

    Raises TransportKeyStateError where nothing is lost, StoreLockedError while the DRM runs, and the
    errors of a certificate that is not good.
    """
    make_store_folder(config.store.path)
    return asyncio.run(_replace(config, key_type))


async def _replace(config: DrmConfig, key_type: KeyType) -> dict[str, Any]:
    files, clock, origin = TransportFiles.of(config), SystemClock(), f"{config.service.trust_domain}/drm"
    records = await _read(config)
    lost, newest = _lost(records, files), records[-1].generation
    if not lost:
        raise TransportKeyStateError(
            "No private key of a transport key in force is lost; start the DRM, and rotate with `keyark transport-key`."
        )
    generation = newest + (records[-1] in lost)
    told = {
        "generation": generation,
        "request": str(files.request_path(generation)),
        "certificate": str(files.certificate_path(generation)),
    }
    if generation > newest:
        files.make_key(generation, key_type)
        if not files.certificate_path(generation).exists():
            return told | {"state": WAITING}
    spki = files.trust().verify(files.certificate(generation), clock.now_us() // 1_000_000)
    key = files.load_key(generation, spki)
    if generation > newest:  # readers believe it for its later begin alone: no key can sign the handover
        check_begins_later(files.certificate(generation), files.certificate(newest), generation=generation)
    new = TransportKeyRecord(generation=generation, key_id=key_id(spki))
    if any(new.key_id == known.key_id for known in records[: generation - 1]):
        raise TransportKeyStateError(f"Transport key {generation} has been in force before; make a new one.")
    log = Log(origin=origin, signer=NoteSigner.from_private_key(origin, key), clock=clock)
    store = _open(config, log)
    try:
        await log.open(store)
        new_ones = [new] if generation > newest else []
        await _commit(store, log, new=new_ones, lost=lost, now_us=clock.now_us())
    finally:
        await log.close()
        await store.close()
    return told | {"state": OFFERED}


def _open(config: DrmConfig, log: Log) -> Store:
    return open_store(config.store.path, tables=TABLES, schema_version=SCHEMA_VERSION, finisher=log.finisher)


async def _read(config: DrmConfig) -> list[TransportKeyRecord]:
    clock = SystemClock()
    log = Log(origin=f"{config.service.trust_domain}/drm", signer=SuccessionSigner(), clock=clock)
    store = _open(config, log)
    try:
        await log.open(store)
        await log_first_start_after_restore(store, log, TransportFiles.of(config), clock)
        return store.read(read_transport_records)
    finally:
        await log.close()
        await store.close()


def _lost(records: list[TransportKeyRecord], files: TransportFiles) -> list[TransportKeyRecord]:
    return [r for r in records if not r.retired and not files.key_path(r.generation).exists()]


async def _commit(
    store: Store,
    log: Log,
    *,
    new: list[TransportKeyRecord],
    lost: list[TransportKeyRecord],
    now_us: int,
) -> None:
    """Write what comes into force and what is retired, with their leaves."""
    rotations = [(record, transport_key_leaf(ROTATED, record.key_id, now_us)) for record in new]
    retirements = [(record, transport_key_leaf(RETIRED, record.key_id, now_us)) for record in lost]

    def write(txn: WriteTransaction) -> None:
        for record, leaf in rotations:
            put_new_key(txn, log, leaf, record=record)
        for record, leaf in retirements:
            put_retired_key(txn, log, leaf, record=record)

    await store.update(write)
