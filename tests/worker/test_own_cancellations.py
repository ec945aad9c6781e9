"""Code that cancels its own asyncio task and undoes the cancellation.

The end of each run is reported all the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import pytest

from flowkit._user_code.containment import contained, undo_cancellation
from flowkit.worker import Batch, BatchResult, Handler, RunContext
from tests.worker.bench import Bench


def own_task() -> "asyncio.Task[Any]":
    task = asyncio.current_task()
    assert task is not None
    return task


async def take_back_at_once() -> None:
    own_task().cancel()
    own_task().uncancel()


async def take_back_what_came() -> None:
    own_task().cancel()
    try:
        await asyncio.sleep(0)
    except asyncio.CancelledError:
        own_task().uncancel()


async def take_back_one_of_two() -> None:
    own_task().cancel()
    own_task().cancel()
    own_task().uncancel()


async def take_back_more_than_it_asked_for() -> None:
    own_task().uncancel()
    await take_back_at_once()
    own_task().uncancel()


async def swallow() -> None:
    own_task().cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(0)


async def cancel_soon() -> None:
    asyncio.get_running_loop().call_soon(own_task().cancel)


async def cancel_soon_and_take_back() -> None:
    loop, task = asyncio.get_running_loop(), own_task()
    loop.call_soon(lambda: (task.cancel(), task.uncancel()))


async def time_out() -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0):
            await anyio.sleep_forever()


HABITS: list[Callable[[], Awaitable[None]]] = [
    take_back_at_once,
    take_back_what_came,
    take_back_one_of_two,
    take_back_more_than_it_asked_for,
    swallow,
    cancel_soon,
    cancel_soon_and_take_back,
    time_out,
]
Habit = Callable[[], Awaitable[None]]
Wait = Callable[[], Awaitable[None]]


@contextlib.asynccontextmanager
async def resource(habit: Habit) -> AsyncIterator[None]:
    try:
        yield
    finally:
        await habit()


def in_a_function(habit: Habit, wait: Wait) -> Any:
    async def work() -> str:
        try:
            await wait()
        finally:
            await habit()
        return "done"

    return work


def in_a_generator(habit: Habit, wait: Wait) -> Any:
    async def work() -> AsyncIterator[dict[str, int]]:
        try:
            yield {"n": 1}
            await wait()
        finally:
            await habit()

    return work


def in_a_context_exit(habit: Habit, wait: Wait) -> Any:
    async def work() -> str:
        async with resource(habit):
            await wait()
        return "done"

    return work


def in_a_cleanup(habit: Habit, wait: Wait) -> Any:
    async def work(item: Any, ctx: RunContext) -> str:
        ctx.on_cleanup(habit)
        await wait()
        return "done"

    return work


def in_a_batch(habit: Habit, wait: Wait) -> Any:
    class Work(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            try:
                await wait()
            finally:
                await habit()
            return BatchResult(True)

    return Work


def in_finalize(habit: Habit, wait: Wait) -> Any:
    class Work(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            await wait()
            return BatchResult(True)

        async def finalize(self, ctx: RunContext) -> None:
            await habit()

    return Work


def in_iter_batches(habit: Habit, wait: Wait) -> Any:
    class Work(Handler):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            try:
                yield Batch("0")
            finally:
                await habit()

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            await wait()
            return BatchResult(True)

    return Work


def asks_and_takes_back() -> None:
    own_task().cancel()
    own_task().uncancel()


async def test_what_a_contained_function_has_taken_back_cancels_no_later_await() -> None:
    contained(asks_and_takes_back)
    await undo_cancellation()
    await asyncio.sleep(0)
    assert not own_task().cancelling()


PLACES = [
    in_a_function,
    in_a_generator,
    in_a_context_exit,
    in_a_cleanup,
    in_a_batch,
    in_finalize,
    in_iter_batches,
]
everywhere = pytest.mark.parametrize("place", PLACES)
any_habit = pytest.mark.parametrize("habit", HABITS)


async def go_on() -> None:
    await asyncio.sleep(0)


@everywhere
@any_habit
async def test_a_run_that_cancels_its_own_task_reports_its_end(
    bench: Bench, place: Any, habit: Habit
) -> None:
    async with bench.worker({"work": place(habit, go_on)}, max_concurrency=1):
        for _ in range(3):
            end = await bench.run()
            assert end.kind in ("node_succeeded", "node_failed")
            if place is in_a_cleanup:
                assert end.kind == "node_succeeded"


@pytest.mark.parametrize("turns", range(12))
async def test_so_does_a_run_whose_task_is_cancelled_by_what_it_left_behind(
    bench: Bench, turns: int
) -> None:
    async def work(item: Any, ctx: RunContext) -> str:
        task, loop = own_task(), asyncio.get_running_loop()

        def cancel(left: int) -> None:
            loop.call_soon(cancel, left - 1) if left else task.cancel()

        ctx.on_cleanup(lambda: None)
        cancel(turns)
        return "done"

    async with bench.worker({"work": work}, max_concurrency=1):
        for _ in range(3):
            assert (await bench.run()).kind in ("node_succeeded", "node_failed")


async def test_a_run_that_was_left_to_itself_ends_its_slot(bench: Bench) -> None:
    last, running = anyio.Event(), 0

    async def work(item: Any) -> None:
        nonlocal running
        running += 1
        assert running == 1
        while item and not last.is_set():
            try:
                await last.wait()
            except asyncio.CancelledError:
                own_task().uncancel()
                running -= 1
        if not item:
            await bench.clock.sleep(1)
            running -= 1

    async with bench.worker({"work": work}, cancel_grace_sec=1, max_concurrency=1):
        command = await bench.send(True)
        await bench.started(command)
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
        last.set()
        commands = [await bench.send(False) for _ in range(4)]
        assert [(await bench.end(one)).kind for one in commands] == ["node_succeeded"] * 4


@everywhere
@any_habit
async def test_so_does_a_run_that_is_cut_off(bench: Bench, place: Any, habit: Habit) -> None:
    async with bench.worker(
        {"work": place(habit, anyio.sleep_forever)}, cancel_grace_sec=1, max_concurrency=1
    ):
        for _ in range(2):
            command = await bench.send()
            await bench.started(command)
            await bench.cancel(command)
            assert (await bench.end(command)).kind in ("node_stopped", "node_succeeded")


@everywhere
@any_habit
async def test_so_does_a_run_of_a_worker_that_stops(
    bench: Bench, place: Any, habit: Habit, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.worker(
        {"work": place(habit, anyio.sleep_forever)}, stop_grace_sec=1, cancel_grace_sec=1
    ):
        command = await bench.send()
        await bench.started(command)
    assert (await bench.end(command)).kind in ("node_released", "node_succeeded")
    assert "runs_left" not in [getattr(record, "action", "") for record in caplog.records]
