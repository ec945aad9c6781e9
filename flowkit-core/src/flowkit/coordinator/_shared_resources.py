"""Resources that all coordinator functions of one coordinator share."""

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar, cast

import anyio

from flowkit._runtime.services import Service
from flowkit._user_code.containment import error_text, loggable
from flowkit.config import CommonConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")
Opener = Callable[[CommonConfig], AbstractAsyncContextManager[T]]


class SharedResources:
    """Resources that functions have opened: each is entered once, and left by :meth:`close`."""

    def __init__(self, config: CommonConfig) -> None:
        """Give ``config`` to the openers."""
        self._config = config
        self._resources: dict[Opener[Any], _Resource[Any]] = {}

    async def get(self, opener: Opener[T]) -> T:
        """Return the resource of an opener; enter it if no earlier call has.

        Raises the error of the opener; the next call tries again.
        """
        resource = self._resources.setdefault(opener, _Resource(opener, self._config))
        return cast("T", await resource.entered())

    async def close(self) -> None:
        """Leave all resources, the last one first. Their errors are logged."""
        for resource in reversed(self._resources.values()):
            await resource.leave()


class _Resource(Generic[T]):
    """A resource that is entered and left in a task of its own, whichever calls use it."""

    def __init__(self, opener: Opener[T], config: CommonConfig) -> None:
        self._opener, self._config = opener, config
        self._name = f"resource {getattr(opener, '__qualname__', opener)}"
        self._service = Service(self._name, self._hold)
        self._entering = anyio.Lock()
        self._value: T

    async def entered(self) -> T:
        async with self._entering:
            await self._service.start()
        return self._value

    async def leave(self) -> None:
        try:
            await self._service.stop()
        except Exception as error:
            logger.error(
                "The %s was not left: %s",
                self._name,
                error_text(error),
                exc_info=loggable(error),
                extra={"action": "resource_not_left"},
            )

    async def _hold(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
        async with self._opener(self._config) as self._value:
            ready()
            await stopping.wait()
