"""The CM's signing pool alone: pairs signed per second, against raw signatures by as many processes.

`python -m benchmarks.signing KEY SECONDS` is one of those processes: it signs and prints signatures per second.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cm_service.config import CmConfig
from cm_service.issuance.signing_worker import FACTORY, worker_setup
from keyark.config import load_config
from keyark.custody.uris import load_private_key_by_uri
from keyark.errors import KeyarkError
from keyark.keys.key_types import generate, narrow_signing_key
from keyark.keys.signatures import sign_message
from keyark.keys.spki import encode_spki
from keyark.load.planning.suites import KeySuite
from keyark.records.v1.cm_pb2 import SignPairTask
from keyark.workers.pool import WorkerPool
from keyark.x509.serials import new_serial

BATCH: Final = 16
MESSAGE: Final = bytes(700)
"""As large as what is signed of a certificate."""


async def measure_pool(cm_toml: Path, suite: KeySuite, *, workers: int, seconds: float) -> dict[str, float]:
    """Return pairs per second of the pool, and the share of the raw signature rate that this is."""
    config = load_config(cm_toml, CmConfig)
    raw = await _raw_rate(config.service.folder / config.issuer.key.removeprefix("file:"), workers, seconds)
    setup = worker_setup(
        issuer_key_uri=config.issuer.key,
        base=config.service.folder,
        chain=config.issuer.chain,
        profiles={name: profile.content for name, profile in config.profiles.items()},
    )
    pool = WorkerPool(
        FACTORY,
        setup,
        workers=workers,
        batch_seconds=config.workers.batch_seconds,
        max_batch=config.workers.max_batch,
        max_waiting=config.workers.max_waiting,
        recycle_after=config.workers.recycle_after,
    )
    await pool.start()
    try:
        tasks = _tasks(suite)
        await _sign(pool, tasks, workers, seconds / 4)
        rate = await _sign(pool, tasks, workers, seconds)
    finally:
        await pool.close()
    return {"pairs_per_second": rate, "fraction_of_raw": 2 * rate / raw, "raw_per_second": raw}


async def _sign(pool: WorkerPool, tasks: Iterator[bytes], workers: int, seconds: float) -> float:
    """Keep every worker supplied for so long; returns pairs per second."""
    done, started = 0, time.perf_counter()

    async def supply() -> None:
        nonlocal done
        while time.perf_counter() - started < seconds:
            for result in await pool.run(list(itertools.islice(tasks, BATCH))):
                if isinstance(result, KeyarkError):
                    raise result
                done += 1

    await asyncio.gather(*(supply() for _ in range(3 * workers)))
    return done / (time.perf_counter() - started)


def _tasks(suite: KeySuite) -> Iterator[bytes]:
    now = int(time.time())
    signing, encryption = (
        encode_spki(generate(kind).public_key()) for kind in (suite.signing, suite.encryption)
    )
    for number in itertools.count():
        yield SignPairTask(
            profile="user",
            common_name=f"User {number}",
            email=f"user{number}@example.org",
            signing_spki=signing,
            encryption_spki=encryption,
            signing_serial=new_serial(),
            encryption_serial=new_serial(),
            not_before=now,
            not_after=now + 86_400,
        ).SerializeToString()


async def _raw_rate(key: Path, processes: int, seconds: float) -> float:
    """Let so many processes do nothing but sign, at the same time."""
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, str(key), str(seconds), stdout=asyncio.subprocess.PIPE
        )
        for _ in range(processes)
    ]
    outputs = await asyncio.gather(*(process.communicate() for process in started))
    return sum(float(output) for output, _ in outputs)


def main(key: Path, seconds: float) -> None:
    """Sign for so long and print the rate."""
    private_key = narrow_signing_key(load_private_key_by_uri(f"file:{key}", Path()))
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        for _ in range(BATCH):
            sign_message(private_key, MESSAGE)
        done += BATCH
    print(done / (time.perf_counter() - started))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
