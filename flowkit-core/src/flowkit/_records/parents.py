"""Retries of child tasks, which belong to the nodes that run them."""

from flowkit._records.queries import load_task
from flowkit.errors import TaskNotFound, TaskRefused
from flowkit.protocols import Store
from flowkit.task import ENDED, Task


async def check_retried_alone(store: Store, task: Task) -> None:
    """Check that a retry of this task reaches a node that waits for it, if it is a child task.

    Raises:
        TaskRefused: the node that ran it has ended, or was deleted with its task.
    """
    node = task.spec.parent
    if node is None:
        return
    said = f"task {task.task_id!r} is the child task of node {node.node_id!r} of task"
    try:
        parent = await load_task(store, node.task_id)
    except TaskNotFound:
        raise TaskRefused(
            f"{said} {node.task_id!r}, which was deleted; submit the graph as a new task"
        ) from None
    record = parent.records.get(node.index)
    if parent.marks[node.index] in ENDED or record is None or record.generation != node.generation:
        raise TaskRefused(
            f"{said} {node.task_id!r}, and that node has ended; retry the task {node.task_id!r}"
        )
    if record.child is not None and record.child.iteration != node.iteration:
        raise TaskRefused(
            f"{said} {node.task_id!r}, and that node is a loop whose later rounds have begun"
        )
