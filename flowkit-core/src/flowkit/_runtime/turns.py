"""Turns of the event loop that long work gives to other tasks."""

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
        for _ in range(int(min(max(busy_sec / YIELD_EVERY_SEC, self._least), self._most))):
            await anyio.lowlevel.checkpoint()
