"""Resolutions: an operator settles a node that has not ended."""

from typing import Any, get_args

from flowkit._engine import NODE_REPORTS, NodeResolved
from flowkit._json.values import NotJson, json_copy
from flowkit._tasks.submission import checked_reason
from flowkit._tasks.views import shown_status
from flowkit._user_code.containment import contained, error_text
from flowkit.client._approvals import check_name
from flowkit.client._nodes import StoredNode, read_node
from flowkit.client._session import Session
from flowkit.errors import TaskRefused
from flowkit.graph._expanded_plan import is_shard, map_of
from flowkit.task import ENDED, Mark, NodeRecord, Resolution, ResolvedAs

OUTCOMES: tuple[ResolvedAs, ...] = get_args(ResolvedAs)
MAX_RESULT_BYTES = 256 * 1024


async def resolve_node(
    session: Session,
    task_id: str,
    node_id: str,
    outcome: Any,
    *,
    by: Any,
    result: Any,
    reason: Any,
) -> None:
    """End a node with the outcome that an operator has chosen."""
    chosen = _checked(outcome, by, result, reason)
    while True:
        node = await read_node(session, task_id, node_id)
        if _is_recorded(chosen, node.mark, node.record):
            return
        if (refusal := refusal_to_resolve(node)) is not None:
            raise refusal
        if await session.change(task_id, NodeResolved(node.index, chosen), node.stored):
            return


def _is_recorded(chosen: Resolution, mark: int, record: NodeRecord) -> bool:
    """Return whether this resolution is the one of the node, as after a repeated call."""
    known = record.resolution
    if known is None:
        return False
    result = record.result if mark in ENDED else known.result
    return (known.outcome, known.by, known.reason, result) == (
        chosen.outcome,
        chosen.by,
        chosen.reason,
        chosen.result,
    )


def refusal_to_resolve(node: StoredNode) -> TaskRefused | None:
    """Return why a node cannot be resolved; None if it can."""
    name, mark, record = node.name, node.mark, node.record
    plan = node.task.spec.plan
    if is_shard(plan, node.index):
        owner = plan.ids[map_of(plan, node.index)]
        return TaskRefused(
            f"{name} is a shard, whose remaining artifacts would be lost; resolve {owner!r} instead"
        )
    if record.resolution is not None:
        return TaskRefused(f"{name} was resolved before: {record.resolution}")
    if mark in NODE_REPORTS[NodeResolved]:
        return None
    if mark in ENDED:
        return TaskRefused(f"{name} has ended: it is {shown_status(node.task, node.index, mark)}")
    if mark == Mark.HELD:
        return TaskRefused(f"{name} is not resolved before its phase of the task has begun")
    return TaskRefused(f"{name} is being stopped already, and ends soon")


def _checked(outcome: Any, by: Any, result: Any, reason: Any) -> Resolution:
    if outcome not in OUTCOMES:
        raise TaskRefused(f"outcome is one of {', '.join(OUTCOMES)}, not {outcome!r}")
    check_name(by)
    if result is not None and outcome != "finished":
        raise TaskRefused(f"only a finished node has a result, and the outcome is {outcome}")
    try:
        plain = contained(json_copy, result, "result", max_bytes=MAX_RESULT_BYTES)
    except NotJson as error:
        raise TaskRefused(str(error)) from None
    except Exception as error:
        raise TaskRefused(f"result cannot be read: {error_text(error, most=400)}") from error
    return Resolution(outcome, by, checked_reason(reason), plain)
