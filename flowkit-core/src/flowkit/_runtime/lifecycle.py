"""The life of something that works in the background."""

import asyncio
import gc
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Self

import anyio

from flowkit._runtime.signals import HURRY_SEC, RETURN_SEC, signals_heard
from flowkit._user_code.containment import error_text, loggable
from flowkit._user_code.exit_requests import exit_of, report_exit

logger = logging.getLogger(__name__)


class Service:
    """Runs ``_serve`` in a task of its own between :meth:`start` and :meth:`stop`.

    Entering it, like :meth:`start`, returns when it is ready and raises what kept it from becoming
    so. A service may be started again after it has stopped.
    """

    _serving: asyncio.Task[None] | None = None

    async def _serve(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
        """Do the work: call ``ready`` once, and return soon after ``stopping`` is set."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to work; returns when ready. Does nothing if it works already."""
        if self._serving is not None:
            return
        ready = asyncio.get_running_loop().create_future()
        self._stopping = anyio.Event()

        def tell_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        self._serving = asyncio.create_task(self._serve(tell_ready, self._stopping))
        self._serving.add_done_callback(partial(self._on_end, self._stopping))
        try:
            await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await self._give_up(self._serving)
            raise
        if not ready.done():
            ready.cancel()
            serving, self._serving = self._serving, None
            serving.result()
            raise RuntimeError(f"{type(self).__name__} ended before it was ready")

    async def stop(self) -> None:
        """Stop working; returns when everything is left in order. Does nothing if it does not work.

        Raises what ended the service, if it has ended before it was asked to.
        """
        serving = self._serving
        if serving is None:
            return
        unasked = serving.done() and not self._stopping.is_set()
        self._stopping.set()
        try:
            await asyncio.wait({serving})
        except asyncio.CancelledError:
            await self._give_up(serving)
            raise
        self._serving = None
        if not serving.cancelled():
            serving.result()
        elif unasked:
            raise RuntimeError(f"the task of the {type(self).__name__} was cancelled by other code")

    def _on_end(self, stopping: anyio.Event, serving: asyncio.Task[None]) -> None:
        """Log that the service has ended although nobody asked it to. :meth:`stop` raises why."""
        if (
            not stopping.is_set()
            and not serving.cancelled()
            and (error := serving.exception()) is not None
        ):
            logger.error(
                "The %s has ended: %s",
                type(self).__name__,
                error_text(error),
                exc_info=loggable(error),
                extra={"action": "service_broken"},
            )

    async def _give_up(self, serving: asyncio.Task[None]) -> None:
        """End at once."""
        serving.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({serving})
        if not serving.cancelled():
            serving.exception()
        self._serving = None

    def hurry(self) -> None:
        """Do not finish stopping in order: a :meth:`stop` that is under way returns soon."""
        if self._serving is not None:
            self._serving.cancel()

    async def ended(self) -> None:
        """Return when it works no more, for whatever reason; :meth:`stop` raises what ended it."""
        if self._serving is not None:
            await asyncio.wait({self._serving})

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


async def run_until_told(
    *,
    name: str,
    start: Callable[[], Awaitable[None]],
    ended: Callable[[], Awaitable[None]],
    stop: Callable[[], Awaitable[None]],
    hurry: Callable[[], None],
    host: Callable[[], "asyncio.Task[None] | None"],
    patience_sec: float,
) -> None:
    """Run something until it ends by itself, SIGTERM or SIGINT comes, or this task is cancelled.

    The first signal begins the ``stop``, and each further one, or being cancelled, hurries it. One
    that comes before the start is done ends the start. Signals are heard from the first moment to
    the last, but in the main thread only: Python gives them to no other. The process is ended if it
    does not end by itself after a signal: when ``patience_sec`` is over, but not before
    ``RETURN_SEC`` after this has returned, and ``HURRY_SEC`` after a second signal. ``host``
    returns the task in which it works.
    """
    starting, working = anyio.CancelScope(), anyio.CancelScope()
    stopping = False

    def obey(number: signal.Signals) -> None:
        nonlocal stopping
        logger.info("%s got %s", name, number.name, extra={"action": "signalled"})
        if stopping:
            hurry()
        stopping = True
        starting.cancel()
        working.cancel()

    with signals_heard(obey, patience_sec=patience_sec, hurry_sec=HURRY_SEC, return_sec=RETURN_SEC):
        with starting:
            await start()
        if starting.cancelled_caught:
            return
        try:
            with rare_collections(), working:
                await ended()
        except asyncio.CancelledError as error:
            _log_cancelled(name, error, host())
            hurry()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await stop()


def _log_cancelled(name: str, error: BaseException, host: "asyncio.Task[None] | None") -> None:
    """Log why a service is cancelled, unless it is its owner who cancels it: an owner cancels only
    the task that runs the service.
    """
    exits = exit_of(error)
    if exits is not None:
        report_exit(exits)
    elif host is not None and host.cancelling():
        logger.error(
            "%s ends: other code has cancelled the tasks of its event loop",
            name,
            extra={"action": "all_cancelled"},
        )


@contextmanager
def rare_collections() -> Iterator[None]:
    """Have the garbage collector look less often, and not at what is there already.

    A process that holds many tasks spends a fifth of its time on collections that find nothing.
    Only who owns the process may do this.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
