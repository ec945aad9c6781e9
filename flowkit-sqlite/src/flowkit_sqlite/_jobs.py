"""Jobs of the threads that use the file, and the return of their results to event loops."""

import asyncio
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol


class Wakeable(Protocol):
    """Object that is woken in its event loop."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def wake(self) -> None: ...


@dataclass(slots=True, eq=False)
class Job:
    """Call that a thread makes with its connection, for a task of an event loop."""

    call: Callable[[sqlite3.Connection], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any]"
    durable: bool = True
    result: Any = None
    error: Exception | None = None

    @property
    def is_wanted(self) -> bool:
        """Whether the caller still waits; it may be cancelled at any time."""
        return not self.future.cancelled()

    def run(self, connection: sqlite3.Connection) -> bool:
        """Make the call, and return whether it succeeded."""
        try:
            self.result = self.call(connection)
        except Exception as error:
            # A future does not accept a StopIteration.
            self.error = RuntimeError(repr(error)) if isinstance(error, StopIteration) else error
            return False
        return True

    def fail(self, error: Exception) -> None:
        """Replace the result by an error, unless the job failed itself."""
        self.result = None
        self.error = self.error or error

    def wake(self) -> None:
        """Give the result to the caller. Called in the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


async def finished(future: "Future[None]") -> None:
    """Wait for a future of a thread, and raise its error. A cancelled wait does not cancel it."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def set_done(_: object) -> None:
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(done.set)

    future.add_done_callback(set_done)
    await done.wait()
    future.result()


def wake(wakeables: Collection[Wakeable]) -> None:
    """Wake objects from a thread, with one call for each event loop."""
    by_loop: defaultdict[asyncio.AbstractEventLoop, list[Wakeable]] = defaultdict(list)
    for each in wakeables:
        by_loop[each.loop].append(each)
    for loop, group in by_loop.items():
        # An event loop that is closed has no tasks that wait.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(_wake_each, group)


def _wake_each(wakeables: Sequence[Wakeable]) -> None:
    for each in wakeables:
        each.wake()
