"""Group commit: jobs that wait at the same time share one transaction."""

import random
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowkit.errors import StoreUnavailable
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._errors import is_busy
from flowkit_sqlite._jobs import Job

FIRST_LOCK_PAUSE_SEC = 0.00005
LONGEST_LOCK_PAUSE_SEC = 0.005


class GroupCommit:
    """Transactions of the one connection of a process that changes the file."""

    def __init__(self, connection: sqlite3.Connection, path: Path, config: SqliteConfig) -> None:
        self._connection = connection
        self._path = path
        self._config = config
        self._syncs: bool | None = None
        self.notified: list[tuple[str, Any]] = []
        """Channels that the jobs of the current transaction notify, each with its news."""
        # The loop in _begin replaces SQLite's, which sleeps a millisecond or more.
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA fullfsync = ON")

    def commit(self, jobs: list[Job]) -> list[Job]:
        """Run jobs in one transaction, and return those that need another one.

        Each job that ran has its result, or the error with which it or the transaction failed.
        """
        self.notified.clear()
        ran = jobs
        try:
            self._begin(sync=any(job.durable for job in jobs))
            ran = self._run(jobs)
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            elif any(job.error is None for job in ran):
                raise StoreUnavailable(
                    f"{self._path}: an error of another change in the same transaction undid this"
                    f" one: {ran[-1].error}"
                )
        except Exception as error:
            self.notified.clear()
            self._roll_back()
            for job in ran:
                job.fail(error)
        return jobs[len(ran) :]

    def _begin(self, *, sync: bool) -> None:
        """Begin a transaction with the lock for changes, and wait for the lock if necessary."""
        sync = sync and self._config.synchronous == "full"
        if sync is not self._syncs:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
            self._syncs = sync
        give_up_at = time.monotonic() + self._config.busy_timeout_sec
        pause_sec = FIRST_LOCK_PAUSE_SEC
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() >= give_up_at:
                    raise
            else:
                return
            # Processes that wait for one lock must not try at the same moments.
            time.sleep(random.uniform(pause_sec / 2, pause_sec))
            pause_sec = min(pause_sec * 1.5, LONGEST_LOCK_PAUSE_SEC)

    def _run(self, jobs: list[Job]) -> list[Job]:
        """Run jobs, undo each that fails, and return those that ran.

        SQLite ends the whole transaction after some errors, such as a full disk. The jobs after
        such an error did not run.
        """
        several = len(jobs) > 1
        for count, job in enumerate(jobs, start=1):
            notified = len(self.notified)
            if several:
                self._connection.execute("SAVEPOINT job")
            if not job.run(self._connection):
                del self.notified[notified:]
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK TO job" if several else "ROLLBACK")
                if not self._connection.in_transaction:
                    return jobs[:count]
            if several:
                self._connection.execute("RELEASE job")
        return jobs

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
