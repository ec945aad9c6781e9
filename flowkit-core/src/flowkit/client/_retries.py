"""Retries of failed and cancelled tasks."""

from collections.abc import Collection

from flowkit._engine import RetryRequested, fails_task
from flowkit._records.blocked_retries import blocked_retries
from flowkit._records.parents import check_retried_alone
from flowkit._records.task_records import decode_task
from flowkit._tasks.map_children import no_such_node
from flowkit.client._session import Session
from flowkit.errors import TaskRefused
from flowkit.graph._expanded_plan import node_of
from flowkit.protocols import Store
from flowkit.task import Mark, Task, TaskStatus


async def retry_task(session: Session, task_id: str, from_nodes: Collection[str] | None) -> None:
    """Run a failed or cancelled task again."""
    record = await session.record(task_id)
    task = decode_task(record)
    nodes = await check_retry(session.store, task, from_nodes)
    await session.change(task_id, RetryRequested(nodes), record)


async def check_retry(
    store: Store, task: Task, from_nodes: Collection[str] | None
) -> tuple[int, ...] | None:
    """Return the indexes of the nodes from which a task is retried; None for its failed nodes.

    Raises:
        TaskRefused: the task cannot be retried, or not from these nodes.
    """
    if task.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
        raise TaskRefused(
            f"task {task.task_id!r} is {task.status}: only a failed or cancelled task is retried"
        )
    await check_retried_alone(store, task)
    nodes = _indexes(task, from_nodes)
    if nodes is not None:
        await _check_can_run(store, task, nodes)
    return nodes


async def _check_can_run(store: Store, task: Task, nodes: Collection[int]) -> None:
    """Check that the retry of these nodes runs each of them, unless its other parents fail.

    Raises:
        TaskRefused: a node cannot run without a node above that is not among them.
    """
    for block in (await blocked_retries(store, task, nodes)).values():
        did_not_finish = task.marks[block.above] in (Mark.FAILED, Mark.CANCELLED)
        again_by_itself = did_not_finish and fails_task(task.spec.plan, block.above)
        hint = ", or leave out from_nodes" if again_by_itself else ""
        raise TaskRefused(f"{block.reason}; name that node as well{hint}")


_LATER = {"undo": "an undo", "finally": "in finally"}


def _indexes(task: Task, node_ids: Collection[str] | None) -> tuple[int, ...] | None:
    """Return the indexes of nodes; None for None.

    Raises:
        TaskRefused: a node is not in the task, or the nodes are not a list.
    """
    if node_ids is None:
        return None
    if isinstance(node_ids, str):
        raise TaskRefused(f"from_nodes is a list of node ids, not the string {node_ids!r}")
    if not node_ids:
        raise TaskRefused("from_nodes is empty")
    plan = task.spec.plan
    index, ends = plan.index, plan.ends
    for node_id in node_ids:
        if node_id not in index:
            raise TaskRefused(str(no_such_node(task, node_id)))
        if ends is not None and (node := node_of(plan, index[node_id])) >= ends.main:
            raise TaskRefused(
                f"node {node_id!r} is {_LATER[ends.phase_name(node)]}, and runs again by itself"
                " when the task ends"
            )
    return tuple(sorted(index[node_id] for node_id in node_ids))
