"""State of a node that runs a child task, as of a commit."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowkit._engine import FOLLOWED, Effect, RunChild, child_node, stop_cause
from flowkit._json.limits import LONGEST_REASON
from flowkit._text.redaction import without_middle
from flowkit.task import ChildLink, Mark, ParentNode, Task


@dataclass(frozen=True, slots=True)
class ChildState:
    """State that a child task follows. The task in memory may be ahead of its record, and a commit
    that is refused undoes what is ahead.
    """

    node: ParentNode
    link: ChildLink
    paused: bool
    stop: str | None
    """Reason why the child task is to stop."""
    forced: bool
    """The stop also ends undos and ``finally``."""


def child_states(task: Task, effects: Sequence[Effect]) -> list[ChildState]:
    """Return the states of the nodes of a committed task whose child tasks are to follow."""
    indexes = dict.fromkeys(effect.index for effect in effects if isinstance(effect, RunChild))
    return [state for index in indexes if (state := child_state(task, index)) is not None]


def child_state(task: Task, index: int) -> ChildState | None:
    """Return the state of a node; None if no child task follows it."""
    record = task.records.get(index)
    if record is None or record.child is None or task.marks[index] not in FOLLOWED:
        return None
    stops = task.marks[index] == Mark.CANCELLING or record.child.overdue
    return ChildState(
        child_node(task, index, record),
        record.child,
        task.paused,
        _stop_reason(task, index) if stops else None,
        task.forced,
    )


def _stop_reason(task: Task, index: int) -> str:
    name = task.spec.plan.ids[index]
    if task.marks[index] != Mark.CANCELLING:
        return f"node {name!r} of the parent ran too long"
    code, cause = stop_cause(task, index)
    reason = f"node {name!r} of the parent was stopped: {cause or code}"
    return without_middle(reason, LONGEST_REASON)
