"""The life of something that works in the background."""

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable
from typing import Self

import anyio

logger = logging.getLogger(__name__)


class Service:
    """Runs ``_serve`` in a task of its own between :meth:`start` and :meth:`stop`.

    Entering it, like :meth:`start`, returns when it is ready and raises what kept it from becoming so. A service may be started again after
    it has stopped.
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
        try:
            await asyncio.wait({self._serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._serving.cancel()
            await asyncio.wait({self._serving})
            self._serving = None
            raise
        if not ready.done():
            ready.cancel()
            serving, self._serving = self._serving, None
            serving.result()
            raise RuntimeError(f"{type(self).__name__} ended before it was ready")

    async def stop(self) -> None:
        """Stop working; returns when everything is left in order. Does nothing if it does not work."""
        serving, self._serving = self._serving, None
        if serving is None:
            return
        self._stopping.set()
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            serving.cancel()
            await asyncio.wait({serving})
            if not serving.cancelled():
                serving.exception()
            raise

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


async def run_until_told(service: Service) -> None:
    """Run a service until this task is cancelled, or SIGTERM or SIGINT comes; a second signal cuts the stopping short."""
    await service.start()
    try:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                logger.info("Stopping on %s", number.name, extra={"action": "stopping"})
                break
            async with anyio.create_task_group() as group:
                group.start_soon(_cut_short, signals, group.cancel_scope)
                await service.stop()
                group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await service.stop()


async def _cut_short(signals: AsyncIterator[signal.Signals], scope: anyio.CancelScope) -> None:
    async for number in signals:
        logger.warning("Stopping at once on a second %s", number.name, extra={"action": "stopping_at_once"})
        scope.cancel()
        return
