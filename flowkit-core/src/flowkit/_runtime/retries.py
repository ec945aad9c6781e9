"""Retries with backoff, of calls and of background loops, and log lines about outages."""

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import anyio

from flowkit._user_code.containment import (
    Escaped,
    awaited,
    is_cancelled,
    loggable,
    message,
    origin,
)
from flowkit.errors import BusUnavailable, StoreUnavailable
from flowkit.protocols import Clock

logger = logging.getLogger(__name__)

T = TypeVar("T")

FIRST_PAUSE_SEC = 0.05
LONGEST_PAUSE_SEC = 5.0
EVERY_SEC = 60.0
"""Time between two log lines about one outage."""
SAME_TROUBLE_SEC = 5.0
"""An outage that returns within this time is the same one: its end and return are not logged."""


class Backoff:
    """Pauses that double up to a longest one."""

    __slots__ = ("_first", "_full_jitter", "_longest", "_next")

    def __init__(
        self,
        *,
        first_sec: float = FIRST_PAUSE_SEC,
        longest_sec: float = LONGEST_PAUSE_SEC,
        full_jitter: bool = False,
    ) -> None:
        """With ``full_jitter``, each pause is a random part of its length, so that many clients do
        not retry at the same moment.
        """
        self._next = self._first = first_sec
        self._longest = longest_sec
        self._full_jitter = full_jitter

    def reset(self) -> None:
        """Continue with the first pause."""
        self._next = self._first

    def next_sec(self) -> float:
        """Return the length of the next pause."""
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return random.uniform(0, pause) if self._full_jitter else pause


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: Callable[[Exception], bool],
    sleep: Callable[[float], Awaitable[None]],
    backoff: Backoff | None = None,
    patience_sec: float | None = None,
    monotonic: Callable[[], float] = time.monotonic,
    max_calls: int | None = None,
    on_retry: Callable[[Exception], None] | None = None,
) -> T:
    """Return the result of a call, which is repeated after each error for which ``on`` is true.

    Args:
        call: It must be harmless to repeat.
        on: Whether to call again after this error; any other error is raised.
        sleep: Pause between two calls: ``sleep`` of the clock that the caller was given.
        backoff: The lengths of the pauses.
        patience_sec: Raise the error of a call that ends so long after the start of the first one.
        monotonic: Measures ``patience_sec``: ``monotonic`` of the clock that the caller was given.
        max_calls: Raise the error of this call.
        on_retry: Called with each error before the pause that follows it.
    """
    give_up_at = math.inf if patience_sec is None else monotonic() + patience_sec
    calls = 0
    while True:
        calls += 1
        try:
            return await call()
        except Exception as error:
            is_last = calls == max_calls or monotonic() >= give_up_at
            if is_last or not on(error):
                raise
            if on_retry is not None:
                on_retry(error)
        if backoff is None:
            backoff = Backoff()
        await sleep(backoff.next_sec())


# ---------------------------------------------------------------- log lines about outages


@dataclass(slots=True)
class _Trouble:
    what: str
    since: float
    logged_at: float
    over_at: float | None = None
    announced: bool = True


