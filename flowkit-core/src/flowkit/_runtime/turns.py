"""Turns of the event loop that long work gives to other tasks."""

import asyncio
import time

import anyio.lowlevel

YIELD_EVERY_SEC = 0.005


class Turns:
    """Gives turns of the event loop to other tasks, from code that may run long without a pause."""

    def __init__(self, *, least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._given_at = float("-inf")

    async def give(self) -> None:
        """Let other tasks run, unless they got turns in the last 5 ms.

        The longer the loop was busy, the more turns are given, up to ``most``: an exchange with a
        server needs several.
        """
        now = time.monotonic()
        busy_sec = now - self._given_at
        if busy_sec <= YIELD_EVERY_SEC:
            return
        self._given_at = now
        turns = int(min(max(busy_sec / YIELD_EVERY_SEC, self._least), self._most))
        if turns == 1:
            await anyio.lowlevel.checkpoint()
            return
        # The task is resumed once, at the end: each resumption runs through all coroutines that
        # wait for this one.
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        loop.call_soon(_count_down, loop, over, turns - 1)
        await over


def _count_down(loop: asyncio.AbstractEventLoop, over: "asyncio.Future[None]", turns: int) -> None:
    if turns > 1:
        loop.call_soon(_count_down, loop, over, turns - 1)
    elif not over.done():
        over.set_result(None)
