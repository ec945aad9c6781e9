"""Slots: tasks that run commands, one after the other, the most urgent first."""

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol, Self

import anyio

from flowkit._user_code.containment import contain_tasks, error_text
from flowkit._user_code.run_contexts import in_context

logger = logging.getLogger(__name__)

CLOSE_SEC = 5.0
"""How long what is cancelled at the end may take to clean up."""


class Runnable(Protocol):
    """What a slot runs."""

    @property
    def priority(self) -> int: ...

    async def execute(self, leaving: Callable[[], bool]) -> None:
        """Run to the end and report it. ``leaving`` says whether the worker ends and cancels what
        still runs: then it may raise.
        """

    def cut_off(self) -> None:
        """Take note that the task that executes this is cancelled now."""

    def broke(self, error: BaseException) -> None:
        """Report the end of a run whose :meth:`execute` ended with this error, unless it was
        reported.
        """


class Slots:
    """At most ``limit`` runs at a time, and as many that were abandoned: each beyond that costs a
    slot.

    A slot is a task that lives on from run to run, so that a run needs neither a task nor a cancel
    scope of its own; only a run that is cut off takes its slot with it. At most one idle slot is on
    its way at a time: work that ends without waiting is done by one slot.

    Each run starts in a fresh copy of the worker's context: the context variables that it sets end
    with it.

    The slots are in no task group, as that would wait for runs that never end. Leaving the slots
    cancels them, and waits for a while.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
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
            logger.warning("Runs that do not end are left behind", extra={"action": "runs_left"})

    @property
    def running(self) -> int:
        return len(self._tasks)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def abandoned(self) -> int:
        """Runs that were given up, and have not ended."""
        return len(self._abandoned)

    @property
    def capacity(self) -> int:
        """How many may run at a time."""
        return self._limit - max(0, len(self._abandoned) - self._limit)

    @property
    def free(self) -> int:
        """How many more could begin at once."""
        return max(0, self.capacity - len(self._tasks) - len(self._queue))

    @property
    def excess(self) -> int:
        """How many have been submitted beyond what may run at a time."""
        return max(0, len(self._tasks) + len(self._queue) - self.capacity)

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
        return run in self._tasks

    def cut_off(self, run: Runnable) -> None:
        """Cancel what a run awaits. Once: a second time would cut its cleanups short, and one that
        goes on all the same stays busy.
        """
        task = self._tasks.get(run)
        if task is not None and run not in self._cut_off:
            self._cut_off.add(run)
            run.cut_off()
            task.cancel()

    def _leaving(self, slot: "asyncio.Task[None]") -> bool:
        """Return whether the worker ends and cancels this slot. Code that cancels all tasks of the
        event loop cancels the owner as well.
        """
        return self._closed or (
            slot.cancelling() > 0 and self._owner is not None and self._owner.cancelling() > 0
        )

    def abandon(self, run: Runnable) -> None:
        """Go on without a run that does not end."""
        task = self._tasks.pop(run, None)
        if task is not None:
            self._abandoned[run] = task
            self._slots.discard(task)
            self._tell_watchers()
            if self._queue:
                self._wake_one()

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
                self._idle.remove(gate)  # this slot ends, and is not to be woken

    async def _run_next(self, me: "asyncio.Task[None]") -> None:
        run = heappop(self._queue)[2]
        self._tasks[run] = me
        if self._queue:
            self._wake_one()
        try:
            await in_context(run.execute(partial(self._leaving, me)), self._context.copy())
        except BaseException as error:
            if issubclass(type(error), asyncio.CancelledError) and self._leaving(me):
                raise
            # Also GeneratorExit, where code awaited a future that has it as its exception: the
            # slot's coroutine is closed by that. Also CancelledError, where code of the run had
            # this task cancelled later, when nothing of that code was awaited any more.
            logger.error(
                "A run broke without a report: %s",
                error_text(error),
                extra={"action": "run_broken"},
            )
            run.broke(error)
        finally:
            self._tasks.pop(run, None)
            self._abandoned.pop(run, None)
            self._cut_off.discard(run)
            self._tell_watchers()
