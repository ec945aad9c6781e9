"""Worker processes of ``flowkit dev``: they follow changes of files, and are restarted when they
die.
"""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import Process, TaskGroup
from watchfiles import PythonFilter, awatch

from flowkit._runtime.retries import Backoff
from flowkit.cli._embedded import HEARTBEAT_SEC
from flowkit.protocols import Store, WorkerSession

PREFIX = "dev-"
STOP_GRACE_SEC = 10.0
"""Time for the runs of a worker to end when it is stopped or replaced."""
KILL_SEC = STOP_GRACE_SEC + 5.0
FIRST_PAUSE_SEC, LONGEST_PAUSE_SEC = 0.2, 10.0
LOOK_EVERY_SEC = 0.1
CANNOT_LOAD = 2
"""Exit status of a worker process that cannot load its handlers."""


class DevWorkers:
    """A worker in a process of its own, and its successors."""

    def __init__(
        self,
        sources: Sequence[str],
        roles: Collection[str],
        settings: Mapping[str, Any],
        say: Callable[[str], None],
    ) -> None:
        """Take the sources of handlers, the ``roles`` of plugins, and the settings of the file.

        ``say`` prints a line.
        """
        self._roles = roles
        self.stopped = anyio.Event()
        self._sources = sources
        self._settings = settings
        self._say = say
        self._changed = anyio.Event()
        self._number = 0
        self._processes: set[Process] = set()

    def stop(self) -> None:
        """Let :meth:`run` stop the workers and return. A second call kills them."""
        if self.stopped.is_set():
            for process in self._processes:
                if process.returncode is None:
                    process.kill()
        self.stopped.set()

    async def run(self, store: Store) -> None:
        """Run a worker until :meth:`stop` is called."""
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(self._watch_files)
                group.start_soon(self._supervise, store, group)
                await self.stopped.wait()
                group.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                async with anyio.create_task_group() as group:
                    for process in self._processes:
                        group.start_soon(_drain, process)

    async def _watch_files(self) -> None:
        folders = self._folders()
        self._say(f"watching  {', '.join(map(str, folders))} (Python files)")
        async for _ in awatch(*folders, watch_filter=PythonFilter()):
            self._changed.set()

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

    async def _supervise(self, store: Store, group: TaskGroup) -> None:
        current: Process | None = None
        backoff = Backoff(first_sec=FIRST_PAUSE_SEC, longest_sec=LONGEST_PAUSE_SEC)
        name = await _name_of_dead_worker(store) or self._next_name()
        while True:
            self._changed = anyio.Event()
            process = await self._start(name)
            session = await _session_of(process, store)
            if session is not None:
                self._say(f"worker    {name} serves {', '.join(session.roles)}")
                if current is not None:
                    group.start_soon(_drain, current)
                current = process
                backoff.reset()
            elif process.returncode == CANNOT_LOAD:
                self._say(
                    "worker    cannot load the handlers; "
                    + ("the old worker continues" if current else "waiting for a change")
                )
            if session is not None or process.returncode == CANNOT_LOAD:
                if await self._changed_or_ended(current):
                    name = self._next_name()
                    continue
                assert current is not None
                process, current = current, None
            self._say(f"worker    {name} ended: {_ending(process)}; it is restarted")
            await anyio.sleep(backoff.next_sec())

    def _next_name(self) -> str:
        self._number += 1
        return f"{PREFIX}{os.getpid()}-{self._number}"

    async def _start(self, name: str) -> Process:
        handlers = [word for source in self._sources for word in ("--handlers", source)]
        roles = [word for role in self._roles for word in ("--roles", role)]
        settings = {
            "worker_id": name,
            "hb_interval_sec": HEARTBEAT_SEC,
            "stop_grace_sec": STOP_GRACE_SEC,
            "options": json.dumps(self._settings["options"]),
        }
        fields = [word for item in settings.items() for word in ("--set", "{}={}".format(*item))]
        storing = ["--db", self._settings["db"], "--log-level", "warning"]
        process = await anyio.open_process(
            [
                *(sys.executable, "-m", "flowkit.cli._dev_worker"),
                *("worker", *handlers, *roles, *fields, *storing),
            ],
            stdin=subprocess.PIPE,
            stdout=None,
            stderr=None,
            # Ctrl-C goes to this process only, which stops the worker.
            start_new_session=True,
        )
        self._processes = {one for one in self._processes if one.returncode is None} | {process}
        return process

    async def _changed_or_ended(self, process: Process | None) -> bool:
        """Wait until a file changes or the process ends. Return whether a file changed."""
        if process is None:
            await self._changed.wait()
            return True
        async with anyio.create_task_group() as group:

            async def ended() -> None:
                await process.wait()
                group.cancel_scope.cancel()

            group.start_soon(ended)
            await self._changed.wait()
            group.cancel_scope.cancel()
        return self._changed.is_set()


async def _session_of(process: Process, store: Store) -> WorkerSession | None:
    """Wait for the first heartbeat of a worker. Return None if its process ends before."""
    while process.returncode is None:
        for session in await store.sessions():
            if session.info.get("pid") == str(process.pid):
                return session
        with anyio.move_on_after(LOOK_EVERY_SEC):
            await process.wait()
    return None


async def _drain(process: Process) -> None:
    """Stop a worker: its runs may end. Kill it if it does not end in time."""
    if process.stdin is not None:
        await process.stdin.aclose()
    with anyio.move_on_after(KILL_SEC):
        await process.wait()
        return
    process.kill()
    await process.wait()


async def _name_of_dead_worker(store: Store) -> str | None:
    """Return the name of a worker that an earlier command left behind, if its process is gone.

    The first worker takes its name, so that it takes over its runs at once. Else they wait until
    the worker counts as lost.
    """
    for session in await store.sessions():
        if session.worker_id.startswith(PREFIX) and _is_dead(session):
            return session.worker_id
    return None


def _is_dead(session: WorkerSession) -> bool:
    if os.name != "posix" or session.info.get("host") != socket.gethostname():
        return False
    try:
        os.kill(int(session.info["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, KeyError):
        return False
    return False


def _ending(process: Process) -> str:
    status = process.returncode or 0
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
