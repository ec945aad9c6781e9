"""Timers of the tasks in memory: each task is woken in time, and few times are kept."""

from collections.abc import Callable, Collection

import anyio
import anyio.lowlevel
import pytest

from flowkit.coordinator._timers import SLACK, Timers
from flowkit_testing import ManualClock


async def woken(plan: Callable[[Timers, float], None], *, sec: float = 100.0) -> dict[str, float]:
    """Return when tasks are woken, in seconds from the begin."""
    async with ManualClock().auto() as clock:
        timers, began, found = Timers(clock), clock.now(), dict[str, float]()

        async def wake(task_ids: Collection[str]) -> None:
            found.update(dict.fromkeys(task_ids, clock.now() - began))

        async with anyio.create_task_group() as group:
            group.start_soon(timers.run, wake)
            await anyio.lowlevel.checkpoint()
            plan(timers, began)
            await clock.sleep(sec)
            group.cancel_scope.cancel()
    return found


async def test_the_earliest_time_of_a_task_counts_and_none_drops_it() -> None:
    def plan(timers: Timers, now: float) -> None:
        for task_id, at in [("a", 30), ("a", 5), ("a", 10), ("b", 20), ("c", 3), ("c", None)]:
            timers.wake(task_id, None if at is None else now + at)

    assert await woken(plan) == {"a": 5, "b": 20}


async def test_a_time_that_was_dropped_and_set_again_counts() -> None:
    def plan(timers: Timers, now: float) -> None:
        for at in (3, None, 7):
            timers.wake("a", None if at is None else now + at)

    assert await woken(plan) == {"a": 7}


@pytest.mark.parametrize("times", [(50,), (60, 50, 40), (50, None), (40, None, 30, None, 50)])
async def test_few_times_are_kept_of_tasks_that_change_often(times: tuple[int | None, ...]) -> None:
    """Each event of a task schedules its next wake-up, and its deadline may be days ahead."""
    timers = Timers(ManualClock())
    for _ in range(1000):
        for at in times:
            timers.wake("a", at)
    assert len(timers) <= SLACK + 3
