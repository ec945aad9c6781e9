"""Threads that read the file. Each has a connection of its own, which never blocks the writer."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._connections import connect_reader
from flowkit_sqlite._jobs import Job


class Readers:
    """Threads that are started when they are needed, up to a limit."""

    def __init__(self, path: Path, config: SqliteConfig, loop: asyncio.AbstractEventLoop) -> None:
        self._path = path
        self._config = config
        self._loop = loop
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._free = 0
        """Threads that wait, less jobs that wait."""

    def submit(self, job: Job) -> None:
        """Let a thread run the job in one snapshot of the file."""
        with self._lock:
            if self._free <= 0 and len(self._threads) < self._config.readers:
                thread = threading.Thread(
                    target=self._run, name="flowkit-sqlite-reader", daemon=True
                )
                self._threads.append(thread)
                self._free += 1
                thread.start()
            self._free -= 1
        self._queue.put(job)

    def stop(self) -> None:
        """End the threads after the jobs that were submitted."""
        with self._lock:
            threads = self._threads
            for _ in threads:
                self._queue.put(None)
        for thread in threads:
            thread.join()

    def _run(self) -> None:
        connection: sqlite3.Connection | None = None
        while (job := self._queue.get()) is not None:
            if job.is_wanted:
                try:
                    if connection is None:
                        connection = connect_reader(self._path, self._config)
                    read([job], connection)
                except sqlite3.Error as error:
                    job.fail(error)
                # An event loop that is closed has no tasks that wait.
                with suppress(RuntimeError):
                    self._loop.call_soon_threadsafe(job.finish)
            with self._lock:
                self._free += 1
        if connection is not None:
            connection.close()


def read(jobs: Iterable[Job], connection: sqlite3.Connection) -> None:
    """Run jobs in one snapshot of the file.

    Raises:
        sqlite3.Error: the snapshot could not be taken.
    """
    connection.execute("BEGIN")
    try:
        for job in jobs:
            job.run(connection)
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
