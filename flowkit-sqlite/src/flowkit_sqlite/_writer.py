"""The thread that changes the file."""

import sqlite3
import threading
import time
from concurrent.futures import Future
from contextlib import closing, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._connections import connect_writer
from flowkit_sqlite._group_commit import GroupCommit
from flowkit_sqlite._jobs import Job, wake
from flowkit_sqlite._processes import Presence
from flowkit_sqlite._readers import Readers
from flowkit_sqlite._wakeups import Doorbell, Listeners

MOST_JOBS = 500
"""Most jobs in one transaction."""
POLL_WITHOUT_SOCKET_SEC = 0.002

_thread = threading.local()


class Writer:
    """Thread that commits jobs in groups, and wakes the listeners of what they changed."""

    def __init__(
        self,
        path: Path,
        config: SqliteConfig,
        listeners: Listeners,
        readers: Readers,
        *,
        wakeup_host: str,
    ) -> None:
        self._path = path
        self._config = config
        self._wakeup_host = wakeup_host
        self._listeners = listeners
        self._readers = readers
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self.opened: Future[None] = Future()
        """Done when the file is open, or could not be opened."""
        self.closed: Future[None] = Future()
        """Done when all connections are closed."""
        threading.Thread(target=self._run, name="flowkit-sqlite-writer", daemon=True).start()

    def submit(self, job: Job) -> None:
        """Add a job to the next transaction."""
        self._queue.put(job)

    def stop(self) -> None:
        """End the thread after the jobs that were submitted."""
        self._queue.put(None)

    def _run(self) -> None:
        doorbell: Doorbell | None = None
        try:
            with closing(connect_writer(self._path, self._config)) as connection:
                with suppress(OSError):
                    doorbell = Doorbell(self._on_ring, host=self._wakeup_host)
                presence = Presence(connection, doorbell)
                self._serve(GroupCommit(connection, self._path, self._config), presence, doorbell)
                presence.leave()
        except Exception as error:
            self.opened.set_exception(error)
        finally:
            self._readers.stop()
            if doorbell is not None:
                doorbell.close()
            self.closed.set_result(None)

    def _on_ring(self, hashes: frozenset[int]) -> None:
        """Wake the listeners that a datagram is for. Called in the thread of the socket."""
        wake(self._listeners.of_others(hashes))

    def _serve(self, commits: GroupCommit, presence: Presence, doorbell: Doorbell | None) -> None:
        _thread.notified = commits.notified
        self._poll(presence)
        self.opened.set_result(None)
        pause_sec = (
            POLL_WITHOUT_SOCKET_SEC if doorbell is None else self._config.poll_interval_ms / 1000
        )
        poll_at = time.monotonic() + pause_sec
        is_open = True
        while is_open:
            jobs, is_open = self._take(max(0.0, poll_at - time.monotonic()))
            self._commit(commits, presence, jobs)
            if time.monotonic() >= poll_at:
                poll_at = time.monotonic() + pause_sec
                self._poll(presence)

    def _take(self, timeout: float) -> tuple[list[Job], bool]:
        """Return the jobs that wait, and False at the end of the thread."""
        jobs: list[Job] = []
        with suppress(Empty):
            job = self._queue.get(timeout=timeout)
            while job is not None:
                jobs.append(job)
                if len(jobs) == MOST_JOBS:
                    return jobs, True
                job = self._queue.get_nowait()
            return jobs, False
        return jobs, True

    def _commit(self, commits: GroupCommit, presence: Presence, jobs: list[Job]) -> None:
        while jobs := [job for job in jobs if job.is_wanted]:
            rest = commits.commit(jobs)
            if commits.notified:
                # Processes that are not notified look when they poll.
                with suppress(sqlite3.Error):
                    presence.ring({channel for channel, _ in commits.notified})
            wake([*jobs[: len(jobs) - len(rest)], *self._listeners.notifications(commits.notified)])
            jobs = rest

    def _poll(self, presence: Presence) -> None:
        """Wake all listeners if another process changed the file, and renew the lease."""
        # An error that lasts is raised by the next job.
        with suppress(sqlite3.Error):
            if presence.has_changed():
                wake(self._listeners.of_others())
            presence.renew()


def notify(channel: str, news: Any = None) -> None:
    """Wake the listeners of a channel after the commit of the job that calls this."""
    _thread.notified.append((channel, news))
