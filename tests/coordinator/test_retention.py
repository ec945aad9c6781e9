"""Coordinators delete tasks that ended long ago."""

import logging
from collections.abc import AsyncIterator

import anyio
import pytest

from flowkit import CoordinatorConfig
from flowkit.coordinator._retention import purge_regularly
from flowkit.errors import StoreUnavailable
from flowkit.protocols import TaskHeader, TaskRecord
from flowkit_testing import Cluster, InMemoryStore, ManualClock
from tests.builders import ONE, work

HOUR = 3600.0
DAY = 24 * HOUR


def ended(task_id: str, at: float | None) -> TaskRecord:
    return TaskRecord(TaskHeader(task_id, "finished", 1.0, finished_at=at), b"", {"state": b"{}"})


async def test_a_task_is_deleted_when_its_time_is_over_and_not_before() -> None:
    config = CoordinatorConfig(finished_retention_sec=HOUR, purge_interval_sec=60)
    async with Cluster(handlers=[work], coordinator_config=config) as cluster:
        first = await cluster.run(ONE)
        await cluster.clock.sleep(HOUR / 2)
        second = await cluster.run(ONE)
        await cluster.clock.sleep(HOUR * 0.4)
        assert set(await cluster.store.load([first.id, second.id])) == {first.id, second.id}
        await cluster.clock.sleep(HOUR * 0.2)
        assert set(await cluster.store.load([first.id, second.id])) == {second.id}


async def test_tasks_are_kept_for_ever_by_default() -> None:
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(ONE)
        await cluster.clock.sleep(2 * HOUR)
        assert set(await cluster.store.load([view.id])) == {view.id}


class Unreliable(InMemoryStore):
    """A store that fails some purges, and purges one task in a call."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return await super().purge(finished_before=finished_before, limit=1)


@pytest.fixture
async def clock() -> AsyncIterator[ManualClock]:
    async with ManualClock(start=10 * DAY).auto() as clock:
        yield clock


async def test_purging_goes_on_after_errors_and_until_nothing_is_left(
    clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Unreliable(StoreUnavailable("away"), KeyError("damaged"))
    names = [f"t{number}" for number in range(5)]
    await store.create(
        [*(ended(name, 1.0) for name in names), ended("young", clock.now()), ended("runs", None)]
    )
    with caplog.at_level(logging.INFO, "flowkit.coordinator._retention"):
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: purge_regularly(store, clock, keep_sec=DAY, interval_sec=60))
            await clock.sleep(200)
            group.cancel_scope.cancel()
    assert set(await store.load([*names, "young", "runs"])) == {"young", "runs"}
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "Purging failed and is tried again later: away",
        "Purging failed and is tried again later",
        *["Purged 1 tasks"] * 5,
    ]


def test_a_retention_is_positive() -> None:
    with pytest.raises(ValueError, match="finished_retention_sec"):
        CoordinatorConfig(finished_retention_sec=0)
