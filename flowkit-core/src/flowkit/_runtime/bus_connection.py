"""Connection of a process to its bus."""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import anyio

from flowkit._runtime.services import Service
from flowkit.errors import BusUnavailable
from flowkit.protocols import Bus, Clock, TopicSpec

FIRST_TRY_SEC = 10.0
"""Time that a verb waits for a bus that is not connected yet."""
RETRY_AFTER_SEC = 10.0
"""After a connection failed, verbs do not use the bus for this time."""


class BusConnection:
    """Connection that is opened by the first message.

    So verbs that only read work while the bus is unavailable. The bus lives in a task of its own,
    because one verb may enter it and another leave it.
    """

    def __init__(
        self, *, bus: Bus, sealed: Bus, enter: bool, topics: Sequence[TopicSpec], clock: Clock
    ) -> None:
        """Take ``bus``, and ``sealed``, which is the bus with signatures and codecs.

        With ``enter``, the bus is opened and closed here; otherwise its owner does that.
        """
        self.plain = bus
        self.bus = sealed
        """The bus with signatures and codecs."""
        self._enter = enter
        self._topics = topics
        self._clock = clock
        self._lock = anyio.Lock()
        self._service = Service(type(self).__name__, self._serve)
        self._connected = False
        self._failure: tuple[float, BusUnavailable] | None = None

    async def connect(self, *, patience_sec: float | None = FIRST_TRY_SEC) -> Bus:
        """Return the bus, which is open and has its topics.

        Raises:
            BusUnavailable: the bus was not reached in ``patience_sec`` (None: as long as the
                adapter tries), or a try failed recently.
        """
        if self._connected:
            return self.bus
        async with self._lock:
            if not self._connected:
                self._check_failed_lately()
                try:
                    await self._start_within(patience_sec)
                except BusUnavailable as error:
                    self._failure = (self._clock.monotonic(), error)
                    raise
                self._connected = True
        return self.bus

    async def stop(self) -> None:
        """Disconnect from the bus."""
        self._connected = False
        task = self._service.task
        # A program that ends cancels all tasks of its event loop, including this one.
        if task is None or not task.cancelled():
            await self._service.stop()

    def _check_failed_lately(self) -> None:
        if (
            self._failure is not None
            and self._clock.monotonic() - self._failure[0] < RETRY_AFTER_SEC
        ):
            raise BusUnavailable(str(self._failure[1]))

    async def _start_within(self, patience_sec: float | None) -> None:
        with anyio.move_on_after(patience_sec):
            await self._service.start()
            return
        raise BusUnavailable(f"the bus could not be reached within {patience_sec:g} s")

    async def _serve(self, ready: Callable[[], None], stopping: anyio.Event) -> None:
        async with AsyncExitStack() as stack:
            if self._enter:
                await stack.enter_async_context(self.plain)
            await self.plain.ensure_topics(self._topics)
            ready()
            await stopping.wait()
