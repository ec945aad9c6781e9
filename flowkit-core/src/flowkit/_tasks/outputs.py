"""Evaluation of outputs: at once with a small budget, or in a thread with a large one."""

from typing import Any

import anyio.to_thread
from pydantic_core import to_json

from flowkit._engine import OutputDelayed, OutputEvaluated
from flowkit._expressions import Budget, BudgetExceeded, InvalidExpression
from flowkit._tasks.conditions import Allowance
from flowkit._tasks.evaluation import MEMORY_AT_ONCE, STEPS_AT_ONCE, Evaluations
from flowkit._tasks.scopes import scope_of
from flowkit.errors import NodeFailure
from flowkit.graph._nodes_read import output_needed, output_needed_at_once
from flowkit.graph._templates import evaluate_output
from flowkit.protocols import Store
from flowkit.task import Task


async def output_at_once(
    store: Store, task: Task, allowance: Allowance, *, max_bytes: int
) -> OutputEvaluated | OutputDelayed:
    """Evaluate the output of a task if it takes a few milliseconds at most, and delay it
    otherwise.
    """
    plan = task.spec.plan
    budget = Budget(min(STEPS_AT_ONCE, allowance.steps), MEMORY_AT_ONCE)
    try:
        needed = output_needed_at_once(plan) if allowance.steps > 0 else None
        if needed is None:
            return OutputDelayed()
        scope = await scope_of(store, task, None, needed)
        value = evaluate_output(plan.output, scope, budget, at_once=True)
    except BudgetExceeded:
        return OutputDelayed()
    except NodeFailure as error:
        return OutputEvaluated(error=f"bad_expression: {error}")
    finally:
        allowance.steps -= budget.used
    return _checked(value, max_bytes)


async def output_delayed(
    store: Store, task: Task, since: float, evaluations: Evaluations, *, max_bytes: int
) -> OutputEvaluated:
    """Evaluate a delayed output in a thread. A cancelled evaluation ends soon.

    Raises:
        StoreError: the results that the output reads could not be loaded.
    """
    plan = task.spec.plan

    def evaluated(budget: Budget, scope: dict[str, Any]) -> OutputEvaluated:
        return _checked(evaluate_output(plan.output, scope, budget), max_bytes, since)

    try:
        needed = await anyio.to_thread.run_sync(output_needed, plan, abandon_on_cancel=True)
        scope = await scope_of(store, task, None, needed)
        return await evaluations.in_thread(lambda budget, _: evaluated(budget, scope))
    except (BudgetExceeded, InvalidExpression, NodeFailure) as error:
        return OutputEvaluated(error=f"bad_expression: {error}", since=since)


def _checked(value: Any, max_bytes: int, since: float | None = None) -> OutputEvaluated:
    """Return the event with the value of an output, or with the error that it is too large."""
    size = len(to_json(value))
    if size > max_bytes:
        error = (
            f"result_too_large: the output has {size} bytes as JSON, above the limit of"
            f" {max_bytes} bytes (limits.max_result_bytes)"
        )
        return OutputEvaluated(error=error, since=since)
    return OutputEvaluated(value, since=since)
