"""Clocks of a running process: the system's, and that of the store's server."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import anyio

from flowkit.protocols import ServerClock, Store, utc

logger = logging.getLogger(__name__)

MEASURE_EVERY_SEC = 30.0
LONGEST_ANSWER_SEC = 1.0
"""A measurement that took longer is too inexact to replace an earlier one."""
NOTABLE_SEC = 5.0


class SystemClock:
    """The :class:`~flowkit.protocols.Clock` of the operating system."""

    def now(self) -> float:
        return time.time()

    def now_dt(self) -> datetime:
        return utc(self.now())

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(seconds, 0))


def uptime() -> float:
    """Return the seconds since the machine started.

    They include the time in which the machine slept, if the system counts it.
    """
    return (
        time.clock_gettime(time.CLOCK_BOOTTIME)
        if hasattr(time, "CLOCK_BOOTTIME")
        else time.monotonic()
    )


class StoreClock(SystemClock):
    """Clock of a store's server, for a process that keeps its tasks in that store.

    Processes compare their time with times that other processes stored, so all of them use the
    clock of the server. The clock is measured regularly. Between two measurements it advances with
    a counter that cannot be set, so a wrong wall clock, or one that jumps, has no effect. Before
    the first measurement, and for a store without a clock, the system's clock is used.
    """

    def __init__(self, *, uptime: Callable[[], float] = uptime) -> None:
        self._uptime = uptime
        self._offset: float | None = None
        """Add this to ``uptime`` to get the time."""
        self._is_off = False

    @property
    def is_measured(self) -> bool:
        """Whether the time is that of the store's server, on which all processes agree."""
        return self._offset is not None

    def now(self) -> float:
        return time.time() if self._offset is None else self._uptime() + self._offset

    @asynccontextmanager
    async def following(self, store: Store) -> AsyncIterator[None]:
        """Measure the clock of this store's server, if it has one, at the start and then regularly.

        Raises:
            StoreUnavailable: the server did not answer.
        """
        if not isinstance(store, ServerClock):
            yield
            return
        await self.measure(store)
        measuring = asyncio.create_task(self._keep_measuring(store))
        try:
            yield
        finally:
            measuring.cancel()
            await asyncio.wait({measuring})

    async def measure(self, server: ServerClock) -> None:
        """Compare with the server's clock.

        Raises:
            StoreUnavailable: the server did not answer.
        """
        asked = self._uptime()
        at = await server.server_time()
        took = self._uptime() - asked
        if self._offset is None or took <= LONGEST_ANSWER_SEC:
            self._offset = at - asked - took / 2
            self._log_difference(time.time() - self.now())

    async def _keep_measuring(self, server: ServerClock) -> None:
        """Measure regularly. While the server does not answer, keep the last measurement."""
        while True:
            await self.sleep(MEASURE_EVERY_SEC)
            try:
                await self.measure(server)
            except Exception as error:
                logger.debug("The clock of the store cannot be measured: %s", error)

    def _log_difference(self, ahead_sec: float) -> None:
        """Log when the system's clock becomes wrong, and when it is right again."""
        is_off = abs(ahead_sec) >= NOTABLE_SEC
        if is_off and not self._is_off:
            logger.warning(
                "This machine's clock is %.0f s %s the store's, which is used instead: let NTP"
                " set it",
                abs(ahead_sec),
                "ahead of" if ahead_sec > 0 else "behind",
                extra={"action": "clock_wrong"},
            )
        elif self._is_off and not is_off:
            logger.info(
                "This machine's clock agrees with the store's again",
                extra={"action": "clock_right"},
            )
        self._is_off = is_off
