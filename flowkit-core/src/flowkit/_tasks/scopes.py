"""Scopes: the values of the names in the expressions of a task."""

from collections.abc import Callable
from typing import Any

import anyio.lowlevel

from flowkit._records.queries import errors_of, results_of
from flowkit.graph._conditions import task_values
from flowkit.graph._nodes_read import NodesNeeded
from flowkit.protocols import Store
from flowkit.task import Task, TaskSpec

RESULTS_A_TURN = 200
"""Results that are read before other coroutines run."""


async def scope_of(store: Store, task: Task, needed: NodesNeeded) -> dict[str, Any]:
    """Return the scope of expressions that read these nodes. A node without a result has None."""
    results = needed.get("results", [])
    return {
        "params": task.spec.params,
        "vars": task.vars,
        "results": dict.fromkeys(task.spec.plan.ids[node] for node in results)
        | await in_turns(results, lambda nodes: results_of(store, task, nodes)),
        "errors": await in_turns(
            needed.get("errors", []), lambda nodes: errors_of(store, task, nodes)
        ),
        "task": task_of(task.spec),
    }


def task_of(spec: TaskSpec) -> dict[str, Any]:
    """Return the value of the name ``task``."""
    return task_values(spec.task_id, spec.pipeline, spec.labels, spec.created_at)


async def in_turns(nodes: list[int], read: Callable[[list[int]], Any]) -> dict[str, Any]:
    """Return what ``read`` returns for all nodes. Other coroutines run between its calls."""
    found: dict[str, Any] = {}
    for place in range(0, len(nodes), RESULTS_A_TURN):
        if place:
            await anyio.lowlevel.checkpoint()
        found.update(await read(nodes[place : place + RESULTS_A_TURN]))
    return found
