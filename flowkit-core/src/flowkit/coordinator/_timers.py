"""Wake-up times of the tasks in memory."""

from collections.abc import Awaitable, Callable, Collection
from heapq import heapify, heappop, heappush

import anyio

from flowkit.protocols import Clock

Wake = Callable[[Collection[str]], Awaitable[None]]
SLACK = 64
"""Entries that the heap may have besides two for each task."""


class Timers:
    """Next wake-up time of each task in memory.

    A replaced time leaves an entry in the heap. Such entries are removed when they are reached, or
    make up most of the heap, so the memory is proportional to the number of tasks that wait.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._next: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._earlier = anyio.Event()

    def __len__(self) -> int:
        """Number of times that are kept, replaced ones among them."""
        return len(self._heap)

    def wake(self, task_id: str, at: float | None) -> None:
        """Schedule a wake-up of a task no later than ``at``; with None, drop its wake-up. An
        earlier one stays, because a wake-up too many is harmless.
        """
        known = self._next.get(task_id)
        if at is None:
            self._next.pop(task_id, None)
        elif known is None or at < known:
            if not self._heap or at < self._heap[0][0]:
                self._earlier.set()
            self._next[task_id] = at
            heappush(self._heap, (at, task_id))
        if len(self._heap) > 2 * len(self._next) + SLACK:
            self._heap = [(at, task_id) for task_id, at in self._next.items()]
            heapify(self._heap)

    async def run(self, wake: Wake) -> None:
        """Wake each task when its time has come."""
        while True:
            self._earlier = anyio.Event()
            now = self._clock.now()
            if due := self._take_due(now):
                await wake(due)
                continue
            if not self._heap:
                await self._earlier.wait()
                continue
            async with anyio.create_task_group() as group:
                group.start_soon(self._cancel_when_earlier, group.cancel_scope)
                await self._clock.sleep(self._heap[0][0] - now)
                group.cancel_scope.cancel()

    def _take_due(self, now: float) -> list[str]:
        """Remove and return the tasks whose time has come."""
        due: list[str] = []
        while self._heap and self._heap[0][0] <= now:
            at, task_id = heappop(self._heap)
            if self._next.get(task_id) == at:
                del self._next[task_id]
                due.append(task_id)
        return due

    async def _cancel_when_earlier(self, scope: anyio.CancelScope) -> None:
        await self._earlier.wait()
        scope.cancel()
