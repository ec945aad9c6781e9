"""Inputs of runs: the data of a task that a node may read, and its input with the values of its
expressions.
"""

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any

import anyio.to_thread
from pydantic_core import to_json

from flowkit._engine import undone_node
from flowkit._expressions import BudgetExceeded, InvalidExpression
from flowkit._records.map_items import item_of
from flowkit._records.queries import errors_of, load_task, results_of
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.scopes import ending_of, in_turns, undone_result
from flowkit.graph import Plan
from flowkit.graph._child_inputs import ChildInput, child_input
from flowkit.graph._conditions import task_values
from flowkit.graph._expanded_plan import number_of
from flowkit.graph._expression_checks import INDEX
from flowkit.graph._nodes_read import NodesNeeded, input_needed, input_needed_at_once
from flowkit.graph._templates import FIELDS, bad_expression, evaluate_input
from flowkit.messages import ExpressionData, RunContextData
from flowkit.protocols import Store
from flowkit.task import Task, TaskSpec


async def needed_by(task: Task, index: int) -> NodesNeeded:
    """Return the nodes that the expressions in the input of a node read.

    Raises:
        NodeFailure: an expression is not valid any more.
    """
    plan = task.spec.plan
    if index not in plan.computed:
        return {}
    try:
        needed = input_needed_at_once(plan, index)
        if needed is None:
            find = partial(input_needed, plan, index)
            needed = await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
    except InvalidExpression as error:
        raise bad_expression(f"an expression of the input is not valid: {error}") from None
    return needed


async def context_of(
    store: Store, task: Task, index: int, needed: NodesNeeded
) -> dict[str, dict[str, Any]]:
    """Return the results and errors that a node may read: those of its parents, and of the nodes
    that its expressions read.
    """
    parents = task.spec.plan.read_by(index)
    seen = parents_seen(task, index)
    with_results = list(dict.fromkeys((*seen, *needed.get("results", ()))))
    with_errors = list(dict.fromkeys((*parents, *needed.get("errors", ()))))
    return {
        "results": await in_turns(with_results, lambda nodes: results_of(store, task, nodes)),
        "errors": await in_turns(with_errors, lambda nodes: errors_of(store, task, nodes)),
    }


def parents_seen(task: Task, index: int) -> Sequence[int]:
    """Return the parents whose results a node sees.

    Raises:
        NodeFailure: an expression is not valid any more.
    """
    plan = task.spec.plan
    if index < plan.size:
        return plan.read_by(index)
    undone = undone_node(task, index)
    return _child_input(plan, index).parents if undone is None else (undone,)


LARGE_PARAMS = 2_048
"""Size of params as JSON, above which they do not travel with each child of a map."""


def params_key(spec: TaskSpec) -> str:
    """Return a hash of the params of a task if they are large, else an empty string."""
    if spec.params_key is None:
        data = to_json(spec.params)
        spec.params_key = (
            blake2b(data, digest_size=12).hexdigest() if len(data) > LARGE_PARAMS else ""
        )
    return spec.params_key


async def own_names(store: Store, task: Task, index: int) -> dict[str, Any]:
    """Return the values of the names that only the expressions of this node have: the item of a
    child of a map, and its number. The undo of a child has those of the child.

    Raises:
        NodeFailure: an expression is not valid any more.
        CorruptRecord: the item is missing or damaged.
    """
    plan = task.spec.plan
    if index < plan.size:
        return {}
    names = dict[str, Any]()
    undone = undone_node(task, index)
    child = index if undone is None else undone
    for name in _child_input(plan, index).names:
        names[name] = number_of(plan, index) if name == INDEX else await item_of(store, task, child)
    return names


def _child_input(plan: Plan, index: int) -> ChildInput:
    try:
        return child_input(plan, index)
    except InvalidExpression as error:
        raise bad_expression(f"an expression of the map is not valid: {error}") from None


async def expression_data(
    store: Store, task: Task, index: int, needed: NodesNeeded, results: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the fields of an :class:`~flowkit.messages.ExpressionData`."""
    ids = task.spec.plan.ids
    read = [ids[node] for node in needed.get("results", ())]
    return {
        "pipeline": task.spec.pipeline,
        "labels": task.spec.labels,
        "created_at": task.spec.created_at,
        "without_result": [node_id for node_id in read if node_id not in results],
        "names": await undone_result(store, task, index) | await own_names(store, task, index),
        "task": ending_of(task, index),
    }


async def run_data(store: Store, task_id: str, index: int) -> RunContextData:
    """Return the data of its task that a node may read.

    Raises:
        TaskNotFound: there is no such task.
        NodeFailure: an expression is not valid any more.
    """
    task = await load_task(store, task_id)
    plan = task.spec.plan
    needed = await needed_by(task, index)
    context = await context_of(store, task, index, needed)
    about = (
        ExpressionData(**await expression_data(store, task, index, needed, context["results"]))
        if index in plan.computed
        else None
    )
    return RunContextData(
        io=plan.nodes[index].io.model_dump(exclude_unset=True),
        params=task.spec.params,
        vars=task.vars,
        streams=any(edge.streams for edge in plan.parents[index]),
        expressions=about,
        **context,
    )


async def evaluated_data(
    task_id: str, data: RunContextData, evaluations: Evaluations
) -> RunContextData:
    """Return the data of a node with the values of its expressions.

    Raises:
        NodeFailure: an expression cannot be evaluated; permanent, ``bad_expression``.
    """
    about = data.expressions
    assert about is not None
    scope = {
        "params": data.params,
        "vars": data.vars,
        "results": dict.fromkeys(about.without_result) | data.results,
        "errors": data.errors,
        "task": task_values(task_id, about.pipeline, about.labels, about.created_at) | about.task,
        **about.names,
    }
    return data.model_copy(update={"io": await evaluated_io(data.io, scope, evaluations)})


async def evaluated_io(
    io: Mapping[str, Any],
    scope: Mapping[str, Any],
    evaluations: Evaluations,
    *,
    fields: Collection[str] = FIELDS,
) -> dict[str, Any]:
    """Return an input with the values of the expressions in these fields.

    Raises:
        NodeFailure: an expression cannot be evaluated; permanent, ``bad_expression``.
    """
    try:
        return await evaluations.bounded(
            lambda budget, at_once: evaluate_input(
                io, scope, budget, at_once=at_once, fields=fields
            )
        )
    except BudgetExceeded as error:
        raise bad_expression(str(error)) from None
