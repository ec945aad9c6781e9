"""Calls of the driver: time limits, translation of errors and retries.

This module uses asyncio, like the drivers. An operation must not run in a cancel scope of anyio,
which cancels a task again at every turn of the event loop until it ends. PyMongo does not survive a
second cancellation while it waits for a server: its topology stays locked, and no later operation
finds a server.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any, TypeVar

import anyio

from flowkit.adapters import Backoff, retry
from flowkit.errors import StoreUnavailable
from flowkit_mongo._config import MongoConfig
from flowkit_mongo._errors import translated

logger = logging.getLogger(__name__)

T = TypeVar("T")
Operation = Callable[[], Coroutine[Any, Any, object]]

GRACE_SEC = 10.0
"""Time after which a cancelled operation that has not ended is cancelled again. Many operations
that are cancelled together end one after another, which takes seconds on a busy machine.
"""


class Calls:
    """Runs operations under the time limits of a configuration."""

    def __init__(self, config: MongoConfig) -> None:
        self._timeout = config.operation_timeout_sec
        self._retry_for = config.retry_for_sec

    async def once(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation.

        Raises:
            StoreUnavailable: its outcome is unknown.
        """
        with translated():
            return await bounded(operation(), self._timeout)

    async def patiently(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run an operation that may be repeated; retry it for a while if MongoDB is unreachable.

        Raises:
            StoreUnavailable: MongoDB stayed unreachable.
        """
        try:
            return await self.once(operation)
        except StoreUnavailable as error:
            if not self._retry_for:
                raise
            logger.warning(
                "MongoDB is unreachable, retrying: %s", error, extra={"action": "store_retry"}
            )
        return await retry(
            lambda: self.once(operation),
            on=lambda error: isinstance(error, StoreUnavailable),
            sleep=asyncio.sleep,
            backoff=Backoff(longest_sec=1, full_jitter=True),
            patience_sec=self._retry_for,
        )


async def bounded(operation: Awaitable[T], timeout_sec: float) -> T:
    """Return the result of an operation, which has ended when this ends.

    If this is cancelled, even repeatedly, the operation is cancelled once.

    Raises:
        TimeoutError: the operation took longer, and was cancelled.
    """
    (task,) = tasks = [asyncio.ensure_future(operation)]
    in_time = await _wait_or_cancel(tasks, timeout_sec)
    if not in_time and task.cancelled():
        raise TimeoutError(f"took longer than {timeout_sec:g} seconds")
    return task.result()


async def side_by_side(operations: Iterable[Operation], *, at_a_time: int) -> None:
    """Run operations, at most ``at_a_time`` together, and raise the error of one that failed.

    After a failure, the running operations complete and the others do not start.
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
        await _wait_or_cancel(tasks, None)
        for task in tasks:
            task.result()
    if failed:
        # A caller that retries after an outage will see the other errors then, if they persist.
        raise next((error for error in failed if isinstance(error, StoreUnavailable)), failed[0])


async def _wait_or_cancel(
    tasks: Collection[asyncio.Future[Any]], timeout_sec: float | None
) -> bool:
    """Wait until tasks have ended and return whether they ended in time.

    After the timeout, or if the wait is cancelled, the tasks are cancelled.
    """
    running = set(tasks)
    try:
        _, running = await asyncio.wait(tasks, timeout=timeout_sec)
    finally:
        if late := {task for task in running if not task.done()}:
            await _cancel(late)
        for task in tasks:
            # Retrieve the error, so that asyncio does not report it as never retrieved.
            if task.done() and not task.cancelled():
                task.exception()
    return not running


async def _cancel(running: set[asyncio.Future[Any]]) -> None:
    with anyio.CancelScope(shield=True):
        while running:
            for task in running:
                task.cancel()
            _, running = await asyncio.wait(running, timeout=GRACE_SEC)
