"""Clock that tests control."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from itertools import count

import anyio
import anyio.lowlevel

from flowkit.protocols import utc
from flowkit_testing._loop_watch import LoopWatch
from flowkit_testing._time_index import TimeIndex

DEFAULT_START = datetime(2026, 1, 1, tzinfo=UTC).timestamp()

_LOOK_SEC = 0.002
_PATIENT_ROUNDS = 100
_BLIND_ROUNDS = 20
_SETTLING_ROUNDS = 10_000


class ManualClock:
    """:class:`~flowkit.protocols.Clock` that stands still until it is advanced.

    ``await clock.advance(60)`` advances it manually. Within ``async with clock.auto():``, it
    advances to the next deadline whenever nothing else can run. So 30 days of sleep take only as
    long as the work in between.
    """

    def __init__(self, start: float | datetime = DEFAULT_START) -> None:
        """Create a clock. ``start`` is the initial value of :meth:`now`."""
        self._offset = start.timestamp() if isinstance(start, datetime) else start
        self._monotonic = 0.0
        self._numbers = count()
        self._deadlines = TimeIndex[int]()
        self._sleepers: dict[int, anyio.Event] = {}
        self._sleep_began: anyio.Event | None = None
        self._driver: asyncio.Task[None] | None = None

    def now(self) -> float:
        return self._offset + self._monotonic

    def now_dt(self) -> datetime:
        return utc(self.now())

    def monotonic(self) -> float:
        return self._monotonic

    @property
    def sleepers(self) -> int:
        """Number of tasks that sleep on this clock."""
        return len(self._sleepers)

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await anyio.lowlevel.checkpoint()
            return
        number = next(self._numbers)
        event = self._sleepers[number] = anyio.Event()
        self._deadlines.set(number, self._monotonic + seconds)
        if self._sleep_began is not None:
            self._sleep_began.set()
        try:
            await event.wait()
        finally:
            self._deadlines.set(number, None)
            self._sleepers.pop(number, None)

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator would.

        No sleeping task wakes, because :meth:`monotonic` does not change.
        """
        self._offset += seconds

    # ------------------------------------------------------------ by hand

    async def advance(self, seconds: float) -> None:
        """Advance the time, and wake sleeping tasks in the order of their deadlines.

        After each deadline, all other tasks run until they wait.
        """
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds}")
        target = self._monotonic + seconds
        await self._settle()
        while due := self._deadlines.first(1, until=target):
            self._move(due[0][0])
            await self._settle()
        self._move(target)
        await self._settle()

    async def advance_to(self, moment: float | datetime) -> None:
        """Advance the time until :meth:`now` is ``moment``."""
        await self.advance(
            (moment.timestamp() if isinstance(moment, datetime) else moment) - self.now()
        )

    def _move(self, monotonic: float) -> None:
        self._monotonic = max(self._monotonic, monotonic)
        for _, number in self._deadlines.first(len(self._deadlines), until=self._monotonic):
            self._deadlines.set(number, None)
            self._sleepers.pop(number).set()

    @staticmethod
    async def _settle() -> None:
        """Let other tasks run until none can, or until this seems never to happen."""
        watch = LoopWatch(asyncio.get_running_loop())
        for rounds in range(_SETTLING_ROUNDS):
            await asyncio.sleep(0)
            running = watch.something_can_run()
            if running is False or (running is None and rounds == _BLIND_ROUNDS):
                return

    # ------------------------------------------------------------ by itself

    @asynccontextmanager
    async def auto(self) -> AsyncIterator["ManualClock"]:
        """Advance the time to the next deadline whenever the event loop is idle.

        While real work is in progress (a thread, a subprocess, a connection, a real sleep), time
        passes at its real speed.
        """
        if (
            self._driver is not None
            and not self._driver.done()
            and self._driver.get_loop() is asyncio.get_running_loop()
        ):
            yield self
            return
        driver = self._driver = asyncio.create_task(self._drive(), name="flowkit clock")
        try:
            yield self
        finally:
            self._driver = None
            driver.cancel()
            await asyncio.wait([driver])

    async def _drive(self) -> None:
        watch = LoopWatch(asyncio.get_running_loop())
        rounds = 0
        while True:
            if not self._sleepers:
                await self._wait_for_a_sleeper()
            await asyncio.sleep(0)
            rounds += 1
            running = watch.something_can_run()
            if running:
                if rounds % _PATIENT_ROUNDS == 0:
                    # While the loop is busy, checking each of its turns would only slow it down.
                    await asyncio.sleep(_LOOK_SEC)
                continue
            if running is None and rounds < _BLIND_ROUNDS:
                continue
            rounds = 0
            if watch.something_real_is_going_on():
                await self._let_real_time_pass(watch)
            elif watch.something_can_run():
                continue  # a thread has ended since the last look
            elif due := self._deadlines.first(1):
                self._move(due[0][0])

    async def _wait_for_a_sleeper(self) -> None:
        self._sleep_began = anyio.Event()
        try:
            await self._sleep_began.wait()
        finally:
            self._sleep_began = None

    async def _let_real_time_pass(self, watch: LoopWatch) -> None:
        began = time.monotonic()
        await asyncio.sleep(_LOOK_SEC)
        if not watch.something_real_is_going_on():
            return  # It ended meanwhile: what followed it takes no time.
        # Do not count a long block of the loop in full: no lease could be renewed during it.
        self._move(self._monotonic + min(time.monotonic() - began, 2 * _LOOK_SEC))
