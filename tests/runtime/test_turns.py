"""Turns of the event loop that long work gives to other tasks."""

import asyncio

import pytest

from flowkit._runtime.concurrency import Turns


def counted_turns() -> list[int]:
    """Return a list to which the event loop adds a number in each of its next ten turns."""
    loop, turns = asyncio.get_running_loop(), []

    def count() -> None:
        turns.append(len(turns) + 1)
        if len(turns) < 10:
            loop.call_soon(count)

    loop.call_soon(count)
    return turns


@pytest.mark.parametrize("number", [1, 2, 4])
async def test_a_task_continues_after_the_turns_that_it_gives(number: int) -> None:
    turns = counted_turns()
    await Turns(least=number, most=number).give()
    assert turns == list(range(1, number + 1))


async def test_a_task_that_was_cancelled_while_it_gave_turns_leaves_no_error() -> None:
    errors = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    giving = asyncio.create_task(Turns(least=4, most=4).give())
    await asyncio.sleep(0)
    giving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving
    for _ in range(5):
        await asyncio.sleep(0)
    assert errors == []
