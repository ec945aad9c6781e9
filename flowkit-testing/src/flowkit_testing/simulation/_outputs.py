"""The rules of the output of a task, for one stored state."""

from flowkit._expressions import Budget, BudgetExceeded
from flowkit._tasks.scopes import scope_of
from flowkit.errors import NodeFailure
from flowkit.graph import Plan
from flowkit.graph._conditions import MAX_MEMORY, MAX_STEPS
from flowkit.graph._nodes_read import output_needed
from flowkit.graph._templates import evaluate_output
from flowkit.protocols import Store
from flowkit.task import ENDED, Mark, Task, TaskStatus
from flowkit_testing.simulation._store import at_once


def broken_output(store: Store, task: Task) -> str | None:
    """Describe what is wrong with the value of the graph's ``output``; None if it is right."""
    plan, output = task.spec.plan, task.output
    if output is not None and output.ended:
        return None
    value = None if output is None else output.value
    if task.outcome is not TaskStatus.FINISHED:
        return None if value is None else f"the task is {task.status} and has the output {value!r}"
    scope = at_once(scope_of(store, task, None, output_needed(plan)))
    try:
        expected = evaluate_output(plan.output, scope, Budget(MAX_STEPS, MAX_MEMORY))
    except (BudgetExceeded, NodeFailure) as error:
        return f"the task has finished, and its output has no value: {error}"
    if value != expected:
        return f"the task has finished with the output {value!r} instead of {expected!r}"
    return None


def awaits_output(plan: Plan, marks: str, status: str) -> bool:
    """Return whether all nodes of the main phase have ended, and the output is evaluated."""
    later = marks.encode()[plan.main :]
    return (
        plan.output is not None
        and not TaskStatus(status).terminal
        and all(mark in ENDED for mark in marks.encode()[: plan.main])
        and all(mark == Mark.HELD for mark in later)
    )
