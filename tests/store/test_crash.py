"""P3: what was acknowledged is there after `kill -9`, and groups are whole; a full disk loses nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from keyark.store import open_store

TABLES = ("first", "second", "groups")
COMMON = """
import asyncio, os, resource, signal, sys
from pathlib import Path
from keyark.errors import KeyarkError
from keyark.store import open_store

def finish(txn, items):
    # one row that tells what all groups so far wrote: it is wrong if a group is kept in part
    txn.put("groups", b"written", b"%d" % (int(txn.get("groups", b"written") or b"0") + len(items)))

def putting(key, size=500):
    def fn(txn):
        txn.put("first", key, bytes(size))
        txn.put("second", key, bytes(size))
        txn.emit(key)
    return fn

def say(word):
    os.write(1, word + b"\\n")

store = open_store(Path(sys.argv[1]), tables=["first", "second", "groups"], finisher=finish)
"""
KILLED = """
async def main():
    async def writer(n):
        for i in range(1_000_000):
            key = b"%d-%d" % (n, i)
            await store.update(putting(key))
            say(key)
    await asyncio.gather(*(writer(n) for n in range(16)))

asyncio.run(main())
"""
FULL = """
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as on a full disk: the write fails, nobody is killed

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def write(key, size=500):
    try:
        await store.update(putting(key, size))
    except KeyarkError as error:
        say(error.reason.encode())
        return False
    say(key)
    return True

async def main():
    target = Path(sys.argv[1]).parent / "copy"
    for times in range(1, 4):
        limit(times << 20)
        async def writer(n):
            i = 0
            while await write(b"%d-%d-%d" % (times, n, i)):
                i += 1
        await asyncio.gather(*(writer(n) for n in range(8)))
        assert not await write(b"large", 1 << 20)
        assert store.get("first", b"large") is None
    limit(1 << 16)
    try:
        await store.backup(target)
    except KeyarkError as error:
        say(b"backup-" + error.reason.encode())
    assert not target.exists()
    limit(resource.RLIM_INFINITY)
    assert await write(b"there is room again")
    await store.backup(target)
    await store.close()

asyncio.run(main())
"""


def start(folder: Path, script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", COMMON + script, str(folder)], stdout=subprocess.PIPE)


async def rows_of_whole_groups(folder: Path) -> set[bytes]:
    store = open_store(folder, tables=TABLES)
    first, second = (
        {key for key, _ in store.read(lambda txn, table=table: txn.scan(table, limit=10**9))}
        for table in TABLES[:2]
    )
    assert first == second
    assert int(store.get("groups", b"written")) == len(first)
    assert (await store.check())["first"] == len(first)
    await store.close()
    return first


async def test_a_killed_writer_loses_nothing_that_it_acknowledged(tmp_path: Path) -> None:
    for acknowledged_before_the_kill in (1, 100, 400):
        folder = tmp_path / str(acknowledged_before_the_kill)
        with start(folder, KILLED) as process:
            said = [process.stdout.readline() for _ in range(acknowledged_before_the_kill)]
            process.kill()
            said += process.stdout.readlines()
        acknowledged = {line.strip() for line in said if line.endswith(b"\n")}
        assert len(acknowledged) >= acknowledged_before_the_kill
        assert acknowledged <= await rows_of_whole_groups(folder)


async def test_a_full_disk_is_said_loses_nothing_and_passes(tmp_path: Path) -> None:
    with start(tmp_path / "store", FULL) as process:
        said = process.stdout.read().splitlines()
    assert process.returncode == 0
    refusals = {b"STORE_FULL", b"backup-STORE_FULL"}
    assert said.count(b"STORE_FULL") == 3 * 9
    assert said.count(b"backup-STORE_FULL") == 1
    for folder in ("store", "copy"):
        assert set(said) - refusals == await rows_of_whole_groups(tmp_path / folder)
