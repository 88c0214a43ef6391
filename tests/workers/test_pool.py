"""Workers: batches shared, the dead replaced, poison refused, nothing outlives its parent, nothing leaks (P10)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from keyark.errors import KeyarkError, OverloadedError, UnavailableError
from keyark.errors.services import PoisonedItemError, WorkerFailedError, WorkerStartError
from keyark.keys import at_rest
from keyark.keys.key_types import KeyType, generate
from keyark.keys.private_keys import load_private_key, save_private_key
from keyark.keys.reencryption import begin_encrypted
from keyark.keys.spki import encode_spki
from keyark.workers import process
from keyark.workers.pool import WorkerPool

HANDLERS = "tests.workers.handlers"


@asynccontextmanager
async def pool(name: str, setup: bytes = b"", **options):
    settings = {
        "workers": 1, "batch_seconds": 30.0, "max_batch": 8, "max_waiting": 1000, "recycle_after": 1000,
        **options,
    }  # fmt: skip
    opened = WorkerPool(f"{HANDLERS}:{name}", setup, **settings)
    await opened.start()
    try:
        yield opened
    finally:
        await opened.close()


async def test_results_come_in_order_from_several_workers_in_batches() -> None:
    async with pool("echo", b"s", workers=2) as workers:
        results = await workers.run([b"%d" % i for i in range(100)])
    parts = [result.split(b"|") for result in results]
    assert [part[3] for part in parts] == [b"%d" % i for i in range(100)]
    assert {part[0] for part in parts} == {b"s"}
    assert len({part[1] for part in parts}) == 2
    assert max(int(part[2]) for part in parts) == 8
    assert workers.stats.items == 100
    assert workers.stats.batches < 30


async def test_a_batch_whose_worker_died_is_redone(tmp_path: Path) -> None:
    marker = tmp_path / "died"
    async with pool("moody", str(marker).encode()) as workers:
        assert await workers.run([b"a", b"once", b"b"]) == [b"a", b"once", b"b"]
    assert marker.exists()
    assert workers.stats.deaths == 1


async def test_an_item_that_kills_twice_is_refused_and_its_neighbours_are_not() -> None:
    async with pool("moody") as workers:
        results = await workers.run([b"a", b"die", b"b"])
        assert workers.stats.deaths == 2
    assert results[0] == b"a"
    assert isinstance(results[1], PoisonedItemError)
    assert results[2] == b"b"


async def test_a_hanging_batch_is_ended_and_counts_as_a_death() -> None:
    async with pool("moody", batch_seconds=0.3) as workers:
        results = await workers.run([b"hang", b"a"])
    assert isinstance(results[0], PoisonedItemError)
    assert results[1] == b"a"


async def test_a_handler_that_fails_says_nothing_of_what_it_had(capfd: pytest.CaptureFixture[str]) -> None:
    async with pool("moody") as workers:
        results = await workers.run([b"raise"])
        assert await workers.run([b"fine"]) == [b"fine"]
    assert isinstance(results[0], WorkerFailedError)
    assert "secret" not in str(results[0])
    assert "secret" not in capfd.readouterr().err


async def test_a_wrong_number_of_results_is_a_failure() -> None:
    async with pool("forgetful") as workers:
        assert all(isinstance(result, WorkerFailedError) for result in await workers.run([b"a", b"b"]))


async def test_a_worker_that_does_not_come_up_stops_the_start() -> None:
    with pytest.raises(WorkerStartError):
        async with pool("broken"):
            pass


async def test_old_workers_are_replaced() -> None:
    async with pool("echo", recycle_after=2) as workers:
        pids = [(await workers.run([b"x"]))[0].split(b"|")[1] for _ in range(5)]
    assert len(set(pids)) == 3


async def test_a_full_queue_is_said_at_once(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with pool("slow", str(gate).encode(), max_waiting=4) as workers:
        running = asyncio.create_task(workers.run([b"a", b"b"]))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await workers.run([b"c"] * 5)
        gate.touch()
        assert await running == [b"a", b"b"]


async def test_closing_works_what_waits_and_takes_no_more() -> None:
    async with pool("echo") as workers:
        running = asyncio.create_task(workers.run([b"a"] * 20))
        await asyncio.sleep(0)
    assert len([r for r in await running if not isinstance(r, KeyarkError)]) == 20
    with pytest.raises(UnavailableError):
        await workers.run([b"late"])


async def test_secrets_of_the_setup_stand_in_no_process_list_and_no_environment() -> None:
    async with pool("echo", b"PIN-1234") as workers:
        await workers.run([b"x"])
        for pid in workers.worker_pids:
            assert b"PIN-1234" not in Path(f"/proc/{pid}/cmdline").read_bytes()
            with contextlib.suppress(
                PermissionError
            ):  # only root may look at all: the process is not dumpable
                assert b"PIN-1234" not in Path(f"/proc/{pid}/environ").read_bytes()


async def test_workers_dump_no_core() -> None:
    async with pool("echo") as workers:
        limits = [Path(f"/proc/{pid}/limits").read_text() for pid in workers.worker_pids]
    for text in limits:
        line = next(line for line in text.splitlines() if line.startswith("Max core file size"))
        assert line.split()[4:6] == ["0", "0"]


async def test_a_set_up_that_fails_is_not_quoted(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WorkerStartError):
        async with pool("leaky", b"PIN-1234"):
            pass
    said = capfd.readouterr().err
    assert "PIN-1234" not in said
    assert "ValueError at " in said  # where to look


async def test_closing_works_what_waits_behind_what_was_given_up(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with pool("slow", str(gate).encode(), max_batch=2) as workers:
        running = asyncio.create_task(workers.run([b"a"]))
        await asyncio.sleep(0)
        given_up = [asyncio.create_task(workers.run([b"b"])) for _ in range(2)]
        waiting = asyncio.create_task(workers.run([b"c"]))
        await asyncio.sleep(0)
        for task in given_up:
            task.cancel()
        await asyncio.wait(given_up)
        closing = asyncio.create_task(workers.close())
        await asyncio.sleep(0)
        gate.touch()
        assert await asyncio.gather(running, waiting) == [[b"a"], [b"c"]]
        await closing


async def test_who_gave_up_takes_no_place_in_the_queue(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    async with pool("slow", str(gate).encode(), max_batch=1, max_waiting=3) as workers:
        running = asyncio.create_task(workers.run([b"a"]))
        await asyncio.sleep(0)
        given_up = asyncio.create_task(workers.run([b"b", b"b"]))
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.wait([given_up])
        staying = asyncio.create_task(workers.run([b"c", b"c"]))
        await asyncio.sleep(0)
        gate.touch()
        assert await asyncio.gather(running, staying) == [[b"a"], [b"c", b"c"]]


async def test_the_pool_goes_on_after_a_time_in_which_no_process_could_start() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with pool("moody") as workers:
        try:
            doomed = asyncio.create_task(workers.run([b"die", b"a"]))
            await asyncio.sleep(0)
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (3, hard)
            )  # below any gap in the descriptors that are open
            assert all(isinstance(result, WorkerStartError) for result in await doomed)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert await workers.run([b"fine"]) == [b"fine"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signals_to_the_whole_group_leave_work_to_the_parent(number: signal.Signals) -> None:
    async with pool("echo") as workers:
        for pid in workers.worker_pids:
            os.kill(pid, number)
        await workers.run([b"a"])
    assert workers.stats.deaths == 0


async def test_an_idle_worker_that_was_killed_is_replaced() -> None:
    async with pool("echo") as workers:
        os.kill(workers.worker_pids[0], signal.SIGKILL)
        assert (await workers.run([b"a"]))[0].endswith(b"|a")


PARENT = """
import asyncio, sys
from keyark.workers.pool import WorkerPool

