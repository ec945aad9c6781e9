"""Why a node was stopped, derived from its task: a node that had not begun has no record."""

from typing import Protocol

from flowkit.task import UNBEGUN, TaskSpec, TaskStatus

DEADLINE_PASSED = "the task's deadline passed"


class TaskState(Protocol):
    """The state of a task, stored or in transition."""

    outcome: TaskStatus | None
    error: str | None
    reason: str | None

    @property
    def spec(self) -> TaskSpec: ...
    def mark(self, index: int) -> int: ...


def stop_cause(state: TaskState, index: int, reason_code: str | None) -> tuple[str, str | None]:
    """Return the reason code of a stopped node, and the cause in words if there is more to say.

    ``reason_code`` is that of the node's record; a node without one was stopped together with its
    task.
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


def _of_task(state: TaskState) -> str:
    if state.outcome is TaskStatus.CANCELLED:
        return "cancelled"
    return "deadline_exceeded" if state.error == DEADLINE_PASSED else "task_failed"


def _satisfied_child(state: TaskState, index: int) -> str | None:
    """Name the child that began with its other parents and stopped this one."""
    plan = state.spec.plan
    for edge in plan.children[index]:
        if plan.nodes[edge.node].on_satisfied == "cancel" and state.mark(edge.node) not in UNBEGUN:
            return f"node {plan.ids[edge.node]!r} needs no more parents"
    return None
