"""Evaluation of conditions: at once with a small budget, or in a thread with a large one."""

from dataclasses import dataclass
from functools import partial

import anyio.to_thread

from flowkit._engine import ConditionDelayed, ConditionEvaluated
from flowkit._expressions import Budget, BudgetExceeded, InvalidExpression, compilations
from flowkit._tasks.evaluation import MEMORY_AT_ONCE, STEPS_AT_ONCE, Evaluations
from flowkit._tasks.scopes import scope_of
from flowkit.errors import NodeFailure
from flowkit.graph import Plan
from flowkit.graph._conditions import condition_failure, evaluate_condition
from flowkit.graph._nodes_read import EDGES_AT_ONCE, nodes_needed
from flowkit.graph._templates import CHARACTERS_A_STEP, CHARACTERS_AT_ONCE, STEPS_TO_COMPILE
from flowkit.protocols import Store
from flowkit.task import Task

STEPS_A_COMMIT = 200_000
"""Steps of all conditions of a task before one commit. Other tasks wait meanwhile: some tens of
milliseconds.
"""


@dataclass(slots=True)
class Allowance:
    """Steps left for conditions before a commit."""

    steps: int = STEPS_A_COMMIT


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
        needed = nodes_needed(task.spec.plan, index, [expression], most_edges=EDGES_AT_ONCE)
        if needed is None:
            return ConditionDelayed(index)
        value = evaluate_condition(expression, await scope_of(store, task, index, needed), budget)
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


async def evaluate_delayed(
    store: Store, task: Task, index: int, since: float, evaluations: Evaluations
) -> ConditionEvaluated:
    """Evaluate a delayed condition in a thread. A cancelled evaluation ends soon.

    Raises:
        StoreError: the results that the condition reads could not be loaded.
    """
    expression = _expression(task.spec.plan, index)
    find = partial(nodes_needed, task.spec.plan, index, [expression])
    try:
        needed = await anyio.to_thread.run_sync(find, abandon_on_cancel=True)
        assert needed is not None
        scope = await scope_of(store, task, index, needed)
        value = await evaluations.in_thread(
            lambda budget, _: evaluate_condition(expression, scope, budget)
        )
    except (BudgetExceeded, InvalidExpression) as error:
        failure = condition_failure(expression, str(error))
        return ConditionEvaluated(index, error=str(failure), since=since)
    except NodeFailure as error:
        return ConditionEvaluated(index, error=str(error), since=since)
    return ConditionEvaluated(index, value, since=since)


def _expression(plan: Plan, index: int) -> str:
    expression = plan.nodes[index].when
    assert expression is not None
    return expression
