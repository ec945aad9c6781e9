"""Slots: tasks that run commands, one after the other, the most urgent first."""

import asyncio
from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Protocol

import anyio
from anyio.abc import TaskGroup


class Runnable(Protocol):
    """What a slot runs."""

    @property
    def priority(self) -> int: ...

    async def execute(self) -> None: ...


class Slots:
    """At most ``limit`` runs at a time.

    A slot is a task that lives on from run to run, so that a run needs neither a task nor a cancel scope of its own; only a run that is
    cut off takes its slot with it. At most one idle slot is on its way at a time: work that ends without waiting is done by one slot.
    """

    def __init__(self, group: TaskGroup, limit: int) -> None:
        self._group = group
        self._limit = limit
        self._queue: list[tuple[int, int, Runnable]] = []
        self._order = count()
        self._idle: list[asyncio.Event] = []
        self._scopes: dict[Runnable, anyio.CancelScope] = {}
        self._slots = 0
        self._waking = False
        self._watchers: list[anyio.Event] = []

    @property
    def running(self) -> int:
        return len(self._scopes)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def free(self) -> int:
        """How many more could begin at once."""
        return max(0, self._limit - len(self._scopes) - len(self._queue))

    def submit(self, run: Runnable) -> None:
        heappush(self._queue, (-run.priority, next(self._order), run))
        self._wake_one()

    def withdraw(self, which: Callable[[Runnable], bool] = lambda run: True) -> list[Runnable]:
        """Take back those that have not begun."""
        taken = [run for _, _, run in self._queue if which(run)]
        self._queue = [item for item in self._queue if not which(item[2])]
        heapify(self._queue)
        self._tell_watchers()
        return taken

    def is_running(self, run: Runnable) -> bool:
        return run in self._scopes

    def cut_off(self, run: Runnable) -> None:
        """Cancel what a run awaits, and end it."""
        scope = self._scopes.get(run)
        if scope is not None:
            scope.cancel()

    async def wait_until(self, condition: Callable[["Slots"], bool]) -> None:
        """Return when this holds."""
        while not condition(self):
            event = anyio.Event()
            self._watchers.append(event)
            await event.wait()

    def _tell_watchers(self) -> None:
        for event in self._watchers:
            event.set()
        self._watchers.clear()

    def _wake_one(self) -> None:
        if self._waking:
            return
        if self._idle:
            self._waking = True
            self._idle.pop().set()
        elif self._slots < self._limit:
            self._waking = True
            self._slots += 1
            self._group.start_soon(self._slot)

    async def _slot(self) -> None:
        with anyio.CancelScope() as scope:
            self._waking = False
            while not scope.cancel_called:
                if self._queue:
                    await self._run_next(scope)
                else:
                    gate = asyncio.Event()
                    self._idle.append(gate)
                    await gate.wait()
                    self._waking = False
        self._slots -= 1
        if self._queue:
            self._wake_one()

    async def _run_next(self, scope: anyio.CancelScope) -> None:
        run = heappop(self._queue)[2]
        self._scopes[run] = scope
        if self._queue:
            self._wake_one()
        try:
            await run.execute()
        finally:
            del self._scopes[run]
            self._tell_watchers()
