"""Scopes: the values of the names in the expressions of a task."""

from collections.abc import Callable
from typing import Any

import anyio.lowlevel

from flowkit._engine import end_status, error_of, undone_node
from flowkit._records.queries import errors_of, results_of
from flowkit.graph._conditions import task_values
from flowkit.graph._expanded_plan import node_of
from flowkit.graph._nodes_read import NodesNeeded
from flowkit.protocols import Store
from flowkit.task import Task, TaskSpec

RESULTS_A_TURN = 200
"""Results that are read before other coroutines run."""


async def scope_of(
    store: Store, task: Task, index: int | None, needed: NodesNeeded
) -> dict[str, Any]:
    """Return the scope of the expressions of a node, or of the output if ``index`` is None. They
    read the ``needed`` nodes, and a node without a result has None.
    """
    results = needed.get("results", [])
    return {
        "params": task.spec.params,
        "vars": task.vars,
        "results": dict.fromkeys(task.spec.plan.ids[node] for node in results)
        | await in_turns(results, lambda nodes: results_of(store, task, nodes)),
        "errors": await in_turns(
            needed.get("errors", []), lambda nodes: errors_of(store, task, nodes)
        ),
        "task": task_of(task.spec) | ending_of(task, index),
        **await undone_result(store, task, index),
    }


def task_of(spec: TaskSpec) -> dict[str, Any]:
    """Return the value of the name ``task``."""
    return task_values(spec.task_id, spec.pipeline, spec.labels, spec.created_at)


def ending_of(task: Task, index: int | None) -> dict[str, Any]:
    """Return the fields of the name ``task`` that only the nodes of ``finally`` see: the status in
    which the task will end, and its error.
    """
    plan = task.spec.plan
    if plan.ends is None or index is None or node_of(plan, index) not in plan.ends.final:
        return {}
    status = end_status(plan, task)
    return {"status": None if status is None else status.value, "error": error_of(task)}


async def undone_result(store: Store, task: Task, index: int | None) -> dict[str, Any]:
    """Return the name ``result`` with its value for an undo: the result of its node."""
    undone = None if index is None else undone_node(task, index)
    if undone is None:
        return {}
    found = await results_of(store, task, [undone])
    return {"result": found.get(task.spec.plan.ids[undone])}


async def in_turns(nodes: list[int], read: Callable[[list[int]], Any]) -> dict[str, Any]:
    """Return what ``read`` returns for all nodes. Other coroutines run between its calls."""
    found: dict[str, Any] = {}
    for place in range(0, len(nodes), RESULTS_A_TURN):
        if place:
            await anyio.lowlevel.checkpoint()
        found.update(await read(nodes[place : place + RESULTS_A_TURN]))
    return found
