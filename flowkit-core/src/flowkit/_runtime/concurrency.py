"""Concurrency: waits with a time limit, recent items, turns for other tasks, batched calls."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence, Sized
from typing import Generic, TypeVar

import anyio.lowlevel

from flowkit.clock import SystemClock
from flowkit.errors import StoreUnavailable
from flowkit.protocols import Clock

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")
R = TypeVar("R")

YIELD_EVERY_SEC = 0.005
MOST_AT_ONCE = 500
"""Most calls in a batch."""


async def within(seconds: float, wait: Callable[[], Awaitable[object]], *, clock: Clock) -> bool:
    """Wait for at most ``seconds`` by the clock. Return whether the wait ended in time."""
    done = False
    with anyio.CancelScope() as scope:
        timer = _timer(seconds, scope, clock)
        try:
            await wait()
            done = True
        finally:
            timer.cancel()
            if isinstance(timer, asyncio.Task):
                with anyio.CancelScope(shield=True):
                    await asyncio.wait({timer})
    return done


def _timer(
    seconds: float, scope: anyio.CancelScope, clock: Clock
) -> "asyncio.TimerHandle | asyncio.Task[None]":
    """Return a timer that cancels the scope when the time by this clock is over."""
    if type(clock).sleep is SystemClock.sleep:
        # It sleeps by the time of the event loop, whose timers need no task.
        return asyncio.get_running_loop().call_later(max(seconds, 0), scope.cancel)
    # A task of asyncio, because a task of an anyio group that is cancelled before its first step
    # warns that its coroutine was never awaited.
    return asyncio.create_task(_expire(seconds, scope, clock))


async def _expire(seconds: float, scope: anyio.CancelScope, clock: Clock) -> None:
    await clock.sleep(seconds)
    scope.cancel()


class Recent(OrderedDict[K, V]):
    """The most recently set items, up to a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self._limit:
            self.popitem(last=False)


# ---------------------------------------------------------------- turns for other tasks


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


# ---------------------------------------------------------------- batching of calls


async def all_arrived(waiting: Sized) -> None:
    """Give turns of the event loop as long as items arrive: tasks that start one after the other
    each add an item in a turn of their own.
    """
    known = 0
    while known < len(waiting) < MOST_AT_ONCE:
        known = len(waiting)
        await asyncio.sleep(0)


class Gathered(Generic[T, R]):
    """Batch requests that arrive in one turn of the event loop, or during a call, into one call.

    A single caller is served in the next turn. If a batched call fails, each of its items is tried
    separately, so that one item cannot fail the others: the call must be harmless to repeat. If the
    store is unavailable, all callers get that error at once.
    """

    def __init__(self, call: Callable[[list[T]], Awaitable[Sequence[R]]]) -> None:
        """Take ``call``, which takes items and returns an answer for each."""
        self._call = call
        self._busy = False
        self._waiting: list[tuple[T, asyncio.Future[R]]] = []
        self._draining: asyncio.Task[None] | None = None

    async def __call__(self, item: T) -> R:
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        if self._busy:
            self._waiting.append((item, answer))
            return await answer
        self._busy = True
        try:
            await asyncio.sleep(0)  # Others may ask in this turn.
            if not self._waiting:
                return (await self._call([item]))[0]
            self._waiting.insert(0, (item, answer))
        finally:
            self._busy = bool(self._waiting)
            if self._busy:
                # The reference keeps the task from being collected.
                self._draining = asyncio.create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        try:
            while self._waiting:
                now, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                wanted = [(item, answer) for item, answer in now if not answer.done()]
                await self._serve(wanted)
        finally:
            self._busy = False
            for _, answer in self._waiting:
                answer.cancel()

    async def _serve(self, wanted: list[tuple[T, asyncio.Future[R]]]) -> None:
        try:
            found = await self._call([item for item, _ in wanted])
        except Exception as error:
            # If the store is unavailable, no item is at fault, and each would wait as long again.
            if len(wanted) == 1 or isinstance(error, StoreUnavailable):
                for _, answer in wanted:
                    _settle(answer, error)
            else:
                for one in wanted:
                    await self._serve([one])
            return
        except asyncio.CancelledError:
            for _, answer in wanted:
                answer.cancel()
            raise
        for (_, answer), value in zip(wanted, found, strict=True):
            if not answer.done():
                answer.set_result(value)


def _settle(answer: "asyncio.Future[R]", error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)
