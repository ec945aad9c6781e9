"""Jobs that use the file, for tasks of an event loop."""

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

MOST_BRIEF_ROWS = 500
MOST_BRIEF_BYTES = 1_000_000

_running = threading.local()


def is_brief(rows: int, size: int = 0) -> bool:
    """Return whether a job with so many rows, which an index finds, and bytes takes milliseconds at
    most.
    """
    return rows <= MOST_BRIEF_ROWS and size <= MOST_BRIEF_BYTES


@dataclass(slots=True, eq=False)
class Job:
    """Call that is made with a connection, for a task of an event loop.

    A ``brief`` job may run in the event loop. The result of a ``durable`` one is returned when its
    changes are on the disk.
    """

    call: Callable[[sqlite3.Connection], Any]
    future: "asyncio.Future[Any]"
    durable: bool = True
    brief: bool = False
    result: Any = None
    error: Exception | None = None
    notified: list[tuple[str, Any]] = field(default_factory=list)
    """Channels that it notifies, each with its news."""

    @property
    def is_wanted(self) -> bool:
        """Whether the caller still waits; it may be cancelled at any time."""
        return not self.future.cancelled()

    def run(self, connection: sqlite3.Connection) -> bool:
        """Make the call, and return whether it succeeded."""
        _running.job = self
        try:
            self.result = self.call(connection)
        except Exception as error:
            # A future does not accept a StopIteration.
            self.fail(RuntimeError(repr(error)) if isinstance(error, StopIteration) else error)
            return False
        return True

    def fail(self, error: Exception) -> None:
        """Replace the result by an error, unless the job failed itself."""
        self.result = None
        self.error = self.error or error
        self.notified.clear()

    def finish(self) -> None:
        """Give the result to the caller. Called in the event loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def notify(channel: str, news: Any = None) -> None:
    """Wake the listeners of a channel, and other processes, after the commit.

    Listeners of this process get the ``news``. Call it inside a job that changes the file. A job
    that fails wakes no listener.
    """
    _running.job.notified.append((channel, news))
