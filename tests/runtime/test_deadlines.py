"""Waits with a limit."""

import asyncio
import gc
import warnings

import anyio
import pytest

from flowkit._runtime.concurrency import within
from flowkit.clock import SystemClock
from flowkit_testing import ManualClock


async def test_a_wait_that_ends_in_time_is_reported_as_such() -> None:
    assert await within(10, anyio.lowlevel.checkpoint, clock=ManualClock())


async def test_a_wait_is_cancelled_when_its_time_is_over() -> None:
    clock, event = ManualClock(), anyio.Event()
    waiting = asyncio.create_task(within(10, event.wait, clock=clock))
    await anyio.wait_all_tasks_blocked()
    await clock.advance(9)
    assert not waiting.done()
    await clock.advance(1)
    assert not await waiting


async def test_a_wait_on_the_clock_of_the_system_is_cancelled_when_its_time_is_over() -> None:
    before = asyncio.all_tasks()
    assert not await within(0, anyio.sleep_forever, clock=SystemClock())
    assert await within(60, anyio.lowlevel.checkpoint, clock=SystemClock())
    assert asyncio.all_tasks() == before


async def test_a_clock_with_its_own_sleep_measures_the_wait() -> None:
    class Hasty(SystemClock):
        async def sleep(self, seconds: float) -> None:
            await anyio.lowlevel.checkpoint()

    assert not await within(3600, anyio.sleep_forever, clock=Hasty())


async def test_an_error_of_the_wait_is_raised_as_it_is() -> None:
    async def fail() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError):
        await within(10, fail, clock=ManualClock())


async def test_a_wait_that_is_cancelled_leaves_no_timer() -> None:
    before = asyncio.all_tasks()
    waiting = asyncio.create_task(within(10, anyio.sleep_forever, clock=SystemClock()))
    await anyio.wait_all_tasks_blocked()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert asyncio.all_tasks() == before


def test_a_program_that_ends_before_the_timer_has_begun_prints_no_warning() -> None:
    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(within(60, anyio.sleep_forever, clock=SystemClock())))

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(main())
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
