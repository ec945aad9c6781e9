"""Evaluation of conditions: at once with a small budget, or in a thread with a large one."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import anyio.lowlevel
import anyio.to_thread

from flowkit._engine import ConditionDelayed, ConditionEvaluated
from flowkit._expressions import Budget, BudgetExceeded, InvalidExpression, Timestamp, compilations
from flowkit._records.queries import errors_of, results_of
from flowkit.errors import NodeFailure
from flowkit.graph import Plan
from flowkit.graph._conditions import (
    MAX_MEMORY,
    MAX_STEPS,
    condition_failure,
    evaluate_condition,
    nodes_read,
)
from flowkit.protocols import Store
from flowkit.task import Task

STEPS_AT_ONCE, MEMORY_AT_ONCE = 10_000, 1_000_000
EDGES_AT_ONCE = 1_000
"""Edges above a node. Beyond this, a condition that may read any result above is delayed."""
STEPS_A_COMMIT = 200_000
"""Steps of all conditions of a task before one commit. Other tasks wait meanwhile: some tens of
milliseconds.
"""
CHARACTERS_A_STEP = 2
"""Characters of an expression, without loops, that take as long as one step."""
CHARACTERS_AT_ONCE = 1_000
"""Length of an expression. A longer one is delayed: compiling it takes many milliseconds."""
STEPS_TO_COMPILE = 16
"""Steps that take as long as compiling one character of an expression."""
RESULTS_A_TURN = 200
"""Results that are read before other coroutines run."""


@dataclass(slots=True)
class Allowance:
    """Steps left for conditions before a commit."""

    steps: int = STEPS_A_COMMIT


class _Abandoned(BaseException):
    """End of an evaluation in a thread whose caller was cancelled."""


async def evaluate_at_once(
    store: Store, task: Task, index: int, allowance: Allowance
) -> ConditionEvaluated | ConditionDelayed:
    """Evaluate a condition if it takes a few milliseconds at most, and delay it otherwise."""
    expression = _expression(task.spec.plan, index)
    if allowance.steps <= 0 or len(expression) > CHARACTERS_AT_ONCE:
        return ConditionDelayed(index)
    budget = Budget(min(STEPS_AT_ONCE, allowance.steps), MEMORY_AT_ONCE)
    compiled = compilations()
    try:
        needed = nodes_needed(task.spec.plan, index, most_edges=EDGES_AT_ONCE)
        if needed is None:
            return ConditionDelayed(index)
        value = evaluate_condition(expression, await _scope(store, task, needed), budget)
    except BudgetExceeded:
        return ConditionDelayed(index)
    except InvalidExpression as error:
        return ConditionEvaluated(index, error=str(condition_failure(expression, str(error))))
    except NodeFailure as error:
        return ConditionEvaluated(index, error=str(error))
    finally:
        allowance.steps -= budget.used + len(expression) // CHARACTERS_A_STEP
        if compilations() != compiled:
            allowance.steps -= STEPS_TO_COMPILE * len(expression)
    return ConditionEvaluated(index, value)


async def evaluate_in_thread(
    store: Store, task: Task, index: int, since: float
) -> ConditionEvaluated:
    """Evaluate a delayed condition in a thread. A cancelled evaluation ends soon.

    Raises:
        StoreError: the results that the condition reads could not be loaded.
    """
    expression = _expression(task.spec.plan, index)
    try:
        needed = await anyio.to_thread.run_sync(
            partial(nodes_needed, task.spec.plan, index), abandon_on_cancel=True
        )
    except InvalidExpression as error:
        return ConditionEvaluated(
            index, error=str(condition_failure(expression, str(error))), since=since
        )
    assert needed is not None
    scope = await _scope(store, task, needed)
    abandoned = False

    def pause() -> None:
        if abandoned:
            raise _Abandoned
        time.sleep(0)

    def evaluate() -> ConditionEvaluated:
        try:
            value = evaluate_condition(
                expression, scope, Budget(MAX_STEPS, MAX_MEMORY, pause=pause)
            )
        except BudgetExceeded as error:
            return ConditionEvaluated(
                index, error=str(condition_failure(expression, str(error))), since=since
            )
        except NodeFailure as error:
            return ConditionEvaluated(index, error=str(error), since=since)
        return ConditionEvaluated(index, value, since=since)

    try:
        return await anyio.to_thread.run_sync(evaluate, abandon_on_cancel=True)
    finally:
        abandoned = True


def nodes_needed(
    plan: Plan, index: int, *, most_edges: int | None = None
) -> dict[str, list[int]] | None:
    """Return the nodes that a condition reads, by variable (``results``, ``errors``); None if more
    than ``most_edges`` edges lead to them.
    """
    above: list[int] | None = None
    needed: dict[str, list[int]] = {}
    for name, nodes in nodes_read(_expression(plan, index)).items():
        if nodes is not None:
            needed[name] = [plan.index[node] for node in nodes if node in plan.index]
            continue
        if above is None:
            above = nodes_above(plan, index, most_edges=most_edges)
        if above is None:
            return None
        needed[name] = above
    return needed


def nodes_above(plan: Plan, index: int, *, most_edges: int | None = None) -> list[int] | None:
    """Return all nodes above a node; None if more than ``most_edges`` edges lead to them."""
    found: dict[int, None] = {}
    grow = [index]
    edges = 0
    while grow:
        parents = plan.parents[grow.pop()]
        edges += len(parents)
        if most_edges is not None and edges > most_edges:
            return None
        for edge in parents:
            if edge.node not in found:
                found[edge.node] = None
                grow.append(edge.node)
    return sorted(found)


async def _scope(store: Store, task: Task, needed: Mapping[str, list[int]]) -> dict[str, Any]:
    spec = task.spec
    about = {
        "id": spec.task_id,
        "pipeline": spec.pipeline,
        "labels": spec.labels,
        "created_at": Timestamp(round(spec.created_at * 1_000_000) * 1_000),
    }
    return {
        "params": spec.params,
        "vars": task.vars,
        "results": await _in_turns(
            needed.get("results", []), lambda nodes: _results(store, task, nodes)
        ),
        "errors": await _in_turns(
            needed.get("errors", []), lambda nodes: errors_of(store, task, nodes)
        ),
        "task": about,
    }


async def _in_turns(nodes: list[int], read: Callable[[list[int]], Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for place in range(0, len(nodes), RESULTS_A_TURN):
        if place:
            await anyio.lowlevel.checkpoint()
        found.update(await read(nodes[place : place + RESULTS_A_TURN]))
    return found


async def _results(store: Store, task: Task, nodes: list[int]) -> dict[str, Any]:
    """Return the results of these nodes, None for nodes without one."""
    return {task.spec.plan.ids[node]: None for node in nodes} | await results_of(store, task, nodes)


def _expression(plan: Plan, index: int) -> str:
    expression = plan.nodes[index].when
    assert expression is not None
    return expression
