"""Slots: tasks that execute runs one after the other, by priority."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol, Self

import anyio

from flowkit._user_code.containment import error_text
from flowkit._user_code.foreign_contexts import contain_tasks, in_context

logger = logging.getLogger(__name__)

CLOSE_SEC = 5.0
"""Time for cancelled runs to clean up when the worker ends."""


class Runnable(Protocol):
    """A run that a slot executes."""

    priority: int

    async def execute(self, leaving: Callable[[], bool]) -> "Runnable | None":
        """Run to the end and report it. Return the run that the slot executes right after this one,
        if there is one.

        When ``leaving`` returns True, the worker ends and cancels its runs: then this may raise.
        """

    def cut_off(self) -> None:
        """Record that the slot cancels the task of this run."""

    def broke(self, error: BaseException) -> None:
        """Report the end, unless it is reported, of a run whose :meth:`execute` raised an error."""


class Slots:
    """At most ``limit`` runs at a time, beside up to ``limit`` abandoned ones.

    Each further abandoned run costs a slot.

    A slot is a task that executes many runs, so that a run needs no task and no cancel scope of its
    own. Only a run that is cut off ends its slot. At most one idle slot is being woken at a time:
    runs that end without waiting are all executed by one slot.

    Each run starts in a fresh copy of the worker's context: the context variables that it sets end
    with it.

    The slots are in no task group, because a task group would wait for runs that never end. Leaving
    the slots cancels them, and waits for them up to ``CLOSE_SEC``.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.capacity = limit
        """The number of runs that are allowed at a time."""
        self._queue: list[tuple[int, int, Runnable]] = []
        self._order = count()
        self._idle: list[asyncio.Event] = []
        self._tasks: dict[Runnable, asyncio.Task[None]] = {}
        self._abandoned: dict[Runnable, asyncio.Task[None]] = {}
        self._slots: set[asyncio.Task[None]] = set()
        self._cut_off: set[Runnable] = set()
        self._waking = False
        self._watchers: list[anyio.Event] = []
        self._context = copy_context()
        self._owner: asyncio.Task[Any] | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        self._owner = asyncio.current_task()
        contain_tasks(asyncio.get_running_loop())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._queue.clear()
        self._closed = True
        for task in (*self._slots, *self._abandoned.values()):
            task.cancel()
        if self._slots and (await asyncio.wait(self._slots, timeout=CLOSE_SEC))[1]:
            logger.warning("Runs ignore their cancellation", extra={"action": "runs_left"})

    @property
    def running(self) -> int:
        return len(self._tasks)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def abandoned(self) -> int:
        """The number of abandoned runs that have not ended."""
        return len(self._abandoned)

    @property
    def free(self) -> int:
        """The number of runs that can start now."""
        return max(0, self.capacity - len(self._tasks) - len(self._queue))

    @property
    def excess(self) -> int:
        """The number of submitted runs above the capacity."""
        return max(0, len(self._tasks) + len(self._queue) - self.capacity)

    def is_wanted(self, priority: int) -> bool:
        """Return whether a run of a higher priority waits for a slot."""
        return bool(self._queue) and -self._queue[0][0] > priority

    def submit(self, run: Runnable) -> None:
        heappush(self._queue, (-run.priority, next(self._order), run))
        self._wake_one()

    @property
    def waiting(self) -> list[Runnable]:
        """The runs that have not started, the most urgent first."""
        return [run for _, _, run in sorted(self._queue)]

    def withdraw(
        self, which: Callable[[Any], bool] | None = None, *, most: int | None = None
    ) -> list[Runnable]:
        """Remove and return runs that have not started: all, or at ``most`` so many of those that
        ``which`` selects, the most urgent first.
        """
        found = [run for run in self.waiting if which is None or which(run)]
        taken = dict.fromkeys(found[:most])
        self._queue = [item for item in self._queue if item[2] not in taken]
        heapify(self._queue)
        self._changed()
        return list(taken)

    def is_running(self, run: Runnable) -> bool:
        return run in self._tasks

    def cut_off(self, run: Runnable) -> None:
        """Cancel the task of a run.

        This is done once: a second cancellation would interrupt its cleanups.
        """
        task = self._tasks.get(run)
        if task is not None and run not in self._cut_off:
            self._cut_off.add(run)
            run.cut_off()
            task.cancel()

    def _leaving(self, slot: "asyncio.Task[None]") -> bool:
        """Return whether the worker ends and cancels this slot.

        Code that cancels all tasks of the event loop cancels the owner too.
        """
        return self._closed or (
            slot.cancelling() > 0 and self._owner is not None and self._owner.cancelling() > 0
        )

    def abandon(self, run: Runnable) -> None:
        """Stop waiting for a run that ignores its cancellation."""
        task = self._tasks.pop(run, None)
        if task is not None:
            self._abandoned[run] = task
            self._slots.discard(task)
            self._changed()
            if self._queue:
                self._wake_one()

    async def wait_until(self, condition: Callable[["Slots"], bool]) -> None:
        """Return when the condition is true."""
        while not condition(self):
            event = anyio.Event()
            self._watchers.append(event)
            await event.wait()

    def _changed(self) -> None:
        """Compute the capacity, and wake the tasks that wait for a condition."""
        self.capacity = self._limit - max(0, len(self._abandoned) - self._limit)
        for event in self._watchers:
            event.set()
        self._watchers.clear()

    def _wake_one(self) -> None:
        if self._waking:
            return
        if self._idle:
            self._waking = True
            self._idle.pop().set()
        elif len(self._slots) < self.capacity:
            self._waking = True
            asyncio.create_task(self._slot(), name="flowkit slot")  # noqa: RUF006 - it adds itself to the slots

    async def _slot(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._waking = False
        self._slots.add(me)
        try:
            while me in self._slots and not me.cancelling() and not self._closed:
                if self._queue:
                    await self._run_next(me)
                else:
                    await self._wait_for_work()
        finally:
            self._slots.discard(me)
            if self._queue:
                self._wake_one()

    async def _wait_for_work(self) -> None:
        gate = asyncio.Event()
        self._idle.append(gate)
        try:
            await gate.wait()
        finally:
            if gate.is_set():
                self._waking = False
            else:
                self._idle.remove(gate)  # this slot ends: nothing wakes it

    async def _run_next(self, me: "asyncio.Task[None]") -> None:
        run: Runnable | None = heappop(self._queue)[2]
        if self._queue:
            self._wake_one()
        while run is not None:
            run = await self._execute(run, me)

    async def _execute(self, run: Runnable, me: "asyncio.Task[None]") -> Runnable | None:
        """Execute a run, and return the one that follows it in this slot."""
        self._tasks[run] = me
        try:
            return await in_context(run.execute(partial(self._leaving, me)), self._context.copy())
        except BaseException as error:
            if issubclass(type(error), asyncio.CancelledError) and self._leaving(me):
                raise
            # This includes GeneratorExit, when code awaits a future with that exception: it closes
            # the coroutine of the slot. It includes CancelledError, when code of the run cancels
            # this task later, after its last await.
            logger.error(
                "A run ended with an unexpected error: %s",
                error_text(error),
                extra={"action": "run_broken"},
            )
            run.broke(error)
            return None
        finally:
            self._tasks.pop(run, None)
            self._abandoned.pop(run, None)
            self._cut_off.discard(run)
            self._changed()
