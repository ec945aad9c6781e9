"""Actions that the states of tasks and nodes allow, by the checks of their verbs."""

from collections.abc import Collection

from flowkit._engine import pause_end
from flowkit._records.task_records import decode_task
from flowkit.client._nodes import read_node
from flowkit.client._resolutions import refusal_to_resolve
from flowkit.client._retries import check_retry
from flowkit.client._session import Session
from flowkit.errors import TaskRefused
from flowkit.task import ENDED, STOPPING, NodeAction, Task, TaskAction


async def task_actions(session: Session, task_id: str) -> tuple[TaskAction, ...]:
    """Return the actions that have an effect on a task."""
    task = decode_task(await session.record(task_id))
    has_outcome = task.outcome is not None
    possible: dict[TaskAction, bool] = {
        "cancel": not task.terminal and not has_outcome,
        "force_cancel": not task.terminal and (not has_outcome or _may_force(task)),
        "pause": not task.terminal and not has_outcome and not task.paused,
        "resume": not task.terminal and task.paused,
        "retry": await _may_retry(session, task, None),
    }
    return tuple(action for action, is_possible in possible.items() if is_possible)


async def node_actions(session: Session, task_id: str, node_id: str) -> tuple[NodeAction, ...]:
    """Return the actions that have an effect on a node."""
    node = await read_node(session, task_id, node_id)
    possible: dict[NodeAction, bool] = {
        "run_now": pause_end(node.mark, node.record) is not None,
        "retry": await _may_retry(session, node.task, [node_id]),
        "resolve": refusal_to_resolve(node) is None,
    }
    return tuple(action for action, is_possible in possible.items() if is_possible)


def _may_force(task: Task) -> bool:
    """Return whether a forced cancel ends more of a task that has an outcome: its undos, its
    ``finally``, or those of its child tasks.
    """
    plan = task.spec.plan
    later = () if plan.ends is None else (*plan.ends.undos, *plan.ends.final)
    goes_on = any(task.marks[index] not in (*ENDED, *STOPPING) for index in later)
    return goes_on or (bool(plan.nested) and not task.forced)


async def _may_retry(session: Session, task: Task, from_nodes: Collection[str] | None) -> bool:
    try:
        await check_retry(session.store, task, from_nodes)
    except TaskRefused:
        return False
    return True
