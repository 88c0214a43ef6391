"""A ceremony over many keys is worked in steps, each with the whole limit of time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from drm_service.ceremonies.work import STEP, WORK_SECONDS, work_tasks
from keyark.errors.services import WorkerDiedError
from keyark.records.v1.drm_pb2 import CeremonyResult, CeremonyTask


class Worker:
    """A worker process that has time for so many tasks within a limit."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.steps = capacity, []

    async def work(self, items: Sequence[bytes], *, seconds: float) -> list[bytes]:
        self.steps.append(len(items))
        if len(items) > self.capacity or seconds > WORK_SECONDS:
            raise WorkerDiedError("It took too long.")
        return [CeremonyResult().SerializeToString() for _ in items]


@pytest.mark.parametrize("count", [0, 1, STEP, STEP + 1, 150])
async def test_many_keys_need_no_more_time_at_once_than_a_few(count: int) -> None:
    worker = Worker(STEP)
    assert len(await work_tasks(worker, [CeremonyTask()] * count)) == count
    assert sum(worker.steps) == count


async def test_a_worker_that_is_lost_in_a_later_step_fails_them_all() -> None:
    worker = Worker(STEP)
    worker.capacity = STEP - 1
    with pytest.raises(WorkerDiedError):
        await work_tasks(worker, [CeremonyTask()] * (3 * STEP))
