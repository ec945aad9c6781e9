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
    """Start a call for the first item, and ask for the others while it is on its way."""
    tasks = []
    for some in (items[:1], items[1:]):
        tasks += [asyncio.create_task(gathered(item)) for item in some]
        for _ in range(2):
            await anyio.lowlevel.checkpoint()
    return tasks


async def test_a_single_caller_is_served_in_the_next_turn() -> None:
    doubling = Doubling()
    await started(Gathered(doubling), 4)
    assert doubling.calls == [[4]]


async def test_what_comes_in_the_same_turn_goes_together() -> None:
    doubling = Doubling()
    doubling.go_on.set()
    gathered = Gathered(doubling)
    assert await asyncio.gather(*(gathered(item) for item in (1, 2, 3))) == [2, 4, 6]
    assert doubling.calls == [[1, 2, 3]]


async def test_a_cancelled_first_caller_does_not_cancel_those_of_the_same_turn() -> None:
    doubling = Doubling()
    doubling.go_on.set()
    gathered = Gathered(doubling)
    first, second = [asyncio.create_task(gathered(item)) for item in (1, 2)]
    await anyio.lowlevel.checkpoint()
    first.cancel()
    assert await second == 4
    assert doubling.calls == [[2]]


async def test_what_comes_while_a_call_is_on_its_way_goes_together() -> None:
    doubling = Doubling()
    tasks = await started(Gathered(doubling), 1, 2, 3, 4)
    doubling.go_on.set()
    assert [await task for task in tasks] == [2, 4, 6, 8]
    assert doubling.calls == [[1], [2, 3, 4]]


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
