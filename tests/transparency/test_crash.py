"""P3, P6: what was answered before a `kill -9` is in the log after it, and the tree is whole."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from keyark.store import open_store
from keyark.transparency.log import TABLES
from tests.support.stories.transparency import new_log

WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from keyark.store import open_store
from keyark.transparency.log import TABLES
from tests.support.stories.transparency import append, entry, new_log

async def main():
    log = new_log()
    store = open_store(Path(sys.argv[1]), tables=TABLES, finisher=log.finisher)
    await log.open(store)
    async def client(start):
        for number in itertools.count(start, 4):
            indices = await append(log, store, entry(number), entry(number))
            print(indices[-1], flush=True)
    await asyncio.gather(*(client(start) for start in range(4)))

asyncio.run(main())
"""


def test_a_killed_writer_leaves_a_whole_log(tmp_path):
    answered = 0
    for round_number in (1, 2, 3):
        command = [sys.executable, "-c", WRITER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            for _ in range(20 * round_number):
                answered = max(answered, int(process.stdout.readline()))
            process.kill()
        asyncio.run(check(tmp_path, answered))


async def check(path: Path, answered: int) -> None:
    log = new_log()
    store = open_store(path, tables=TABLES, finisher=log.finisher)
    await log.open(store)
    checkpoint = await log.verify_all()
    assert checkpoint.size > answered
    assert (await log.checkpoint(covering=answered)).root == checkpoint.root
    await log.close()
    await store.close()
