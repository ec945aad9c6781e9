"""Clock that tests advance manually or automatically."""

import asyncio
import socket
import sys
import time
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from flowkit.clock import SystemClock
from flowkit.protocols import Clock
from flowkit_testing import ManualClock

DAY = 86_400.0


def test_a_manual_clock_is_a_clock():
    assert isinstance(ManualClock(), Clock)


@pytest.fixture(params=[SystemClock, ManualClock])
def any_clock(request: pytest.FixtureRequest) -> Clock:
    clock: Clock = request.param()
    return clock


def test_every_clock_says_its_time_as_an_aware_datetime_too(any_clock: Clock):
    assert isinstance(any_clock, Clock)
    before, moment, after = any_clock.now(), any_clock.now_dt(), any_clock.now()
    assert moment.utcoffset() == timedelta(0)
    assert round(before, 5) <= round(moment.timestamp(), 5) <= round(after, 5)


def test_the_system_clock_says_the_time_of_the_system():
    assert abs(SystemClock().now() - time.time()) < 60


async def test_the_monotonic_time_of_every_clock_never_goes_back(any_clock: Clock):
    seen = [any_clock.monotonic() for _ in range(100)]
    if isinstance(any_clock, ManualClock):
        any_clock.jump(-100)
        await any_clock.advance(1)
    seen.append(any_clock.monotonic())
    assert seen == sorted(seen)


@pytest.mark.parametrize("seconds", [0.01, 0, -1])
async def test_a_sleep_of_the_system_clock_lasts_as_long_as_it_says(seconds: float):
    clock = SystemClock()
    began = clock.monotonic()
    others_ran = asyncio.create_task(asyncio.sleep(0))
    await clock.sleep(seconds)
    assert clock.monotonic() - began >= seconds
    assert others_ran.done() or seconds <= 0
    await others_ran


def test_time_stands_still_until_it_is_moved():
    clock = ManualClock(start=1000.0)
    assert [clock.now(), clock.now(), clock.monotonic(), clock.monotonic()] == [
        1000.0,
        1000.0,
        0.0,
        0.0,
    ]


def test_the_start_may_be_a_datetime():
    start = datetime(2030, 5, 1, 12, tzinfo=UTC)
    assert ManualClock(start).now_dt() == start


async def test_sleepers_wake_in_the_order_of_their_deadlines():
    clock = ManualClock()
    woken: list[tuple[float, float]] = []

    async def sleeper(seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((seconds, clock.monotonic()))

    async with anyio.create_task_group() as tasks:
        for seconds in (3.0, 1.0, 2.0, 1.0):
            tasks.start_soon(sleeper, seconds)
        await clock.advance(2.5)
        assert woken == [(1.0, 1.0), (1.0, 1.0), (2.0, 2.0)]
        assert clock.monotonic() == 2.5
        await clock.advance(0.5)
    assert woken[-1] == (3.0, 3.0)


async def test_what_a_woken_task_does_happens_before_time_goes_on():
    clock = ManualClock()
    moments: list[float] = []

    async def every_second() -> None:
        while len(moments) < 5:
            await clock.sleep(1)
            await anyio.lowlevel.checkpoint()
            moments.append(clock.monotonic())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(every_second)
        await clock.advance(5)
    assert moments == [1.0, 2.0, 3.0, 4.0, 5.0]


async def test_a_clock_advances_to_a_moment():
    clock = ManualClock(start=1000.0)
    await clock.advance_to(1060.0)
    assert clock.monotonic() == 60.0
    await clock.advance_to(clock.now_dt())
    assert clock.now() == 1060.0


async def test_time_does_not_go_back():
    clock = ManualClock()
    with pytest.raises(ValueError, match="does not go back"):
        await clock.advance(-1)


@pytest.mark.parametrize("seconds", [0, -5])
async def test_a_sleep_that_is_not_positive_only_lets_others_run(seconds: float):
    clock = ManualClock()
    ran = []
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.lowlevel.checkpoint)
        tasks.start_soon(lambda: _note(ran))
        while not ran:
            await clock.sleep(seconds)
    assert clock.monotonic() == 0


async def _note(ran: list[bool]) -> None:
    ran.append(True)


