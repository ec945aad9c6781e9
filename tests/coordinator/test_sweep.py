"""The sweep finds all tasks that no coordinator handled when they were due."""

from collections.abc import Collection

import anyio
import pytest

from flowkit.coordinator._scheduler import MOST_AT_ONCE, sweep
from flowkit.protocols import TaskHeader, TaskRecord
from flowkit_testing import InMemoryStore, ManualClock

TICK = 5.0


@pytest.mark.parametrize("count", [1, MOST_AT_ONCE, 2 * MOST_AT_ONCE + 1])
async def test_each_due_task_is_looked_at_once_a_tick_though_all_stay_due(count: int) -> None:
    """Quarantined tasks stay due.

    However many there are, the tasks behind them get their turn, and the loop keeps its pause.
    """
    async with ManualClock().auto() as clock, InMemoryStore() as store:
        names = [f"t{number:05d}" for number in range(count)]
        await store.create(
            [
                TaskRecord(
                    TaskHeader(name, "queued", 1.0, wake_at=clock.now()), b"", {"state": b"{}"}
                )
                for name in names
            ]
        )
        looked_at: list[str] = []

        async def wake(task_ids: Collection[str]) -> None:
            assert len(task_ids) <= MOST_AT_ONCE
            looked_at.extend(task_ids)

        async with anyio.create_task_group() as group:
            group.start_soon(sweep, store, clock, TICK, wake)
            await clock.sleep(2.5 * TICK)
            group.cancel_scope.cancel()
    assert sorted(looked_at) == sorted(2 * names)
