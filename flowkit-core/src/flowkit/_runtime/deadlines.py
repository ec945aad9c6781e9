"""Waiting: for an event or the clock, or for a service to come back."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from flowkit._runtime.backoff import Backoff
from flowkit._runtime.outage_notices import notices_of
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.protocols import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def patiently(call: Callable[[], Awaitable[T]], *, clock: Clock, what: str) -> T:
    """Call until the bus or the store answers. What is called must be harmless to repeat."""
    backoff, notices = Backoff(), notices_of(clock)
    while True:
        try:
            outcome = await call()
        except (BusUnavailable, StoreUnavailable) as error:
            notices.trouble(
                logger, what, f"The worker cannot {what}", error, action="worker_retries"
            )
            await clock.sleep(backoff.next_sec())
        else:
            notices.over(logger, what)
            return outcome


async def within(seconds: float, wait: Callable[[], Awaitable[object]], *, clock: Clock) -> bool:
    """Await ``wait()``, but no longer than ``seconds`` by the clock; return whether it returned in
    time.

    Its errors are raised as they are.
    """
    done, failure = False, None
    async with anyio.create_task_group() as group:

        async def expire() -> None:
            await clock.sleep(seconds)
            group.cancel_scope.cancel()

        group.start_soon(expire)
        try:
            await wait()
            done = True
        except Exception as error:
            failure = error  # raised outside of the group, which would wrap it
        group.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return done


class Signal:
    """An event that can be raised again and again; raising it twice before it is seen counts once.
    One task waits for it.
    """

    __slots__ = ("_event", "_raised")

    def __init__(self) -> None:
        self._event: asyncio.Event | None = None
        self._raised = False

    def set(self) -> None:
        if not self._raised:
            self._raised = True
            if self._event is not None:
                self._event.set()

    async def wait(self) -> None:
        """Return when it was raised since the last wait, and lower it."""
        if not self._raised:
            self._event = asyncio.Event()
            try:
                await self._event.wait()
            finally:
                self._event = None
        self._raised = False


class Recent:
    """The last few keys that were added."""

    __slots__ = ("_keys", "_limit")

    def __init__(self, limit: int) -> None:
        self._keys: OrderedDict[object, None] = OrderedDict()
        self._limit = limit

    def add(self, key: object) -> None:
        self._keys[key] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)

    def __contains__(self, key: object) -> bool:
        return key in self._keys
