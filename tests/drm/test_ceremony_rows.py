"""P4, P10: what must vanish of a ceremony lies in a row of its own, also in a store of an earlier release."""

from __future__ import annotations

import os
from pathlib import Path

from drm_service.ceremony_rows import CEREMONIES, CEREMONY_SECRETS, put_row, read_row
from drm_service.records import SCHEMA_VERSION, TABLES, TOKENS
from keyark.records.v1.drm_pb2 import CeremonyRecord, SoftwareToken
from keyark.store import MemoryStore, open_store

ID = bytes(range(16))
RECOVERED = [os.urandom(900), os.urandom(900)]
TOKEN = SoftwareToken(version=1, generation=2, ciphertext=os.urandom(120))


def ceremony(**secrets: object) -> CeremonyRecord:
    return CeremonyRecord(request=b"request", state=1, opening_leaf=b"leaf", **secrets)


async def test_secrets_come_and_go_with_the_record() -> None:
    store = MemoryStore(tables=TABLES)
    assert store.read(lambda txn: read_row(txn, ID)) is None
    for record in (
        ceremony(),
        ceremony(new_token=TOKEN),
        ceremony(new_token=TOKEN, recovered=RECOVERED),
        ceremony(recovered=RECOVERED[:1]),
        ceremony(),
    ):
        await store.update(lambda txn, record=record: put_row(txn, ID, record))
        assert store.read(lambda txn: read_row(txn, ID)) == record
        assert CeremonyRecord.FromString(store.get(CEREMONIES, ID)) == ceremony()
    assert store.get(CEREMONY_SECRETS, ID) is None


async def test_a_step_that_leaves_the_secrets_alone_does_not_write_them_anew(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store", tables=TABLES, schema_version=SCHEMA_VERSION)
    await store.update(lambda txn: put_row(txn, ID, ceremony(new_token=TOKEN)))
    before = (tmp_path / "store" / "row-keys").read_bytes()
    record = ceremony(new_token=TOKEN, decisions=[b"approved"])
    await store.update(lambda txn: put_row(txn, ID, record))
    assert (tmp_path / "store" / "row-keys").read_bytes() == before
    assert store.read(lambda txn: read_row(txn, ID)) == record
    await store.close()


async def test_ceremonies_and_tokens_of_an_earlier_release_are_taken_over(tmp_path: Path) -> None:
    folder, waiting, ready = tmp_path / "store", ceremony(new_token=TOKEN), ceremony(recovered=RECOVERED)
    plain = [str(table) for table in TABLES if table != CEREMONY_SECRETS]
    older = open_store(folder, tables=plain, schema_version=SCHEMA_VERSION)
    await older.update(lambda txn: txn.put(TOKENS, b"\0\0\0\1", TOKEN.SerializeToString()))
    for number, record in enumerate((waiting, ready, ceremony())):
        await older.update(
            lambda txn, key=ID + bytes([number]), record=record: txn.put(
                CEREMONIES, key, record.SerializeToString()
            )
        )
    await older.close()
    secrets = [TOKEN.ciphertext, *RECOVERED]
    assert all(secret in (folder / "data.mdb").read_bytes() for secret in secrets)
    for _ in range(2):
        store = open_store(folder, tables=TABLES, schema_version=SCHEMA_VERSION)
        assert store.get(TOKENS, b"\0\0\0\1") == TOKEN.SerializeToString()
        for number, record in enumerate((waiting, ready, ceremony())):
            assert store.read(lambda txn, key=ID + bytes([number]): read_row(txn, key)) == record
        await store.close()
        files = b"".join(file.read_bytes() for file in folder.iterdir())
        assert not any(secret[:24] in files for secret in secrets)
