"""Shutdown of a worker: let runs finish, cut off the rest, and report it."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from flowkit._runtime.deadlines import within
from flowkit._user_code.threads import Calls
from flowkit.config import WorkerConfig
from flowkit.protocols import Clock
from flowkit.worker._attempts import Attempts
from flowkit.worker._report_sender import ReportSender
from flowkit.worker._slots import Slots

logger = logging.getLogger(__name__)

FLUSH_SEC = 10.0
"""Time in which a stopping worker tries to send its last reports."""


class StopRequest:
    """Whether the worker was asked to stop, and the grace for its runs."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.grace_sec = float("inf")
        self._shortened = anyio.Event()

    def ask(self, grace_sec: float) -> None:
        """Ask for a stop. A second call may shorten the grace."""
        if grace_sec < self.grace_sec:
            self.grace_sec = grace_sec
            self._shortened.set()
        self.asked.set()

    async def wait_shortened(self) -> None:
        """Return when the grace is shortened."""
        await self._shortened.wait()

    async def in_grace(self, wait: Callable[[], Awaitable[object]], *, clock: Clock) -> bool:
        """Wait no longer than the grace, and return whether the wait has ended in time.

        A grace that is shortened meanwhile starts again.
        """
        while True:
            self._shortened = shortened = anyio.Event()
            if not await within(self.grace_sec, partial(_first, wait, shortened.wait), clock=clock):
                return False
            if not shortened.is_set():
                return True


async def drain(
    stop: StopRequest,
    *,
    slots: Slots,
    attempts: Attempts,
    sender: ReportSender,
    cfg: WorkerConfig,
    clock: Clock,
) -> float:
    """Let runs end or cut them off, and send their reports.

    Return the time until which functions that were cut off may go on.
    """

    async def idle() -> None:
        await slots.wait_until(lambda slots: slots.running == 0 and slots.queued == 0)

    await attempts.hand_over_waiting()
    in_time = await stop.in_grace(idle, clock=clock)
    until = clock.monotonic() + cfg.cancel_grace_sec
    if not in_time:
        attempts.hand_back_running()
        if not await within(cfg.cancel_grace_sec + 1, idle, clock=clock):
            logger.warning(
                "%d runs ignore their cancellation and are abandoned",
                slots.running,
                extra={"action": "runs_left"},
            )
            attempts.abandon_running()
    if not await within(FLUSH_SEC, sender.flush, clock=clock):
        logger.warning(
            "Worker %s stops with unsent reports",
            attempts.worker_id,
            extra={"action": "reports_unsent"},
        )
    return until


async def let_threads_end(calls: Calls, stop: StopRequest, *, until: float, clock: Clock) -> None:
    """Wait for the threads of runs that were cut off, until this time or a shorter grace."""
    left_sec = until - clock.monotonic()
    if calls.names and stop.grace_sec > 0 and left_sec > 0:
        await within(
            left_sec,
            lambda: _first(calls.wait_until_quiet, stop.wait_shortened),
            clock=clock,
        )
    if calls.names:
        logger.warning(
            "%d functions still run in threads, until they return or the process ends: %s",
            len(calls.names),
            ", ".join(calls.names),
            extra={"action": "threads_left"},
        )


async def _first(*waits: Callable[[], Awaitable[object]]) -> None:
    """Return when one of them does."""
    async with anyio.create_task_group() as group:

        async def wait_for(wait: Callable[[], Awaitable[object]]) -> None:
            await wait()
            group.cancel_scope.cancel()

        for wait in waits:
            group.start_soon(wait_for, wait)