async def test_a_cancelled_sleep_is_forgotten():
    clock = ManualClock()
    for _ in range(1000):
        with anyio.CancelScope() as scope:
            scope.cancel()
            await clock.sleep(60)
    assert clock.sleepers == 0
    async with clock.auto():
        await clock.sleep(1)
    assert clock.monotonic() == 1


async def test_a_jump_moves_the_wall_clock_only():
    clock = ManualClock(start=1000.0)
    clock.jump(-300)
    assert (clock.now(), clock.monotonic()) == (700.0, 0.0)


async def test_thirty_days_pass_in_milliseconds():
    began = time.monotonic()
    async with ManualClock(start=0).auto() as clock:
        await clock.sleep(30 * DAY)
    assert clock.now() == 30 * DAY
    assert time.monotonic() - began < 5


async def test_thousands_of_sleeps_pass_quickly():
    async with ManualClock().auto() as clock:
        async with anyio.create_task_group() as tasks:
            for number in range(10):
                tasks.start_soon(_tick, clock, 1.0 + number / 10)
        assert clock.monotonic() == pytest.approx(190)


async def _tick(clock: ManualClock, seconds: float) -> None:
    for _ in range(100):
        await clock.sleep(seconds)


async def test_time_waits_while_a_task_can_run():
    async with ManualClock().auto() as clock:
        done_at: list[float] = []

        async def work() -> None:
            for _ in range(5000):
                await anyio.lowlevel.checkpoint()
            done_at.append(clock.monotonic())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, 10)
            tasks.start_soon(work)
        assert done_at == [0]


async def test_time_does_not_run_ahead_of_a_real_sleep():
    async with ManualClock().auto() as clock, anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, DAY)
        await asyncio.sleep(0.05)
        assert clock.monotonic() < 1


async def test_time_does_not_run_ahead_of_a_thread():
    async with ManualClock().auto() as clock, anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, DAY)
        await anyio.to_thread.run_sync(time.sleep, 0.05)
        await asyncio.to_thread(time.sleep, 0.05)
        assert clock.monotonic() < 1


async def test_time_does_not_run_ahead_of_a_subprocess():
    async with ManualClock().auto() as clock, anyio.create_task_group() as tasks:
        tasks.start_soon(clock.sleep, DAY)
        silent = "import os, time; os.close(1); os.close(2); time.sleep(0.1)"
        await anyio.run_process([sys.executable, "-S", "-c", silent])
        assert clock.monotonic() < 60


async def test_time_does_not_run_ahead_of_a_connection():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        async with ManualClock().auto() as clock, anyio.create_task_group() as tasks:
            tasks.start_soon(clock.sleep, DAY)
            await anyio.to_thread.run_sync(time.sleep, 0.01)
            receiving = asyncio.create_task(asyncio.get_running_loop().sock_recv(ours, 1))
            await clock.sleep(0.01)
            theirs.send(b"x")
            assert await receiving == b"x"
            assert clock.monotonic() < 1


async def test_a_deadline_around_the_test_does_not_hold_time_up():
    with anyio.fail_after(60):
        async with ManualClock().auto() as clock:
            await clock.sleep(30 * DAY)
            assert clock.monotonic() == 30 * DAY


async def test_time_does_not_pass_while_no_task_sleeps():
    async with ManualClock().auto() as clock:
        await anyio.to_thread.run_sync(time.sleep, 0.02)
        assert clock.monotonic() == 0


async def test_time_stands_still_behind_the_block():
    clock = ManualClock()
    async with clock.auto():
        await clock.sleep(5)
    with anyio.move_on_after(0.02):
        await clock.sleep(1)
    assert clock.monotonic() == 5


async def test_a_clock_that_moves_by_itself_may_be_asked_to_twice():
    clock = ManualClock()
    async with clock.auto():
        async with clock.auto():
            await clock.sleep(5)
        await clock.sleep(5)
    assert clock.monotonic() == 10


async def test_an_error_within_the_block_comes_out_as_it_is():
    with pytest.raises(KeyError, match="mine"):
        async with ManualClock().auto():
            raise KeyError("mine")


def test_a_clock_serves_one_event_loop_after_the_other():
    clock = ManualClock()

    async def main() -> None:
        async with clock.auto():
            await clock.sleep(5)

    for _ in range(3):
        asyncio.run(main())
    assert clock.monotonic() == 15
