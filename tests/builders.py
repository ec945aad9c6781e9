"""Graphs, handlers and waits that many tests share.

The graphs are plain dictionaries, as a user would submit them.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import anyio

from flowkit import TaskView
from flowkit.worker import Worker, handler
from flowkit_testing import Cluster

DAY = 24 * 3600

# ---------------------------------------------------------------- graphs


def graph(*nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a graph of these nodes; ``fields`` are those of the graph itself."""
    return {"nodes": list(nodes), **fields}


def node(node_id: str, role: str = "work", *after: str, **fields: Any) -> dict[str, Any]:
    """Return a node that depends on the nodes ``after``."""
    return {"node_id": node_id, "type": role, "depends_on": list(after), **fields}


def pull(node_id: str, role: str, *after: str, **fields: Any) -> dict[str, Any]:
    """Return a node that reads the artifacts of its parents while they run."""
    io = {
        "start_when": "first_batch",
        "input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {}},
    }
    return node(node_id, role, *after, io=io, **fields)


def chain(*roles: str) -> dict[str, Any]:
    """Return a graph of the nodes n0, n1, …, each of which depends on the one before."""
    return graph(
        *(
            node(f"n{number}", role, *([f"n{number - 1}"] if number else []))
            for number, role in enumerate(roles)
        )
    )


ONE = graph(node("a"))
"""A graph of one node."""
TWO = graph(node("a"), node("b", "work", "a"))
"""A graph of two nodes, the second of which depends on the first."""


def nested(levels: int) -> Any:
    """Return a list in a list, and so on, around a number."""
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


# ---------------------------------------------------------------- handlers and plugins


async def echo(item: Any) -> Any:
    """Return the input."""
    return item


work = handler("work")(echo)
"""A handler for the role ``work`` that returns its input."""


@handler("pages")
async def pages(count: int) -> Any:
    """Store this many artifacts."""
    for number in range(count):
        yield {"page": number}


def plugin(name: str, **hooks: Any) -> SimpleNamespace:
    """Return a plugin with these hooks."""
    return SimpleNamespace(__name__=name, **hooks)


# ---------------------------------------------------------------- waits


async def ended(cluster: Cluster, task_id: str) -> TaskView:
    """Wait until a task ends, for at most a day of the cluster's time."""
    return await cluster.client.wait(task_id, timeout=DAY)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for the work of other threads or processes, which no event announces."""
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.005)


# ---------------------------------------------------------------- the event loop


async def turns_during(work: Awaitable[Any]) -> tuple["asyncio.Future[Any]", int]:
    """Return some work that has ended, and the turns of the event loop meanwhile."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.000_5)  # threads take turns often, on any machine
    turns = 0
    try:
        running = asyncio.ensure_future(work)
        while not running.done():
            await asyncio.sleep(0)
            turns += 1
    finally:
        sys.setswitchinterval(interval)
    return running, turns


async def die(cluster: Cluster, worker: Worker) -> None:
    """End a worker as if its process were killed: it sends no report."""
    cluster.workers.remove(worker)
    life = worker._service
    assert life is not None
    life.host.cancel()
    await asyncio.wait([life.host])
