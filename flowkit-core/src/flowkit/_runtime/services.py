"""Services: work that runs in a task of its own between start and stop."""

import asyncio
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import anyio

from flowkit._runtime.signals import ABORT_SEC, RETURN_SEC, signals_received
from flowkit._user_code.containment import error_text, loggable
from flowkit._user_code.exit_requests import exit_of, report_exit

logger = logging.getLogger(__name__)

Work = Callable[[Callable[[], None], anyio.Event], Coroutine[Any, Any, None]]
"""The work of a service: it calls its first argument once when it is ready, and returns soon after
the event is set.
"""


class Service:
    """Work in a task of its own, between :meth:`start` and :meth:`stop`.

    A service may be started again after it has stopped.
    """

    def __init__(self, name: str, work: Work) -> None:
        """``name`` names the service in logs and errors."""
        self._name = name
        self._work = work
        self._stopping: anyio.Event
        self.task: asyncio.Task[None] | None = None
        """The task that does the work; None before the start and after the stop."""

    async def start(self) -> None:
        """Start the work; return when it is ready. Do nothing if the service is started.

        Raises the error that ended the work before it was ready. A later error is logged at once.
        """
        if self.task is not None:
            return
        ready = asyncio.get_running_loop().create_future()
        self._stopping = anyio.Event()

        def set_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        log_failure = partial(self._log_failure, self._stopping)
        self.task = asyncio.create_task(self._work(set_ready, self._stopping))
        try:
            await asyncio.wait({self.task, ready}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self.task.add_done_callback(log_failure)
            await self._cancel(self.task)
            raise
        if not ready.done():
            ready.cancel()
            task, self.task = self.task, None
            task.result()
            raise RuntimeError(f"the {self._name} ended before it was ready")
        self.task.add_done_callback(log_failure)

    async def stop(self) -> None:
        """Stop the work; return when it has ended. Do nothing if the service is not started.

        Raises the error that ended the work before it was asked to stop.
        """
        task = self.task
        if task is None:
            return
        ended_early = task.done() and not self._stopping.is_set()
        self._stopping.set()
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            await self._cancel(task)
            raise
        self.task = None
        if not task.cancelled():
            task.result()
        elif ended_early:
            raise RuntimeError(f"the task of the {self._name} was cancelled by other code")

    def abort(self) -> None:
        """Cancel the work, so that a :meth:`stop` that is in progress returns soon."""
        if self.task is not None:
            self.task.cancel()

    async def wait_ended(self) -> None:
        """Return when the work has ended. :meth:`stop` raises the error that ended it."""
        if self.task is not None:
            await asyncio.wait({self.task})

    def _log_failure(self, stopping: anyio.Event, task: asyncio.Task[None]) -> None:
        """Log the error of work that ended before it was asked to stop."""
        if (
            not stopping.is_set()
            and not task.cancelled()
            and (error := task.exception()) is not None
        ):
            logger.error(
                "The %s has ended: %s",
                self._name,
                error_text(error),
                exc_info=loggable(error),
                extra={"action": "service_broken"},
            )

    async def _cancel(self, task: asyncio.Task[None]) -> None:
        """Cancel the work and wait for its end."""
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        self.task = None


async def run_until_signalled(
    *,
    name: str,
    start: Callable[[], Awaitable[None]],
    wait_ended: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    abort: Callable[[], None],
    task: Callable[[], "asyncio.Task[None] | None"],
    patience_sec: float,
) -> None:
    """Run a service until it ends, SIGTERM or SIGINT arrives, or the calling task is cancelled.

    The first signal starts ``stop``; a signal during the start cancels the start. Each further
    signal, and a cancellation, calls ``abort``. ``task`` returns the task that does the work.

    The process is ended if it does not end by itself after a signal: when ``patience_sec`` is over,
    but not before ``RETURN_SEC`` after this function has returned, and ``ABORT_SEC`` after a second
    signal. Outside of the main thread signals have no effect here, because Python handles them in
    the main thread only.
    """
    starting, working = anyio.CancelScope(), anyio.CancelScope()
    stopping = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal stopping
        logger.info("%s got %s", name, number.name, extra={"action": "signalled"})
        if stopping:
            abort()
        stopping = True
        starting.cancel()
        working.cancel()

    with signals_received(
        on_signal, patience_sec=patience_sec, abort_sec=ABORT_SEC, return_sec=RETURN_SEC
    ):
        with starting:
            await start()
        if starting.cancelled_caught:
            return
        try:
            with working:
                await wait_ended()
        except asyncio.CancelledError as error:
            _log_cancellation(name, error, task())
            abort()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await stop()


def _log_cancellation(name: str, error: BaseException, task: "asyncio.Task[None] | None") -> None:
    """Log why a service is cancelled, unless its owner cancels it: an owner cancels only the task
    that called the service, not the task that does the work.
    """
    exits = exit_of(error)
    if exits is not None:
        report_exit(exits)
    elif task is not None and task.cancelling():
        logger.error(
            "%s ends: other code has cancelled the tasks of its event loop",
            name,
            extra={"action": "all_cancelled"},
        )
