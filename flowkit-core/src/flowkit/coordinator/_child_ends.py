"""Events for the parents of child tasks that have ended."""

import re

from flowkit._engine import ChildFailed, ChildFinished, error_of
from flowkit._tasks.child_states import child_state
from flowkit._tasks.views import result_of
from flowkit.messages import ChildEnded
from flowkit.task import Mark, ParentNode, Task, TaskStatus


def end_in_memory(parent: Task, child: Task) -> ChildFinished | ChildFailed | ChildEnded:
    """Return the event for a parent in memory of a child task whose end was stored.

    It is a notice that the child task is to be read from the store if the copies in memory do not
    suffice: that of the parent may be old, the condition of a loop may take long, and results of
    the child task may be in its archive.
    """
    node = child.spec.parent
    assert node is not None
    state = child_state(parent, node.index)
    if (
        state is not None
        and node.iteration is None
        and node.is_same_node(state.node)
        and has_ended_for(child, state.node)
    ):
        if child.status is not TaskStatus.FINISHED:
            return bad_end(child, state.node)
        if _has_results(child):
            return ChildFinished(node.index, state.node.attempt, result_of(child, {}))
    return ChildEnded(task_id=node.task_id, index=node.index)


def has_ended_for(child: Task, node: ParentNode) -> bool:
    """Return whether the end of a child task is that of the current attempt of the node."""
    return child.status is TaskStatus.FINISHED or (
        child.terminal and child.parent_attempt >= node.attempt
    )


def bad_end(child: Task, node: ParentNode) -> ChildFailed:
    """Return the event for the parent of a child task that failed or was cancelled."""
    why = _with_path(error_of(child))
    ended = "failed" if child.status is TaskStatus.FAILED else "was cancelled"
    text = f"task {child.task_id!r} {ended}{f': {why}' if why else ''}"
    return ChildFailed(node.index, node.attempt, "subflow_failed", text, iteration=node.iteration)


def _with_path(error: str | None) -> str | None:
    """Return the error of a task that failed because of a task below it with the path of nodes down
    to the one that failed, and without the sentence of each task on the way.
    """
    return None if error is None else _OF_CHILD_TASK.sub(r"node \1 > ", error)


_OF_CHILD_TASK = re.compile(
    r"\Anode (?:'[^']*' failed: map_item_failed: )?('[^']*')"
    r" failed: subflow_failed: task '[^']*' failed: node "
)


def _has_results(child: Task) -> bool:
    """Return whether the results that make up the result of a task are in memory."""
    finished = (leaf for leaf in child.spec.plan.leaves if child.marks[leaf] == Mark.FINISHED)
    return child.spec.plan.output is not None or all(leaf in child.records for leaf in finished)
