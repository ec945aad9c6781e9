"""An open file, as an event loop uses it.

Brief jobs run in the event loop, because a job takes a fraction of the time of two switches between
threads. What may take long is done by threads: long jobs, those that wait for the lock of another
process, syncs of the log, and checkpoints.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from flowkit.errors import StoreUnavailable
from flowkit_sqlite._config import SqliteConfig
from flowkit_sqlite._connections import connect_writer
from flowkit_sqlite._errors import is_busy
from flowkit_sqlite._file_systems import warn_of_share
from flowkit_sqlite._group_commit import GroupCommit
from flowkit_sqlite._jobs import Job
from flowkit_sqlite._log import Checkpoints, LogSync
from flowkit_sqlite._moved_files import OpenedPath
from flowkit_sqlite._processes import Presence
from flowkit_sqlite._readers import Readers, read
from flowkit_sqlite._threads import CallThread
from flowkit_sqlite._wakeups import Doorbell, Listeners, open_doorbell

T = TypeVar("T")

MOST_JOBS = 500
"""Most jobs in one transaction."""
MOST_READS = 50
"""Most jobs that read in a turn of the event loop."""
MOST_AT_ONCE = 2
"""Most jobs of a turn of the event loop that run at once.

A task that submits one job after another must let other tasks run.
"""
POLL_WITHOUT_SOCKET_SEC = 0.002
TASK_NAME = "flowkit-sqlite"
PROCESSES = "processes"
"""Channel that a process notifies when it has opened the file, so that others read its port."""


class OpenFile:
    """A file that is open in the running event loop."""

    def __init__(self, path: Path, config: SqliteConfig, *, wakeup_host: str) -> None:
        """Begin to open it."""
        self._path = path
        self._config = config
        self._wakeup_host = wakeup_host
        self._loop = asyncio.get_running_loop()
        self._thread = CallThread("flowkit-sqlite-writer")
        self._readers = Readers(path, config, self._loop)
        self._checkpoints = Checkpoints(path, config)
        self._syncs = config.synchronous == "full"
        self._reads: list[Job] = []
        """Brief jobs that read, and wait for the next turn of the event loop."""
        self._waiting: deque[Job] = deque()
        self._is_planned = False
        """Whether the next commit is scheduled."""
        self._ran_at_once = 0
        """Jobs of this turn of the event loop that ran when they were submitted."""
        self._lent: Sequence[Job] = ()
        """The jobs with which the thread uses the connection."""
        self._is_left = asyncio.Event()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._task = self._loop.create_task(self._live(), name=TASK_NAME)
        self.users = 0
        self.listeners = Listeners()

    async def opened(self) -> None:
        """Wait until it is open. A cancelled wait does not affect others."""
        await asyncio.wait([self._opened])
        self._opened.result()

    async def close(self) -> None:
        """Close it after the changes that were submitted."""
        self._is_left.set()
        await asyncio.wait([self._task])
        self._opened.cancel()
        _ignore(self._opened)

    # ------------------------------------------------------------ life

    async def _live(self) -> None:
        try:
            await self._in_thread(self._open)
        except Exception as error:
            self._opened.set_exception(error)
            self._thread.stop()
            return
        doorbell: Doorbell | None = None
        try:
            doorbell = await open_doorbell(self._on_ring, self._wakeup_host)
            self._presence = Presence(self._connection, doorbell)
            self._poll()
            self._try(self._presence.renew)
            self._look()
            self._presence.ring([(PROCESSES, None)])
            self._opened.set_result(None)
            await self._poll_until_left(doorbell)
            if submitted := [job.future for job in (*self._lent, *self._waiting, *self._reads)]:
                await asyncio.wait(submitted)
            self._try(self._presence.leave)
        finally:
            if doorbell is not None:
                doorbell.close()
            self._log.sync_now()
            await self._in_thread(self._close)
            self._thread.stop()

    def _open(self) -> None:
        connection = connect_writer(self._path, self._config)
        try:
            warn_of_share(self._path)
            self._place = OpenedPath(self._path)
            self._commits = GroupCommit(connection, self._place, self._config)
            self._log = LogSync(connection, self._thread, self._loop, self._finish)
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _close(self) -> None:
        self._readers.stop()
        self._checkpoints.stop()
        self._log.close()
        self._connection.close()

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """Make a call in the thread, and return its result."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def work() -> None:
            job = Job(lambda _: call(), answer)
            job.run(None)  # type: ignore[arg-type]
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(job.finish)

        self._thread.submit(work)
        return await answer

    async def _poll_until_left(self, doorbell: Doorbell | None) -> None:
        pause_sec = (
            POLL_WITHOUT_SOCKET_SEC if doorbell is None else self._config.poll_interval_ms / 1000
        )
        is_ending = False
        while not self._is_left.is_set():
            try:
                async with asyncio.timeout(pause_sec):
                    await self._is_left.wait()
            except TimeoutError:
                self._poll()
            except asyncio.CancelledError:
                # The event loop ends. Its other tasks use the file until they have ended.
                is_ending = True
            if is_ending and not _others():
                return

    def _poll(self) -> None:
        """Wake all listeners if another process changed the file, and renew the lease."""
        # An error that lasts is raised by the next job.
        with suppress(sqlite3.Error):
            if not self._lent and self._presence.has_changed():
                self._look()
                self._wake(None)
        if self._presence.is_due and self._opened.done():
            self._try(self._presence.renew)

    def _try(self, call: Callable[[sqlite3.Connection], None]) -> None:
        """Make a change that may be missing, because other processes find it out by themselves.

        It does not wait for the lock of another process.
        """
        if self._lent:
            return
        job = Job(call, self._loop.create_future(), durable=False, brief=True)
        job.future.add_done_callback(_ignore)
        if self._commits.commit([job], wait=False) is not None:
            self._committed([job], [])

    def _look(self) -> None:
        """Read the ports of the other processes. It is repeated when the file is polled."""
        with suppress(sqlite3.Error):
            if not self._lent:
                self._presence.look()

    def _on_ring(self, hashes: frozenset[int], port: int) -> None:
        """Wake the listeners that a datagram is for. An unknown port is that of a new process."""
        if not self._presence.knows(port):
            self._look()
        self._wake(hashes)

    def _wake(self, hashes: frozenset[int] | None) -> None:
        for listener in self.listeners.of_others(hashes):
            listener.wake()

    # ------------------------------------------------------------ reading

    def read(self, call: Callable[[sqlite3.Connection], T], *, brief: bool) -> "asyncio.Future[T]":
        """Run a call in one snapshot of the file: a brief one here, if the connection is free.

        Brief calls of a turn of the event loop share a snapshot, which takes locks.
        """
        job = Job(call, self._loop.create_future())
        if not brief:
            self._read_elsewhere([job])
        else:
            if not self._reads:
                self._loop.call_soon(self._read)
            self._reads.append(job)
        return job.future

    def _read(self) -> None:
        """Run brief jobs that read, up to a limit: here, or in threads if that may take long."""
        jobs, self._reads = self._reads[:MOST_READS], self._reads[MOST_READS:]
        if self._reads:
            self._loop.call_soon(self._read)
        if not self._lent:
            jobs = self._read_here([job for job in jobs if job.is_wanted])
        self._read_elsewhere(jobs)

    def _read_here(self, jobs: list[Job]) -> list[Job]:
        """Run jobs that read, and return those that a lock of another process prevented."""
        try:
            self._place.check()
            read(jobs, self._connection)
        except (sqlite3.Error, StoreUnavailable) as error:
            for job in jobs:
                job.fail(error)
        prevented: list[Job] = []
        for job in jobs:
            if isinstance(job.error, sqlite3.Error) and is_busy(job.error):
                job.error = None
                prevented.append(job)
            else:
                job.finish()
        return prevented

    def _read_elsewhere(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            try:
                self._place.check()
            except StoreUnavailable as error:
                job.fail(error)
                job.finish()
            else:
                self._readers.submit(job)

    # ------------------------------------------------------------ changes

    def submit(
        self,
        call: Callable[[sqlite3.Connection], T],
        *,
        durable: bool = True,
        brief: bool = True,
    ) -> "asyncio.Future[T]":
        """Run a job in a transaction: at once, or together with others that are submitted now.

        The first brief jobs of a turn of the event loop that do not wait for the disk run at once.
        Jobs that wait for the disk are collected, because one sync serves them all.
        """
        job = Job(call, self._loop.create_future(), durable and self._syncs, brief)
        none_waits = not self._waiting and not self._lent
        self._plan()
        if none_waits and brief and not job.durable and self._ran_at_once < MOST_AT_ONCE:
            self._ran_at_once += 1
            self._commit_brief([job])
        else:
            self._waiting.append(job)
        return job.future

    def _plan(self) -> None:
        # Other tasks that can run now may add jobs to the transaction before.
        if not self._is_planned and not self._lent:
            self._is_planned = True
            self._loop.call_soon(self._commit)

    def _commit(self) -> None:
        """Commit the jobs that wait: here, or in the thread if that may take long."""
        self._is_planned = False
        self._ran_at_once = 0
        if self._lent:
            return
        jobs: list[Job] = []
        are_brief = True
        while self._waiting and len(jobs) < MOST_JOBS:
            job = self._waiting.popleft()
            if job.is_wanted:
                jobs.append(job)
                are_brief &= job.brief
        if not jobs:
            return
        if are_brief:
            self._commit_brief(jobs)
        else:
            self._commit_long(jobs)

    def _commit_brief(self, jobs: list[Job]) -> None:
        rest = self._commits.commit(jobs, wait=False)
        if rest is None:
            self._commit_long(jobs)
        else:
            self._committed(jobs, rest)

    def _commit_long(self, jobs: list[Job]) -> None:
        self._lent = jobs
        self._thread.submit(partial(self._commit_in_thread, jobs))

    def _commit_in_thread(self, jobs: list[Job]) -> None:
        rest = self._commits.commit(jobs, wait=True) or []
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._returned, jobs, rest)

    def _returned(self, jobs: list[Job], rest: list[Job]) -> None:
        self._lent = ()
        self._committed(jobs, rest)

    def _committed(self, jobs: list[Job], rest: list[Job]) -> None:
        self._waiting.extendleft(reversed(rest))
        if self._waiting:
            self._plan()
        unsynced: list[Job] = []
        finished: list[Job] = []
        for job in jobs[: len(jobs) - len(rest)]:
            (unsynced if job.durable and job.error is None else finished).append(job)
        if unsynced:
            self._log.add(unsynced)
        elif self._syncs and self._log.is_synced:
            self._log.sync_soon()
        self._finish(finished)
        self._checkpoints.changed(self._connection.total_changes)

    def _finish(self, jobs: Sequence[Job]) -> None:
        """Return the results of jobs, and wake the listeners of what they changed."""
        notified: list[tuple[str, Any]] = []
        for job in jobs:
            job.finish()
            notified += job.notified
        if notified:
            self._presence.ring(notified)
            self.listeners.hear(notified)


def _others() -> bool:
    """Return whether the event loop has tasks that do not only keep a file open."""
    return any(task.get_name() != TASK_NAME for task in asyncio.all_tasks())


def _ignore(future: "asyncio.Future[None]") -> None:
    """Take the error of a future that is not awaited."""
    if not future.cancelled():
        future.exception()
