"""Worker processes of ``flowkit dev``: they follow changes of files, and are replaced when they
die or are blocked.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup
from watchfiles import PythonFilter, awatch

from flowkit._records.heartbeats import process_is_gone, watch_heartbeats
from flowkit._records.worker_sessions import WorkerSession, session_of, sessions_of
from flowkit._runtime.concurrency import Recent
from flowkit._runtime.retries import Backoff
from flowkit.cli._dev_process import LOOK_SEC, Failures, WorkerProcess
from flowkit.cli._dev_worker import CANNOT_LOAD
from flowkit.coordinator import Coordinator
from flowkit.errors import StoreUnavailable

PREFIX = "dev-"
FIRST_PAUSE_SEC, LONGEST_PAUSE_SEC = 0.2, 10.0
MOST_CHANGES = 3
MOST_FAILURES = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Times after which a worker without progress is reported, and is replaced."""

    report_sec: float = 5.0
    """Time after which an import or a blocked event loop is reported. It doubles with each report.
    """
    replace_sec: float = 15.0
    """Time after which a worker with a blocked event loop is replaced. This is before the
    coordinator counts it as lost.
    """


class DevWorkers:
    """The worker that serves the roles, its successor while that starts, and those that end."""

    def __init__(
        self,
        sources: Sequence[str],
        roles: Collection[str],
        settings: Mapping[str, Any],
        say: Callable[[str, str], None],
        limits: Limits | None = None,
    ) -> None:
        """Take the sources of handlers, the ``roles`` of plugins, and the settings of the file.

        ``say`` prints a line with its heading.
        """
        self.stopped = anyio.Event()
        self._sources = sources
        self._roles = roles
        self._settings = settings
        self._say = say
        self._limits = limits or Limits()
        self._current: WorkerProcess | None = None
        self._next: WorkerProcess | None = None
        self._processes: set[WorkerProcess] = set()
        self._failures: Failures = Recent(MOST_FAILURES)
        self._prefix = f"{PREFIX}{os.getpid()}-"
        self._number = 0
        self._starting = anyio.Lock()
        self._backoff = Backoff(first_sec=FIRST_PAUSE_SEC, longest_sec=LONGEST_PAUSE_SEC)
        self._coordinator: Coordinator
        self._group: TaskGroup

    def stop(self) -> None:
        """Let :meth:`run` stop the workers and return. A second call kills them."""
        if self.stopped.is_set():
            for worker in self._processes:
                worker.kill()
        self.stopped.set()

    def place_of_failure(self, task_id: str, node_id: str, attempt: int) -> str | None:
        """Return where in the user's code a run failed, if that is known."""
        for worker in self._processes:
            worker.read()
        return self._failures.get((task_id, node_id, attempt))

    @property
    def roles(self) -> Collection[str] | None:
        """The roles that are served, or None while no worker is ready."""
        session = None if self._current is None else self._current.session
        return None if session is None else session.roles

    def is_own(self, worker_id: str) -> bool:
        """Return whether the worker with this id is one of this command."""
        return worker_id.startswith(self._prefix)

    async def run(self, coordinator: Coordinator) -> None:
        """Run a worker until :meth:`stop` is called."""
        self._coordinator = coordinator
        try:
            async with anyio.create_task_group() as self._group:
                self._group.start_soon(self._declare_dead_workers)
                self._group.start_soon(self._watch_files)
                await self._start()
                await self.stopped.wait()
                self._group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    for worker in self._processes:
                        group.start_soon(worker.drain)

    # ------------------------------------------------ starts

    async def _watch_files(self) -> None:
        folders = self._folders()
        self._say("watching", f"{', '.join(map(str, folders))} (Python files)")
        async for changes in awatch(*folders, watch_filter=PythonFilter()):
            paths = sorted({_shown(Path(path)) for _, path in changes})
            more = "" if len(paths) <= MOST_CHANGES else f" and {len(paths) - MOST_CHANGES} more"
            self._say("changed", f"{', '.join(paths[:MOST_CHANGES])}{more}")
            self._backoff.reset()
            await self._start()

    def _folders(self) -> list[Path]:
        """Return the current folder, and those of handler files outside of it."""
        current = Path.cwd()
        files = [Path(source.rpartition(":")[0] or source) for source in self._sources]
        others = {
            path.resolve().parent
            for path in files
            if path.suffix == ".py" and not path.resolve().is_relative_to(current)
        }
        return [current, *sorted(others)]

    async def _start(self) -> None:
        """Start the next worker. One that has not become ready is stopped."""
        async with self._starting:
            if self._next is not None:
                self._group.start_soon(self._next.drain)
            self._number += 1
            self._next = worker = await WorkerProcess.start(
                f"{self._prefix}{self._number}",
                sources=self._sources,
                roles=self._roles,
                config=self._settings,
                failures=self._failures,
            )
            self._processes.add(worker)
        self._group.start_soon(self._attend, worker)

    async def _attend(self, worker: WorkerProcess) -> None:
        """Follow a worker from its start to its end."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._watch, worker)
            group.start_soon(self._until_ready, worker)
            await worker.wait()
            group.cancel_scope.cancel()
        worker.close()
        self._processes.discard(worker)
        if worker.session is not None:
            self._group.start_soon(self._declare_lost, worker.name)
        await self._on_end(worker)

    async def _until_ready(self, worker: WorkerProcess) -> None:
        """Wait for the session of a worker. It then takes the place of the current one."""
        while worker.session is None:
            await anyio.sleep(LOOK_SEC)
            worker.session = await self._session(worker.name)
        if worker is not self._next:
            return
        old, self._current, self._next = self._current, worker, None
        self._backoff.reset()
        self._say("worker", f"{worker.name} serves {', '.join(worker.session.roles)}")
        if old is not None:
            self._group.start_soon(old.drain)
            assert old.session is not None
            if gone := [role for role in old.session.roles if role not in worker.session.roles]:
                self._say("worker", f"{', '.join(gone)} has no handler any more")

    async def _session(self, name: str) -> WorkerSession | None:
        try:
            return await session_of(self._coordinator.store, name)
        except StoreUnavailable:
            return None

    # ------------------------------------------------ workers without progress

    async def _watch(self, worker: WorkerProcess) -> None:
        """Report a worker whose import or event loop makes no progress. Kill one that is blocked
        for too long.
        """
        limits = self._limits
        report_at = limits.report_sec
        while worker in (self._current, self._next):
            await anyio.sleep(LOOK_SEC)
            worker.look()
            if worker.silent_sec < limits.report_sec:
                report_at = limits.report_sec
            elif worker.is_loaded and worker.silent_sec >= limits.replace_sec:
                worker.kill()
                return
            elif worker.silent_sec >= report_at:
                report_at = 2 * worker.silent_sec
                await self._report(worker)

    async def _report(self, worker: WorkerProcess) -> None:
        silent = f"{worker.silent_sec:.0f} s"
        place = await worker.place()
        if worker.returncode is not None or worker.silent_sec < self._limits.report_sec:
            return
        if not worker.is_loaded:
            inside = f", at {place}" if place else ""
            then = self._meanwhile("it starts again if a file changes")
            self._say(
                "worker", f"{worker.name} still loads the handlers after {silent}{inside}; {then}"
            )
        else:
            self._say(
                "worker",
                f"{worker.name} has not responded for {silent}, because its event loop is blocked"
                f" by {place or 'a handler'}: use await there, or a plain function, which runs in a"
                f" thread. The worker is replaced after {self._limits.replace_sec:g} s",
            )

    def _meanwhile(self, otherwise: str) -> str:
        return f"{self._current.name} serves with the old ones" if self._current else otherwise

    # ------------------------------------------------ ends

    async def _on_end(self, worker: WorkerProcess) -> None:
        """Start another worker in place of one that died."""
        if worker is self._next:
            self._next = None
            if worker.returncode == CANNOT_LOAD:
                then = self._meanwhile("waiting for a change of a file")
                self._say("worker", f"{worker.name} cannot load the handlers; {then}")
                return
        elif worker is self._current:
            self._current = None
        else:
            if worker.was_killed and worker.session is not None:
                self._say(
                    "worker", f"{worker.name} did not end and was killed; its nodes run again"
                )
            return
        if worker.was_killed:
            why = f"was killed, because it was blocked for {worker.silent_sec:.0f} s"
        else:
            why = f"ended unexpectedly: {worker.ending()}"
        self._say("worker", f"{worker.name} {why}; another one starts")
        if self._next is None:
            await anyio.sleep(self._backoff.next_sec())
        if self._next is None:
            await self._start()

    async def _declare_lost(self, name: str) -> None:
        """Let the nodes of a worker that has ended run again at once."""
        try:
            await self._coordinator.declare_lost(name)
        except StoreUnavailable as error:
            self._say("worker", f"the nodes of {name} wait until it counts as lost: {error}")

    async def _declare_dead_workers(self) -> None:
        """Let the nodes run again whose workers were killed with an earlier command.

        Their processes are gone, and they send no heartbeats. One of both is not enough: a process
        of another container has another number there.
        """
        store = self._coordinator.store
        gone = [
            session
            for session in await sessions_of(store)
            if process_is_gone(session) and not session.is_coordinator
        ]
        for session in (await watch_heartbeats(store, gone, self._coordinator.clock)).silent:
            self._say("worker", f"{session.worker_id} was killed earlier; its nodes run again")
            await self._declare_lost(session.worker_id)


def _shown(path: Path) -> str:
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
