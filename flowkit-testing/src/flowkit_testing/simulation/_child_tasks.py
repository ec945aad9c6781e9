"""The rules of child tasks, for stored tasks and their parents, written without the engine."""

from collections.abc import Mapping

from flowkit.graph._expanded_plan import runs_child_task
from flowkit.task import ENDED, Mark, NodeRecord, ParentNode, TaskSpec

FOLLOWED = (Mark.RUNNING, Mark.CANCELLING)


def child_id(spec: TaskSpec, index: int, record: NodeRecord) -> str:
    """Return the id of the child task that a node runs."""
    node_id = spec.plan.ids[index]
    return ParentNode(spec.task_id, node_id, index, record.generation, record.attempt).child_id()


def broken_creation(
    spec: TaskSpec, parent: TaskSpec | None, marks: str, nodes: Mapping[int, NodeRecord]
) -> str | None:
    """Describe why a child task must not have been created; return None if it may be."""
    node = spec.parent
    if node is None:
        return None
    if parent is None or not runs_child_task(parent.plan, node.index):
        return f"its parent {node.task_id!r} has no node that runs child tasks"
    if spec.task_id != node.child_id():
        return f"its id is not that of {node}"
    record = nodes.get(node.index) or NodeRecord()
    if record.generation != node.generation:
        return f"its node is in generation {record.generation}, and it was created for {node}"
    if ord(marks[node.index]) not in FOLLOWED:
        return f"its node is {marks[node.index]!r} and waits for no task"
    return None


def broken_end(mark: int, status: str | None) -> str | None:
    """Describe why a node that runs a child task must not end now; return None if it may.
    ``status`` is that of the child task, None if there is none.
    """
    if mark == Mark.FINISHED and status != "finished":
        return f"its child task is {status}"
    if mark in ENDED and status not in (None, "finished", "failed", "cancelled"):
        return f"its child task is still {status}"
    return None
