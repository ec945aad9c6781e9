"""Calls of the driver have ended when their caller continues.

This holds for single and concurrent calls, before and after their time limit, and when cancelled.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from flowkit.errors import RecordTooLarge, StoreError, StoreUnavailable
from flowkit_mongo import MongoConfig
from flowkit_mongo._calls import Calls, Operation, side_by_side


class Server:
    """A server that holds its operations until the test lets it answer.

    A cancelled operation takes some turns of the event loop to end.
    """

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.answer = asyncio.Event()
        self.begun = self.ended = self.most = self.cancels = self.broken = 0

    async def work(self) -> None:
        self.begun += 1
        self.most = max(self.most, self.begun - self.ended)
        self.asked.release()
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.cancels += 1
            await self._clean_up()
            raise
        finally:
            self.ended += 1

    async def _clean_up(self) -> None:
        try:
            for _ in range(10):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.broken += 1
            raise

    async def has_begun(self, count: int) -> None:
        for _ in range(count):
            await self.asked.acquire()


def failing(error: Exception) -> Operation:
    async def fail() -> None:
        await anyio.lowlevel.checkpoint()
        raise error

    return fail


def calls(timeout_sec: float = 30) -> Calls:
    return Calls(MongoConfig(operation_timeout_sec=timeout_sec, retry_for_sec=0))


async def alone(server: Server) -> None:
    await calls().once(server.work)


async def together(server: Server) -> None:
    await side_by_side([server.work, lambda: calls().once(server.work)], at_a_time=2)


@pytest.mark.parametrize(("run", "count"), [(alone, 1), (together, 2)])
async def test_an_operation_is_cancelled_once_and_has_ended_before_its_caller(
    run: Callable[[Server], Awaitable[None]], count: int
) -> None:
    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, server)
        await server.has_begun(count)
        tasks.cancel_scope.cancel()
    assert (server.cancels, server.broken, server.ended) == (count, 0, count)


async def test_an_operation_that_takes_too_long_is_cancelled_once_and_not_confirmed() -> None:
    server = Server()
    with pytest.raises(StoreUnavailable, match=r"longer than 0\.01 seconds"):
        await calls(0.01).once(server.work)
    assert (server.cancels, server.broken, server.ended) == (1, 0, 1)


async def test_an_operation_that_ends_though_its_time_is_over_counts() -> None:
    async def stubborn() -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return "done"

    assert await calls(0.01).once(stubborn) == "done"


async def test_what_fails_is_raised_as_it_is_when_all_have_ended() -> None:
    server = Server()
    error = RecordTooLarge("much")
    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            with pytest.raises(RecordTooLarge) as caught:
                await side_by_side([server.work, failing(error), server.work], at_a_time=3)
            assert caught.value is error
            assert (server.cancels, server.ended) == (0, 2)

        tasks.start_soon(run)
        await server.has_begun(2)
        await anyio.wait_all_tasks_blocked()
        server.answer.set()


@pytest.mark.parametrize("at_a_time", [1, 3])
async def test_what_has_not_begun_when_another_fails_does_not_begin(at_a_time: int) -> None:
    server = Server()
    server.answer.set()
    with pytest.raises(StoreError, match="first"):
        await side_by_side(
            [failing(StoreError("first"))] * at_a_time + [server.work] * 5, at_a_time=at_a_time
        )
    assert server.begun == 0


async def test_an_unreachable_server_is_reported_before_other_errors() -> None:
    with pytest.raises(StoreUnavailable):
        await side_by_side(
            [failing(StoreError("broken")), failing(StoreUnavailable("away"))], at_a_time=2
        )


@pytest.mark.parametrize("count", [0, 1, 7])
async def test_only_so_many_run_at_a_time(count: int) -> None:
    server = Server()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: side_by_side([server.work] * count, at_a_time=3))
        await server.has_begun(min(count, 3))
        await anyio.wait_all_tasks_blocked()
        server.answer.set()
    assert (server.ended, server.most) == (count, min(count, 3))
