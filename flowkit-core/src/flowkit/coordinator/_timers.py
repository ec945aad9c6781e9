"""Timers of tasks, and the sweep for tasks that are overdue."""

import heapq
from collections.abc import Awaitable, Callable, Collection

import anyio

from flowkit.protocols import Clock, Store

Wake = Callable[[Collection[str]], Awaitable[None]]
MOST_AT_ONCE = 500


class Timers:
    """Wake-up times of the tasks in memory."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heap: list[tuple[float, str]] = []
        self._earlier = anyio.Event()

    def add(self, task_id: str, at: float) -> None:
        """Schedule a wake-up of a task. Earlier ones stay: a wake-up too many is harmless."""
        if not self._heap or at < self._heap[0][0]:
            self._earlier.set()
        heapq.heappush(self._heap, (at, task_id))

    async def run(self, wake: Wake) -> None:
        """Wake each task when its time has come."""
        while True:
            self._earlier = anyio.Event()
            now = self._clock.now()
            due: dict[str, None] = {}
            while self._heap and self._heap[0][0] <= now:
                due[heapq.heappop(self._heap)[1]] = None
            if due:
                await wake(due)
                continue
            if not self._heap:
                await self._earlier.wait()
                continue
            async with anyio.create_task_group() as group:
                group.start_soon(self._cancel_when_earlier, group.cancel_scope)
                await self._clock.sleep(self._heap[0][0] - now)
                group.cancel_scope.cancel()

    async def _cancel_when_earlier(self, scope: anyio.CancelScope) -> None:
        await self._earlier.wait()
        scope.cancel()


async def sweep(store: Store, clock: Clock, tick_sec: float, wake: Wake) -> None:
    """Wake tasks that no coordinator woke when they were due, now and after each tick."""
    while True:
        await _wake_overdue(store, clock.now() - tick_sec, wake)
        await clock.sleep(tick_sec)


async def _wake_overdue(store: Store, before: float, wake: Wake) -> None:
    """Wake each task once. A quarantined task stays due, and does not hide the others."""
    woken: set[str] = set()
    still_due = 0
    while True:
        limit = MOST_AT_ONCE + still_due
        task_ids = await store.due(before=before, limit=limit)
        fresh = [task_id for task_id in task_ids if task_id not in woken]
        still_due = len(task_ids) - len(fresh)
        if fresh:
            await wake(fresh)
            woken.update(fresh)
        if len(task_ids) < limit:
            return
