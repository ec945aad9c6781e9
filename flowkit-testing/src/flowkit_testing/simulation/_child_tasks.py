"""The rules of child tasks, for stored tasks and their parents, written without the engine."""

from collections.abc import Mapping

from flowkit.graph import FlowRef
from flowkit.graph._expanded_plan import node_of, runs_child_task
from flowkit.task import ENDED, Mark, NodeRecord, ParentNode, TaskSpec

FOLLOWED = (Mark.RUNNING, Mark.CANCELLING)
MOST_DEEP = 32
"""Most tasks above a child task."""


def child_id(spec: TaskSpec, index: int, record: NodeRecord) -> str | None:
    """Return the id of the child task that a node runs, or ran last; None if a loop has not begun
    its first round.
    """
    link = record.child
    if link is None or link.iteration is None:
        return _id_of(spec, index, record, None)
    iteration = link.iteration if link.due else link.iteration - 1
    return None if iteration < 0 else _id_of(spec, index, record, iteration)


def _id_of(spec: TaskSpec, index: int, record: NodeRecord, iteration: int | None) -> str:
    node = ParentNode(
        spec.task_id,
        spec.plan.ids[index],
        index,
        record.generation,
        record.attempt,
        iteration=iteration,
    )
    return node.child_id()


def ended_round(spec: TaskSpec, index: int, old: NodeRecord, new: NodeRecord) -> str | None:
    """Return the id of the child task whose end let a loop go on to its next round; None if the
    round is the same.

    Raises:
        ValueError: the loop left out a round.
    """
    if old.child is None or new.child is None or old.generation != new.generation:
        return None
    before, after = old.child.iteration, new.child.iteration
    if before is None or after is None or before == after:
        return None
    if after != before + 1:
        raise ValueError(f"went from round {before} to round {after}")
    return _id_of(spec, index, old, before)


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
    if record.child is not None and (
        record.child.iteration != node.iteration or not record.child.due
    ):
        return f"its node is at {record.child}, and it was created for {node}"
    return _broken_flow(spec, parent, node)


def _broken_flow(spec: TaskSpec, parent: TaskSpec, node: ParentNode) -> str | None:
    """Describe what is wrong with the flow that a child task runs, or with its depth; return None
    if nothing is.
    """
    asked = parent.plan.nested[node_of(parent.plan, node.index)]
    version = None
    if isinstance(asked, FlowRef):
        version = asked.name, asked.version or parent.flow_versions.get(asked.name)
    runs = None if spec.flow is None else (spec.flow.name, spec.flow.version)
    if runs != version:
        return f"it runs {runs}, and its node {version}"
    if spec.flow_versions != parent.flow_versions:
        return f"its flows are {spec.flow_versions}, and those of its parent {parent.flow_versions}"
    if not parent.depth + 1 == spec.depth <= MOST_DEEP:
        return f"its depth is {spec.depth}, and that of its parent {parent.depth}"
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
