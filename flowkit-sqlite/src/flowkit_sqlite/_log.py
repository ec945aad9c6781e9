"""SQLite's write-ahead log: its synchronization with the disk, and checkpoints.

Commits only write to the log. A change survives a power failure when the log was synced after it.
One sync serves all changes before it, and other processes may change the file meanwhile.
"""

import asyncio
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from flowkit.errors import StoreUnavailable
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._connections import connect, log_path
from flowkit_sqlite._errors import with_remedy
from flowkit_sqlite._jobs import Job
from flowkit_sqlite._threads import CallThread

if sys.platform == "darwin":
    import fcntl

CHANGES_A_CHECKPOINT = 2_000
"""Changed rows after which the log is copied into the file. About half are in a page of their own.
"""
LOCK_PATIENCE_MS = 100
"""Time that a checkpoint waits for the lock for changes, before it is left to the next one."""

LONGEST_UNSYNCED_SEC = 0.1
"""Time after which changes are synced that no caller waits for."""


def _sync(file: int) -> None:
    """Write a file to the disk, past the cache of the disk where the system has a call for it."""
    if sys.platform == "darwin":
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    elif sys.platform == "linux":
        os.fdatasync(file)
    else:
        os.fsync(file)


class LogSync:
    """Syncs the log for the changes that wait for it, in a thread."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        thread: CallThread,
        loop: asyncio.AbstractEventLoop,
        done: Callable[[Sequence[Job]], None],
    ) -> None:
        """Open the log of a connection; ``done`` is called in the event loop.

        Raises:
            StoreUnavailable: it cannot be opened.
        """
        self._path = log_path(connection)
        try:
            self._file = os.open(self._path, os.O_RDWR)
        except OSError as error:
            fault = f"{self._path} cannot be opened: {error}"
            remedy = "check the rights on the file and the limit of open files"
            raise with_remedy(StoreUnavailable, fault, remedy) from error
        self._thread = thread
        self._loop = loop
        self._done = done
        self._waiting: deque[list[Job]] = deque()
        self.is_synced = True
        """Whether there are no changes that no caller waits for."""
        self._timer: asyncio.TimerHandle | None = None
        self._failure: str | None = None

    def add(self, jobs: list[Job]) -> None:
        """Sync the changes of committed jobs."""
        self.is_synced = True
        self._waiting.append(jobs)
        self._thread.submit(self._sync_waiting)

    def sync_soon(self) -> None:
        """Sync the changes that no caller waits for, if no other sync comes first."""
        self.is_synced = False
        # One timer serves all changes in its time, because each step of a task makes some.
        if self._timer is None:
            self._timer = self._loop.call_later(LONGEST_UNSYNCED_SEC, self.sync_now)

    def sync_now(self) -> None:
        """Sync the changes that no caller waits for, if there are any."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.is_synced:
            self.add([])

    def close(self) -> None:
        """Close the log. SQLite may delete it when all its connections are closed."""
        os.close(self._file)

    def _sync_waiting(self) -> None:
        if not self._waiting:
            return
        jobs: list[Job] = []
        while self._waiting:
            jobs += self._waiting.popleft()
        try:
            if self._failure is None:
                _sync(self._file)
        except OSError as error:
            # The system may drop what it could not write, and report it only once. Later syncs
            # would confirm changes after a gap in the log.
            self._failure = f"{self._path}: {error}"
        if self._failure is not None:
            remedy = "check the disk, and restart this process"
            for job in jobs:
                job.fail(with_remedy(StoreUnavailable, self._failure, remedy))
        # An event loop that is closed has no tasks that wait.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._done, jobs)


class Checkpoints:
    """Copies the log into the file from time to time, in a thread, so that the log stays short.

    The lock for changes is held meanwhile. Without it, SQLite before 3.51.3 may damage the file: if
    a writer begins the log again just when a checkpoint begins, changes that are written later
    count as copied, and are lost (https://sqlite.org/wal.html#walresetbug).
    """

    def __init__(self, path: Path, config: SqliteConfig) -> None:
        self._path = path
        self._config = config
        self._thread = CallThread("flowkit-sqlite-checkpoints")
        self._connections: list[sqlite3.Connection] = []
        """The one that takes the lock, and the one that copies."""
        self._running = False
        self._next = CHANGES_A_CHECKPOINT

    def changed(self, total: int) -> None:
        """Take the number of rows that were changed since the file was opened."""
        if total >= self._next and not self._running:
            self._next = total + CHANGES_A_CHECKPOINT
            self._running = True
            self._thread.submit(self._run)

    def stop(self) -> None:
        """End the thread."""
        self._thread.submit(self._close)
        self._thread.stop()

    def _run(self) -> None:
        # An error that lasts is raised by the next change.
        with suppress(sqlite3.Error):
            while len(self._connections) < 2:
                self._connections.append(connect(self._path, self._config))
            lock, connection = self._connections
            lock.execute(f"PRAGMA busy_timeout = {LOCK_PATIENCE_MS}")
            lock.execute("BEGIN IMMEDIATE")
            try:
                # This mode waits for no reader.
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                lock.execute("ROLLBACK")
        self._running = False

    def _close(self) -> None:
        for connection in self._connections:
            connection.close()
