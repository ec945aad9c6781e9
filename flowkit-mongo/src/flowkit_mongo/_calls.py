"""How operations are run: each bounded in time with its errors translated, and those that may be
repeated, repeated.

All of it is asyncio's, as the drivers are. No operation runs in a scope of anyio: what that cancels
it cancels at every turn of the loop until it is gone, and a second time is once too often for
PyMongo. Where it waits for a server, the topology then keeps a lock that nobody holds, and no later
operation finds a server again.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

import anyio
import tenacity

from flowkit.errors import StoreUnavailable
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._errors import translated

logger = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[], Coroutine[Any, Any, object]]

GRACE_SEC = 1.0
"""Who was cancelled and has not ended after so long is cancelled again."""


class Calls:
    """Runs operations under the time limits of a configuration."""

    def __init__(self, config: MongoConfig) -> None:
        self._timeout = config.operation_timeout_sec
        self._retry_for = config.retry_for_sec

    async def once(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run it. Where it fails with ``StoreUnavailable``, whether it was applied is unknown."""
        with translated():
            return await bounded(operation(), self._timeout)

    async def patiently(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run it again while the server is out of reach, for a bounded time. Only for what may be
        repeated.
        """
        try:
            return await self.once(operation)
        except StoreUnavailable as error:
            if not self._retry_for:
                raise
            logger.warning(
                "MongoDB is out of reach, trying again: %s", error, extra={"action": "store_retry"}
            )
        again = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_delay(self._retry_for),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1),
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            reraise=True,
        )
        return await again(self.once, operation)


async def bounded(operation: Awaitable[T], timeout_sec: float) -> T:
    """What it returns. It has ended when this ends, and however this is cancelled, it is cancelled
    once.

    Raises:
        TimeoutError: it took longer, and was cancelled.
    """
    (task,) = tasks = [asyncio.ensure_future(operation)]
    in_time = await _ended(tasks, timeout_sec)
    if not in_time and task.cancelled():
        raise TimeoutError(f"took longer than {timeout_sec:g} seconds")
    return task.result()


async def side_by_side(operations: Iterable[Operation], *, at_a_time: int) -> None:
    """Run these, so many at a time, and raise what one of them raised, as it is.

    Where one fails, those that have begun go on to their ends, and the others do not begin.
    """
    waiting, failed = list(operations), list[Exception]()
    turns = iter(waiting)

    async def run() -> None:
        for operation in turns:
            try:
                await operation()
            except Exception as error:
                failed.append(error)
            if failed:
                return

    if len(waiting) == 1:
        await run()
    elif waiting:
        tasks = [asyncio.ensure_future(run()) for _ in waiting[:at_a_time]]
        await _ended(tasks, None)
        for task in tasks:
            task.result()
    if failed:
        # Whoever waits for the server to come back and tries again meets the other errors then, if
        # they last.
        raise next((error for error in failed if isinstance(error, StoreUnavailable)), failed[0])


async def _ended(tasks: Collection[asyncio.Future[Any]], timeout_sec: float | None) -> bool:
    """Wait until these have ended, and say whether they have done so in time. Else, or where the
    wait is cancelled, they are cancelled.
    """
    running = set(tasks)
    try:
        _, running = await asyncio.wait(tasks, timeout=timeout_sec)
    finally:
        if late := {task for task in running if not task.done()}:
            await _cancel(late)
        for task in tasks:
            # Asked for here, so that nobody complains that nobody asked.
            if task.done() and not task.cancelled():
                task.exception()
    return not running


async def _cancel(running: set[asyncio.Future[Any]]) -> None:
    with anyio.CancelScope(shield=True):
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=GRACE_SEC)
