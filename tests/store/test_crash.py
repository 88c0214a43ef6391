"""P3: what was acknowledged is there after `kill -9`, and groups are whole; a full disk loses nothing."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from keyark.store import open_store

WRITER = """
import asyncio, resource, sys
from pathlib import Path
from keyark.errors import KeyarkError
from keyark.store import open_store

async def main():
    store = open_store(Path(sys.argv[1]), tables=["first", "second"])
    if sys.argv[2] == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
    async def writer(n):
        for i in range(1_000_000):
            key = b"%d-%d" % (n, i)
            def fn(txn):
                txn.put("first", key, bytes(500))
                txn.put("second", key, bytes(500))
            try:
                await store.update(fn)
            except KeyarkError as error:
                print(error.reason, flush=True)
                return
            print(key.decode(), flush=True)
    await asyncio.gather(*(writer(n) for n in range(8)))

import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
asyncio.run(main())
"""


def start(folder: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(folder), mode],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


async def rows(folder: Path) -> tuple[set[str], set[str]]:
    store = open_store(folder, tables=["first", "second"])
    try:
        return tuple(  # type: ignore[return-value]
            {key.decode() for key, _ in store.read(lambda txn, table=table: txn.scan(table, limit=10**9))}
            for table in ("first", "second")
        )
    finally:
        await store.close()


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    process = start(tmp_path / "store", "kill")
    acknowledged = [process.stdout.readline().strip() for _ in range(300)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.communicate()[0].split()[:-1]  # the last line may be cut off
    first, second = await rows(tmp_path / "store")
    assert set(acknowledged) <= first
    assert first == second


async def test_a_full_disk_is_said_and_loses_nothing(tmp_path: Path) -> None:
    process = start(tmp_path / "store", "full")
    printed = process.communicate(timeout=60)[0].split()
    assert process.returncode == 0
    acknowledged = {line for line in printed if line != "STORE_FULL"}
    assert printed.count("STORE_FULL") == 8
    first, second = await rows(tmp_path / "store")
    assert acknowledged <= first
    assert first == second
