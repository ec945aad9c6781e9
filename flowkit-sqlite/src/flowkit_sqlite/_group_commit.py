"""Group commit: jobs that wait at the same time share one transaction."""

import math
import random
import sqlite3
import time
from contextlib import suppress

from flowkit.errors import StoreUnavailable
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._errors import is_busy
from flowkit_sqlite._jobs import Job
from flowkit_sqlite._moved_files import OpenedPath

FIRST_LOCK_PAUSE_SEC = 0.00005
LONGEST_LOCK_PAUSE_SEC = 0.005
LONGEST_TURN_SEC = 0.005
"""Time after which a transaction in the event loop takes no further job."""


class GroupCommit:
    """Transactions of the one connection of an event loop that changes the file.

    A commit writes to the log, but does not wait for the disk.
    """

    def __init__(
        self, connection: sqlite3.Connection, opened: OpenedPath, config: SqliteConfig
    ) -> None:
        self._connection = connection
        self._opened = opened
        self._config = config
        # The loop in _begin replaces SQLite's, which sleeps a millisecond or more.
        connection.execute("PRAGMA busy_timeout = 0")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")

    def commit(self, jobs: list[Job], *, wait: bool) -> list[Job] | None:
        """Run jobs in one transaction, and return those that need another one.

        Each job that ran has its result, or the error with which it or the transaction failed. If
        another process holds the lock for changes, return None. With ``wait``, which is for a
        thread, wait for the lock, and run all jobs.
        """
        ran = jobs
        try:
            if not self._begin(wait=wait):
                return None
            self._opened.check()
            ran = self._run(jobs, longest_sec=math.inf if wait else LONGEST_TURN_SEC)
            if self._connection.in_transaction:
                self._connection.execute("COMMIT")
            elif any(job.error is None for job in ran):
                raise StoreUnavailable(
                    f"{self._opened.path}: an error of another change in the same transaction undid"
                    f" this one: {ran[-1].error}"
                )
        except Exception as error:
            self._roll_back()
            for job in ran:
                job.fail(error)
        return jobs[len(ran) :]

    def _begin(self, *, wait: bool) -> bool:
        """Begin a transaction with the lock for changes, and return whether it was free."""
        give_up_at = time.monotonic() + self._config.busy_timeout_sec
        pause_sec = FIRST_LOCK_PAUSE_SEC
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if not is_busy(error) or (wait and time.monotonic() >= give_up_at):
                    raise
            else:
                return True
            if not wait:
                return False
            # Processes that wait for one lock must not try at the same moments.
            time.sleep(random.uniform(pause_sec / 2, pause_sec))
            pause_sec = min(pause_sec * 1.5, LONGEST_LOCK_PAUSE_SEC)

    def _run(self, jobs: list[Job], *, longest_sec: float) -> list[Job]:
        """Run jobs until the time is over, undo each that fails, and return those that ran.

        SQLite ends the whole transaction after some errors, such as a full disk. The jobs after
        such an error did not run.
        """
        several = len(jobs) > 1
        end_at = time.monotonic() + longest_sec
        for count, job in enumerate(jobs, start=1):
            if several:
                self._connection.execute("SAVEPOINT job")
            if not job.run(self._connection):
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK TO job" if several else "ROLLBACK")
                if not self._connection.in_transaction:
                    return jobs[:count]
            if several:
                self._connection.execute("RELEASE job")
                if time.monotonic() >= end_at:
                    return jobs[:count]
        return jobs

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
