"""Coordinator and worker in this process, on a store and a bus that need no server."""

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from flowkit._records.heartbeats import process_is_gone, process_of, watch_heartbeats
from flowkit._records.worker_sessions import WorkerSession, session_of, sessions_of
from flowkit._runtime.process_exit import called_before_exit
from flowkit.config import CommonConfig, CoordinatorConfig, WorkerConfig
from flowkit.coordinator import Coordinator
from flowkit.errors import ConfigError
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.task import TaskView
from flowkit.worker import Worker

WORKER_ID = "local"
GRACE_SEC = 1.0
HEARTBEAT_SEC = 0.5
"""Interval of heartbeats. A worker that takes over from a killed one waits for two of them."""
CHECK_SEC = 1.0
"""A worker is asked about a run of which nothing was heard for this long. It does not lose the run
if it answers late. This is less than the wait for heartbeats of a killed worker.
"""
LEASES = {"lease_sec": 3.0}
"""Settings of the file. After a kill, the messages of the killed process wait for this lease."""


@contextmanager
def storage(db: str | None, plugins: Plugins) -> Iterator[dict[str, Any]]:
    """Yield the settings of a store and a bus at ``db``, or in a file that is removed at the end.

    Raises:
        ConfigError: no plugin opens the address; the message names the package to install.
    """
    options: dict[str, Any] = dict(LEASES)
    with ExitStack() as stack:
        if db is None:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="flowkit-", ignore_cleanup_errors=True)
            )
            remove = partial(shutil.rmtree, folder, ignore_errors=True)
            stack.enter_context(called_before_exit(remove))
            db = f"sqlite:///{(Path(folder) / 'flowkit.db').as_posix()}"
            # The file need not survive a power failure.
            options["synchronous"] = "normal"
        plugins.open_bus(db, CommonConfig())
        yield {"db": db, "options": {"sqlite": options}}


def _ignore(session: WorkerSession) -> None:
    pass


@asynccontextmanager
async def embedded(
    handlers: Mapping[str, Any],
    plugins: Plugins,
    settings: Mapping[str, Any],
    *,
    worker_id: str | None = WORKER_ID,
    on_takeover: Callable[[WorkerSession], None] = _ignore,
) -> AsyncIterator[Coordinator]:
    """Run a coordinator and, if there are handlers, a worker, with the settings of a storage.

    If the worker's id has a session, ``on_takeover`` is called before the wait for its heartbeats.
    Without heartbeats, its nodes run again.

    Raises:
        ConfigError: a live worker with another id serves one of the roles.
        WorkerIdTaken: a live worker has the id.
    """
    coordinating = CoordinatorConfig(
        worker_types=list(handlers),
        cancel_grace_sec=2 * GRACE_SEC,
        lease_ttl_sec=CHECK_SEC,
        **settings,
    )
    async with Coordinator(cfg=coordinating, plugins=plugins) as coordinator:
        if not handlers:
            yield coordinator
            return
        working = WorkerConfig(
            worker_id=worker_id,
            hb_interval_sec=HEARTBEAT_SEC,
            stop_grace_sec=GRACE_SEC,
            cancel_grace_sec=GRACE_SEC,
            **settings,
        )
        await _check_roles(coordinator, handlers, worker_id)
        await _take_over(coordinator, worker_id, on_takeover)
        async with Worker(cfg=working, handlers=handlers):
            yield coordinator


async def _check_roles(
    coordinator: Coordinator, roles: Collection[str], worker_id: str | None
) -> None:
    """Check that no other process serves one of these roles with handlers of its own.

    Raises:
        ConfigError: a worker that serves one sends heartbeats.
    """
    store = coordinator.store
    others = [
        session
        for session in await sessions_of(store)
        if session.worker_id != worker_id
        and not set(session.roles).isdisjoint(roles)
        and not process_is_gone(session)
    ]
    heartbeats = await watch_heartbeats(store, others, coordinator.clock, enough=1)
    for session in heartbeats.live:
        role = next(role for role in session.roles if role in roles)
        raise ConfigError(
            f"worker {session.worker_id} ({process_of(session)}) serves the role {role!r} in this"
            " file, so a node might run with its handler instead of yours: use another --db, or"
            " submit the flow to it with flowkit submit"
        )


async def _take_over(
    coordinator: Coordinator, worker_id: str | None, on_takeover: Callable[[WorkerSession], None]
) -> None:
    """Declare the worker lost that has this id, unless it is alive."""
    store = coordinator.store
    session = None if worker_id is None else await session_of(store, worker_id)
    if session is not None:
        on_takeover(session)
        if (await watch_heartbeats(store, [session], coordinator.clock)).silent:
            await coordinator.declare_lost(session.worker_id)


def run_embedded(graph: Graph, handlers: Mapping[str, Any], params: Mapping[str, Any]) -> TaskView:
    """Run a graph with these handlers, and return its ended task."""
    plugins = Plugins()

    async def main() -> TaskView:
        async with embedded(handlers, plugins, settings) as coordinator:
            return await coordinator.wait(await coordinator.create_task(graph=graph, params=params))

    with storage(None, plugins) as settings:
        return anyio.run(main)
