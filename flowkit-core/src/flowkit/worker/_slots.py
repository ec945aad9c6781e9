"""Slots: tasks that execute runs one after the other, by priority.

A run that waits for other runs gives up its slot meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Any, Protocol, Self

import anyio

from flowkit._user_code.containment import error_text
from flowkit._user_code.foreign_contexts import contain_tasks, in_context

logger = logging.getLogger(__name__)

REST_AFTER_SEC = 0.1
"""Time after which a run that waits for other runs gives up its slot: a run that has not started
takes no slot during a short wait. One that has waited and wants to go on gets it at once.
"""
CLOSE_SEC = 5.0
"""Time for cancelled runs to clean up when the worker ends."""


_REQUESTED, _RETURNS, _STARTS = range(3)
"""Ranks of runs of the same priority that want a slot: those that this worker has requested from
others, those that have started, and the rest.
"""


class Runnable(Protocol):
    """A run that a slot executes."""

    priority: int

    async def execute(self, slot: "Slot") -> "Runnable | None":
        """Run to the end and report it. Return the run that the slot executes right after this one,
        if there is one.

        When ``slot.leaving()`` returns True, the worker ends and cancels its runs: then this may
        raise.
        """

    def cut_off(self) -> None:
        """Record that the slot cancels the task of this run."""

    def broke(self, error: BaseException) -> None:
        """Report the end, unless it is reported, of a run whose :meth:`execute` raised an error."""


class Slot:
    """The slot of one run. The run gives it up while none of its parts is at work, and has it back
    before a part goes on.

    A part is any object that names work of the run, such as one of the batches that it processes at
    the same time.
    """

    __slots__ = ("_at_work", "_back", "_paused", "_slots", "is_held", "is_over", "priority", "task")

    def __init__(self, slots: "Slots", priority: int, task: "asyncio.Task[None]") -> None:
        self.priority = priority
        self.task = task
        self.is_held = True
        """Whether the parts of the run may be at work."""
        self.is_over = False
        """Whether the run has ended or is abandoned. Its parts wait for no slot then."""
        self._slots = slots
        self._at_work: set[object] = set()
        self._paused: set[object] = set()
        self._back: asyncio.Event | None = None

    def leaving(self) -> bool:
        """Return whether the worker ends and cancels this run."""
        return self._slots.is_leaving(self.task)

    def work(self, part: object) -> bool:
        """Note that a part goes on. Return whether the slot is held: otherwise the part has to wait
        until it is.
        """
        self._at_work.add(part)
        if self._paused:
            self._paused.discard(part)
            self._slots.keep(self)
        if not self.is_held and self._back is None:
            self._back = asyncio.Event()
            self._slots.take_back(self)
        return self.is_held

    def pause(self, part: object) -> None:
        """Note that a part waits for other runs, perhaps only for a moment. If no part is at work,
        the run keeps its slot until another run that has waited wants to go on.
        """
        self._at_work.discard(part)
        self._paused.add(part)
        self._release()

    def rest(self, part: object) -> None:
        """Note that a part waits for other runs, or has ended. The run gives its slot up if no part
        is at work or pauses.
        """
        self._at_work.discard(part)
        self._paused.discard(part)
        self._release()

    def _release(self) -> None:
        if self._at_work or self.is_over:
            return
        if self._paused and self.is_held:
            self._slots.offer(self)
        elif self.is_held or self._back is not None:
            self._back = None
            self._slots.give_up(self)

    async def wait_held(self) -> None:
        """Return when the run has its slot back."""
        if self._back is not None:
            await self._back.wait()

    def hold(self) -> None:
        """Let the parts of the run go on."""
        self.is_held = True
        if self._back is not None:
            self._back.set()
            self._back = None


class Slots:
    """At most ``limit`` runs at work at a time, beside up to ``limit`` abandoned ones.

    Each further abandoned run costs a slot. Runs that wait for other runs hold no slot, and their
    number has no limit: with one, waiting runs could keep those that they wait for from starting.
    A run that goes on gets a slot before runs of the same priority that have not started. It gets
    the slot of a run that pauses at once.

    A slot is a task that executes many runs, so that a run needs no task and no cancel scope of its
    own. Only a run that is cut off ends its task. At most one idle task is being woken at a time:
    runs that end without waiting are all executed by one task. While a run waits for others, its
    task waits with it, and another task has its place.

    Each run starts in a fresh copy of the worker's context: the context variables that it sets end
    with it.

    The slots are in no task group, because a task group would wait for runs that never end. Leaving
    the slots cancels them, and waits for them up to ``CLOSE_SEC``.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.capacity = limit
        """The number of runs that are allowed at a time."""
        self._reserved = 0
        self._queue: list[tuple[int, int, int, Runnable]] = []
        self._order = count()
        self._idle: list[asyncio.Event] = []
        self._begun: dict[Runnable, Slot] = {}
        """The runs that have started and neither ended nor been abandoned."""
        self._given_up: set[Slot] = set()
        """Slots of these that are not held."""
        self._returning: list[tuple[int, int, int, Slot]] = []
        """Slots of these whose runs want to go on."""
        self._offered: dict[Slot, None] = {}
        """Slots that are held by runs that pause, and go to runs that want to go on."""
        self._abandoned: dict[Runnable, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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
        for task in (*self._tasks, *self._abandoned.values()):
            task.cancel()
        if self._tasks and (await asyncio.wait(self._tasks, timeout=CLOSE_SEC))[1]:
            logger.warning("Runs ignore their cancellation", extra={"action": "runs_left"})

    @property
    def running(self) -> int:
        """The number of runs that hold a slot."""
        return len(self._begun) - len(self._given_up)

    @property
    def resting(self) -> int:
        """The number of runs that have given up their slot, because they wait for other runs."""
        return len(self._given_up)

    @property
    def is_idle(self) -> bool:
        """Whether all runs have ended or are abandoned."""
        return not self._begun and not self._queue

    @property
    def abandoned(self) -> int:
        """The number of abandoned runs that have not ended."""
        return len(self._abandoned)

    @property
    def free(self) -> int:
        """The number of runs that can start now."""
        return max(0, self.capacity - self._wanted)

    @property
    def excess(self) -> int:
        """The number of runs above the capacity that hold, have reserved or want a slot."""
        return max(0, self._wanted - self.capacity)

    @property
    def _wanted(self) -> int:
        return self.running + self._reserved + len(self._returning) + len(self._queue)

    @property
    def _has_room(self) -> bool:
        return self.running + self._reserved < self.capacity

    def is_wanted(self, priority: int) -> bool:
        """Return whether a run of a higher priority waits for a slot."""
        return any(
            bool(waiting) and -waiting[0][0] > priority
            for waiting in (self._queue, self._returning)
        )

    def submit(self, run: Runnable, *, was_requested: bool = False) -> None:
        """Queue a run. One that was requested from another worker is the first of its priority."""
        rank = _REQUESTED if was_requested else _STARTS
        heappush(self._queue, (-run.priority, rank, next(self._order), run))
        self._wake_one()

    def reserve(self, count: int) -> None:
        """Keep so many slots free for runs that are on their way."""
        self._reserved += count

    def release(self, count: int) -> None:
        """Keep so many slots less."""
        self._reserved -= count
        self._changed()
        self._wake_one()

    @property
    def waiting(self) -> list[Runnable]:
        """The runs that have not started, the most urgent first."""
        return [run for *_, run in sorted(self._queue)]

    def withdraw(
        self, which: Callable[[Any], bool] | None = None, *, most: int | None = None
    ) -> list[Runnable]:
        """Remove and return runs that have not started: all, or at ``most`` so many of those that
        ``which`` selects, the most urgent first.
        """
        found = [run for run in self.waiting if which is None or which(run)]
        taken = dict.fromkeys(found[:most])
        self._queue = [item for item in self._queue if item[-1] not in taken]
        heapify(self._queue)
        self._changed()
        return list(taken)

    def has_begun(self, run: Runnable) -> bool:
        """Return whether a run has started, and neither ended nor been abandoned."""
        return run in self._begun

    def cut_off(self, run: Runnable) -> None:
        """Cancel the task of a run.

        This is done once: a second cancellation would interrupt its cleanups.
        """
        slot = self._begun.get(run)
        if slot is not None and run not in self._cut_off:
            self._cut_off.add(run)
            run.cut_off()
            slot.task.cancel()

    def is_leaving(self, task: "asyncio.Task[None]") -> bool:
        """Return whether the worker ends and cancels this task.

        Code that cancels all tasks of the event loop cancels the owner too.
        """
        return self._closed or (
            task.cancelling() > 0 and self._owner is not None and self._owner.cancelling() > 0
        )

    def abandon(self, run: Runnable) -> None:
        """Stop waiting for a run that ignores its cancellation."""
        slot = self._begun.get(run)
        if slot is not None:
            self._abandoned[run] = slot.task
            self._tasks.discard(slot.task)
            self._forget(run, slot)
            self._changed()
            self._wake_one()

    # ------------------------------------------------ runs that wait for others

    def give_up(self, slot: Slot) -> None:
        """Let other runs have a slot that is held or wanted back."""
        self._leave_line(slot)
        self.keep(slot)
        slot.is_held = False
        self._given_up.add(slot)
        self._changed()
        self._wake_one()

    def take_back(self, slot: Slot) -> None:
        """Give a slot back to its run as soon as one is free: see :meth:`Slot.wait_held`."""
        heappush(self._returning, (-slot.priority, _RETURNS, next(self._order), slot))
        self._changed()
        self._take_offered()

    def offer(self, slot: Slot) -> None:
        """Give a slot that is held to the next run that wants to go on, unless the priority of that
        run is lower.
        """
        self._offered[slot] = None
        self._take_offered()

    def keep(self, slot: Slot) -> None:
        """Offer a slot no more."""
        self._offered.pop(slot, None)

    def _take_offered(self) -> None:
        while self._returning:
            priority = -self._returning[0][0]
            offered = next((slot for slot in self._offered if slot.priority <= priority), None)
            if offered is None:
                return
            self.give_up(offered)

    def _give_back(self) -> None:
        while self._returning and self._has_room:
            if self._queue and self._queue[0][:2] < self._returning[0][:2]:
                return
            slot = heappop(self._returning)[-1]
            self._given_up.discard(slot)
            slot.hold()

    def _forget(self, run: Runnable, slot: Slot) -> None:
        """Take a run that has ended, or is abandoned, out of the tables."""
        self._begun.pop(run, None)
        self.keep(slot)
        slot.is_over = True
        if slot in self._given_up:
            slot.hold()
            self._given_up.discard(slot)
            self._leave_line(slot)

    def _leave_line(self, slot: Slot) -> None:
        self._returning = [item for item in self._returning if item[-1] is not slot]
        heapify(self._returning)

    # ------------------------------------------------ tasks

    async def wait_until(self, condition: Callable[["Slots"], bool]) -> None:
        """Return when the condition is true."""
        while not condition(self):
            event = anyio.Event()
            self._watchers.append(event)
            await event.wait()

    def _changed(self) -> None:
        """Compute the capacity, let runs go on that want their slot back, and wake the tasks that
        wait for a condition.
        """
        self.capacity = self._limit - max(0, len(self._abandoned) - self._limit)
        if self._returning:
            self._give_back()
        for event in self._watchers:
            event.set()
        self._watchers.clear()

    @property
    def _may_start(self) -> bool:
        """Whether a run waits for its start and a slot is free."""
        return bool(self._queue) and self._has_room

    def _wake_one(self) -> None:
        """Let a task execute the next run, if it may start."""
        if self._waking or not self._may_start:
            return
        self._waking = True
        if self._idle:
            self._idle.pop().set()
        else:
            asyncio.create_task(self._work(), name="flowkit slot")  # noqa: RUF006 - it adds itself to the tasks

    async def _work(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        self._waking = False
        self._tasks.add(me)
        try:
            while me in self._tasks and not me.cancelling() and not self._closed:
                if self._may_start:
                    await self._run_next(me)
                elif len(self._tasks) > self.capacity + len(self._given_up):
                    return  # it had the place of a run that waited for others
                else:
                    await self._wait_for_work()
        finally:
            self._tasks.discard(me)
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
        first = heappop(self._queue)[-1]
        self._begun[first] = Slot(self, first.priority, me)
        if self._queue:
            self._wake_one()
        run: Runnable | None = first
        while run is not None:
            run = await self._execute(run, self._begun[run])

    async def _execute(self, run: Runnable, slot: Slot) -> Runnable | None:
        """Execute a run, and return the one that follows it in the same task."""
        following = None
        try:
            following = await in_context(run.execute(slot), self._context.copy())
        except BaseException as error:
            if issubclass(type(error), asyncio.CancelledError) and slot.leaving():
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
        finally:
            self._forget(run, slot)
            self._abandoned.pop(run, None)
            self._cut_off.discard(run)
            if following is not None:  # it has the place of this run before any other gets it
                self._begun[following] = Slot(self, following.priority, slot.task)
            self._changed()
        return following