async def main():
    pool = WorkerPool(
        "tests.workers.handlers:stuck", sys.argv[1].encode(),
        workers=2, batch_seconds=600, max_batch=1, max_waiting=9, recycle_after=9,
    )
    await pool.start()
    print(*pool.worker_pids, flush=True)
    await pool.run([b"a"] * int(sys.argv[2]))
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("hanging", [0, 2])
def test_no_worker_outlives_a_killed_parent(hanging: int, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    command = [sys.executable, "-c", PARENT, str(begun), str(hanging)]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    with open(begun, "r+b", buffering=0) as reports:  # also for writing: so it has no end between two writers
        for _ in range(hanging):
            assert reports.read(1)  # blocks until one more worker is in its handler
    watched = [os.pidfd_open(pid) for pid in pids]
    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    for descriptor in watched:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(10_000), "a worker is still there"
        os.close(descriptor)


async def test_a_new_setup_reaches_every_worker_and_loses_no_work() -> None:
    async with pool("echo", b"old", workers=2) as workers:
        before = set(workers.worker_pids)
        running = asyncio.create_task(workers.run([b"%d" % i for i in range(50)]))
        await workers.reconfigure(b"new")
        assert before.isdisjoint(workers.worker_pids)
        after = await workers.run([b"%d" % i for i in range(50)])
        assert {result.split(b"|")[0] for result in after} == {b"new"}
        assert [result.split(b"|")[3] for result in await running] == [b"%d" % i for i in range(50)]


async def test_a_setup_that_does_not_start_leaves_the_old_workers_at_work(tmp_path: Path) -> None:
    async with pool("echo", b"old", workers=2) as workers:
        with pytest.raises(WorkerStartError):
            await workers.reconfigure(b"refuse")
        assert (await workers.run([b"a"]))[0].startswith(b"old|")


@pytest.fixture(params=["credential", "descriptor"])
def encrypted_key(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A key whose password only this process was given, as a service is started with one."""
    folder = tmp_path / "cm"
    folder.mkdir(mode=0o700)
    descriptor, end = os.pipe()
    os.write(end, b"given at the start\n")
    os.close(end)
    (tmp_path / "keys").write_bytes(b"given at the start\n")
    (tmp_path / "keys").chmod(0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(at_rest, "held_descriptors", set())
    monkeypatch.setattr(process, "held_descriptors", at_rest.held_descriptors)
    begin_encrypted(
        folder, "credential:keys" if request.param == "credential" else f"descriptor:{descriptor}"
    )
    save_private_key(folder / "key.pem", generate(KeyType.EC_P256))
    yield folder / "key.pem"
    os.close(descriptor)


async def test_workers_open_keys_whose_password_the_service_was_given(encrypted_key: Path) -> None:
    """Those that take another's place, too."""
    public = encode_spki(load_private_key(encrypted_key).public_key())
    async with pool("opens_key", os.fsencode(encrypted_key), workers=2, recycle_after=1) as workers:
        assert await workers.run([b""] * 4) == [public] * 4
        assert await workers.run([b""] * 4) == [public] * 4
