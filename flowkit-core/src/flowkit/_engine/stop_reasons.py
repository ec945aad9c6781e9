"""Why a node was stopped, derived from its task: a node that had not begun has no record."""

from typing import TYPE_CHECKING

from flowkit.task import UNBEGUN, Task, TaskStatus

if TYPE_CHECKING:
    from flowkit._engine.transition import Transition

DEADLINE_PASSED = "the task's deadline passed"


def stop_cause(state: "Task | Transition", index: int, reason_code: str | None) -> tuple[str, str | None]:
    """Return the reason code of a stopped node, and the cause in words if there is more to say.

    ``reason_code`` is that of the node's record; a node without one was stopped together with its task.
    """
    code = reason_code or _of_task(state)
    match code:
        case "cancelled":
            text = state.reason
        case "task_failed" | "deadline_exceeded":
            text = state.error
        case "not_needed":
            text = _satisfied_child(state, index)
        case _:
            text = None
    return code, text or None


def _of_task(state: "Task | Transition") -> str:
    if state.outcome is TaskStatus.CANCELLED:
        return "cancelled"
    return "deadline_exceeded" if state.error == DEADLINE_PASSED else "task_failed"


def _satisfied_child(state: "Task | Transition", index: int) -> str | None:
    """Name the child that began with its other parents and stopped this one."""
    mark = state.marks.__getitem__ if isinstance(state, Task) else state.mark
    plan = state.spec.plan if isinstance(state, Task) else state.task.spec.plan
    for edge in plan.children[index]:
        if plan.nodes[edge.node].on_satisfied == "cancel" and mark(edge.node) not in UNBEGUN:
            return f"node {plan.ids[edge.node]!r} needs no more parents"
    return None