class Notices:
    """Log lines about outages: at the beginning, at most once per minute, and at the end."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._troubles: dict[Hashable, _Trouble] = {}
        self.open: set[Hashable] = set()
        """Causes of the outages that are not over. If it is empty, there is no need to call
        :meth:`over`.
        """

    def trouble(
        self,
        logger: logging.Logger,
        cause: Hashable,
        what: str,
        error: object = None,
        *,
        action: str,
        level: int = logging.WARNING,
        **extra: Any,
    ) -> None:
        """Log ``what`` and the error if this cause is new, or was last logged a minute ago.

        An exception is logged with its traceback if the level is ERROR or higher.
        """
        now = self._monotonic()
        self.open.add(cause)
        trouble = self._troubles.get(cause)
        if trouble is None or (
            trouble.over_at is not None and now - trouble.over_at >= SAME_TROUBLE_SEC
        ):
            self._troubles[cause] = trouble = _Trouble(what, since=now, logged_at=now)
        else:
            if trouble.over_at is not None:
                trouble.over_at, trouble.announced = None, False
            if now - trouble.logged_at < EVERY_SEC:
                return
            trouble.logged_at, trouble.announced = now, True
        lasting = f" (for {now - trouble.since:.0f} s)" if now > trouble.since else ""
        shown = (
            ""
            if error is None
            else f": {message(origin(error)) if isinstance(error, BaseException) else error}"
        )
        traceback = (
            loggable(error) if level >= logging.ERROR and isinstance(error, BaseException) else None
        )
        logger.log(
            level,
            "%s%s%s",
            what,
            lasting,
            shown,
            exc_info=traceback,
            extra={"action": action, **extra},
        )

    def over(self, logger: logging.Logger, cause: Hashable) -> None:
        """Log the end of this trouble, if there was any."""
        if cause not in self.open:
            return
        self.open.discard(cause)
        trouble = self._troubles[cause]
        trouble.over_at = self._monotonic()
        if trouble.announced:
            lasted = trouble.over_at - trouble.since
            logger.info(
                "Over after %.0f s: %s", lasted, trouble.what, extra={"action": "trouble_over"}
            )


_of_clocks: WeakKeyDictionary[Clock, Notices] = WeakKeyDictionary()


def notices_of(clock: Clock) -> Notices:
    """Return the notices of all parts of a process that share this clock."""
    notices = _of_clocks.get(clock)
    if notices is None:
        notices = _of_clocks[clock] = Notices(clock.monotonic)
    return notices


# ---------------------------------------------------------------- retries during outages


async def patiently(call: Callable[[], Awaitable[T]], *, clock: Clock, what: str) -> T:
    """Return the result of a call, which is repeated while the bus or the store is unavailable.

    Args:
        call: It must be harmless to repeat.
        clock: Measures the pauses.
        what: The purpose of the call in log lines: "The worker cannot {what}".
    """

    def log(error: Exception) -> None:
        notices_of(clock).trouble(
            logger, what, f"The worker cannot {what}", error, action="worker_retries"
        )

    outcome = await retry(call, on=_is_unavailable, sleep=clock.sleep, on_retry=log)
    notices = _of_clocks.get(clock)
    if notices is not None and notices.open:
        notices.over(logger, what)
    return outcome


def _is_unavailable(error: Exception) -> bool:
    return isinstance(error, BusUnavailable | StoreUnavailable)


# ---------------------------------------------------------------- background loops


def owner_leaves(scope: anyio.CancelScope) -> Callable[[], bool]:
    """Return a function that tests whether the owner of the current task cancels it.

    The owner cancels ``scope``, or is the task that calls this and is cancelled itself. Any other
    cancellation comes from foreign code.
    """
    owner = asyncio.current_task()
    return lambda: (
        is_cancelled() and (scope.cancel_called or (owner is not None and owner.cancelling() > 0))
    )


async def keep_alive(
    name: str,
    loop: Callable[[], Awaitable[None]],
    *,
    clock: Clock,
    ending: Callable[[], bool],
    once: Callable[[], bool] = lambda: False,
) -> None:
    """Run a loop to its end, and restart it after a pause when it breaks.

    Args:
        name: The name of the loop in log lines.
        loop: The loop.
        clock: Measures the pauses.
        ending: Whether the owner of the loop cancels it. Nothing that the loop calls can end it.
        once: While this returns True, an error of the loop is raised and the loop not restarted.
    """
    notices = notices_of(clock)

    async def pause(seconds: float) -> None:
        with suppress(Escaped):
            await awaited(clock.sleep(seconds), ending=ending)

    def log(error: Exception) -> None:
        notices.trouble(
            logger,
            ("loop", name),
            f"The {name} loop broke and is restarted",
            error,
            action="loop_restarted",
            level=logging.ERROR,
        )

    await retry(
        lambda: awaited(loop(), ending=ending), on=lambda _: not once(), sleep=pause, on_retry=log
    )
