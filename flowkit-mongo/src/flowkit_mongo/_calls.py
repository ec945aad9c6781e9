"""How operations are run: each bounded in time with its errors translated, and those that may be repeated, repeated."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import tenacity

from flowkit.errors import StoreUnavailable
from flowkit_mongo._errors import translated
from flowkit_mongo.config import MongoConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def together(operations: Iterable[Awaitable[None]]) -> None:
    """Run these side by side, each to its end, and raise what one of them raised: ``StoreUnavailable``, if that is among it.

    None is stopped because another failed. A task group of anyio would cancel it again and again until it ends, and PyMongo, where it
    waits for a server, is left with a lock that nobody can take any more.
    """
    ends = await asyncio.gather(*operations, return_exceptions=True)
    errors = [end for end in ends if isinstance(end, BaseException)]
    if errors:
        raise next((error for error in errors if isinstance(error, StoreUnavailable)), errors[0])


class Calls:
    """Runs operations under the time limits of a configuration."""

    def __init__(self, config: MongoConfig) -> None:
        self._timeout = config.operation_timeout_sec
        self._retry_for = config.retry_for_sec

    async def once(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run it. Where it fails with ``StoreUnavailable``, whether it was applied is unknown."""
        with translated():
            # Not a scope of anyio, for the reason given above: this cancels once.
            async with asyncio.timeout(self._timeout):
                return await operation()

    async def patiently(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Run it again while the server is out of reach, for a bounded time. Only for what may be repeated."""
        try:
            return await self.once(operation)
        except StoreUnavailable as error:
            if not self._retry_for:
                raise
            logger.warning("MongoDB is out of reach, trying again: %s", error, extra={"action": "store_retry"})
        again = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_delay(self._retry_for),
            wait=tenacity.wait_random_exponential(multiplier=0.05, max=1),
            retry=tenacity.retry_if_exception_type(StoreUnavailable),
            reraise=True,
        )
        return await again(self.once, operation)
