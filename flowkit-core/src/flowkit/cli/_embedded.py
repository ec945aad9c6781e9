"""Coordinator and worker in this process, with a store and a bus in memory."""

import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from flowkit.cli._loader import LoadedFlow
from flowkit.cli._log_output import log_run
from flowkit.config import CommonConfig, CoordinatorConfig, WorkerConfig
from flowkit.coordinator import Coordinator
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit.worker import Worker

WORKER_ID = "local"
GRACE_SEC = 1.0


def in_memory(name: str, plugins: Plugins) -> str:
    """Return a memory address that is unique in this process.

    Raises:
        ConfigError: no plugin opens memory addresses.
    """
    address = f"memory://{name}-{secrets.token_hex(4)}"
    if plugins.first("flowkit_open_bus", address=address, config=CommonConfig()) is None:
        raise ConfigError(
            "this command needs the store and the bus in memory; pip install flowkit-testing"
        )
    return address


def handlers_for(flow: LoadedFlow, given: Mapping[str, Any], plugins: Plugins) -> dict[str, Any]:
    """Return the handler for each role of the flow.

    A handler given on the command line takes precedence over one in the flow's own file, and that
    over one of a plugin.

    Raises:
        ConfigError: a role has no handler.
    """
    known = {**plugins.handlers, **flow.handlers, **given}
    missing = [
        f"role {role!r} ({_nodes(nodes)})"
        for role, nodes in flow.roles.items()
        if role not in known
    ]
    if missing:
        raise ConfigError(f"no handler for {', '.join(missing)}; use --handlers module:attr")
    return {role: known[role] for role in flow.roles}


def _nodes(node_ids: list[str]) -> str:
    shown = ", ".join(map(repr, node_ids[:3]))
    return f"node{'s' if len(node_ids) > 1 else ''} {shown}{', …' if len(node_ids) > 3 else ''}"


@asynccontextmanager
async def embedded(handlers: Mapping[str, Any], plugins: Plugins) -> AsyncIterator[Coordinator]:
    """Run a coordinator and, if there are handlers, a worker."""
    address = in_memory("run", plugins)
    log_run()
    coordinating = CoordinatorConfig(
        db=address, bus=address, worker_types=list(handlers), cancel_grace_sec=2 * GRACE_SEC
    )
    async with Coordinator(cfg=coordinating, plugins=plugins) as coordinator:
        if not handlers:
            yield coordinator
            return
        working = WorkerConfig(
            db=address,
            bus=address,
            worker_id=WORKER_ID,
            stop_grace_sec=GRACE_SEC,
            cancel_grace_sec=GRACE_SEC,
        )
        async with Worker(cfg=working, handlers=handlers):
            yield coordinator
