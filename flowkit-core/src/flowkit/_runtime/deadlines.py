"""Retries during outages, waits with a time limit, and keys up to a limit."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from flowkit._runtime.backoff import retry
from flowkit._runtime.outage_notices import notices_of
from flowkit.clock import SystemClock
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.protocols import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]], *, clock: Clock, what: str) -> T:
    """Return the result of a call, which is repeated while the bus or the store is unavailable.

    Args:
        call: It must be harmless to repeat.
        clock: Measures the pauses.
        what: The purpose of the call in log lines: "The worker cannot {what}".
    """
    notices = notices_of(clock)

    def log(error: Exception) -> None:
        notices.trouble(logger, what, f"The worker cannot {what}", error, action="worker_retries")

    outcome = await retry(call, on=_is_unavailable, sleep=clock.sleep, on_retry=log)
    if notices.open:
        notices.over(logger, what)
    return outcome


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, BusUnavailable | StoreUnavailable)


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


class Recent(OrderedDict[object, None]):
    """The most recently added keys, up to a limit."""

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def add(self, key: object) -> None:
        self[key] = None
        if len(self) > self._limit:
            self.popitem(last=False)
