"""Calls made at the same time are sent as one."""

import asyncio
from collections.abc import Sequence

import anyio
import pytest

from flowkit._runtime.concurrency import Gathered
from flowkit.errors import StoreUnavailable


class Doubling:
    """A function that counts its calls; the first call waits for a gate."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error or ValueError("unlucky")
        self.calls: list[list[int]] = []
        self.go_on = anyio.Event()

    async def __call__(self, items: list[int]) -> Sequence[int]:
        self.calls.append(items)
        if len(self.calls) == 1:
            await self.go_on.wait()
        if 13 in items:
            raise self.error
        return [item * 2 for item in items]


async def started(gathered: Gathered[int, int], *items: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(gathered(item)) for item in items]
    await anyio.lowlevel.checkpoint()
    return tasks


async def test_a_single_caller_is_served_at_once() -> None:
    doubling = Doubling()
    doubling.go_on.set()
    assert await Gathered(doubling)(4) == 8


async def test_what_comes_while_a_call_is_on_its_way_goes_together() -> None:
    doubling = Doubling()
    tasks = await started(Gathered(doubling), 1, 2, 3, 4)
    doubling.go_on.set()
    assert [await task for task in tasks] == [2, 4, 6, 8]
    assert doubling.calls == [[1], [2, 3, 4]]


async def test_requests_of_one_turn_go_together_if_the_first_waits_for_a_turn() -> None:
    doubling = Doubling()
    tasks = await started(Gathered(doubling, for_a_turn=True), 1, 2, 3)
    doubling.go_on.set()
    assert [await task for task in tasks] == [2, 4, 6]
    assert doubling.calls == [[1, 2, 3]]


async def test_the_fault_of_one_caller_does_not_affect_the_others() -> None:
    doubling = Doubling()
    first, second, unlucky, last = await started(Gathered(doubling), 1, 2, 13, 4)
    doubling.go_on.set()
    assert (await first, await second, await last) == (2, 4, 8)
    with pytest.raises(ValueError, match="unlucky"):
        await unlucky


async def test_while_the_store_is_away_no_request_is_tried_alone() -> None:
    doubling = Doubling(error=StoreUnavailable("no server"))
    first, *others = await started(Gathered(doubling), 1, 2, 13, 4)
    doubling.go_on.set()
    assert await first == 2
    for other in others:
        with pytest.raises(StoreUnavailable, match="no server"):
            await other
    assert doubling.calls == [[1], [2, 13, 4]]


async def test_a_cancelled_caller_does_not_cancel_the_others() -> None:
    doubling = Doubling()
    first, second, third = await started(Gathered(doubling), 1, 2, 3)
    first.cancel()
    second.cancel()
    assert await third == 6
    assert doubling.calls == [[1], [3]]
