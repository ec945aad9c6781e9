"""Reasons of stopped nodes, derived from their task: a node that had not started has no record."""

from collections.abc import Mapping
from typing import Protocol

from flowkit._engine.segment_rules import TaskState as OpenTask
from flowkit._engine.segment_rules import resolved_before
from flowkit.graph._expanded_plan import map_of, node_of
from flowkit.task import STOPPED, UNBEGUN, KeyClaim, NodeRecord, TaskStatus

MAP_ITEM_FAILED = "map_item_failed"
"""Reason code of a map of which a child failed, and of the other children of the map."""
SHARD_FAILED = "shard_failed"
"""Reason code of the other shards of a node of which a shard failed."""
RESOLVED = "resolved"
"""Reason code of a node that an operator resolved as failed or skipped, and of what is stopped for
a resolution.
"""
KEY_BUSY = "key_busy"
"""Reason code of what does not wait for its concurrency key, which others hold: a node, or the
nodes of a task.
"""
_NONE: Mapping[int, NodeRecord] = {}
DEADLINE_PASSED = "the task's deadline passed"


class TaskState(OpenTask, Protocol):
    """State of a task, stored or in transition, with the reasons why it is being stopped."""

    outcome: TaskStatus | None
    error: str | None
    reason: str | None
    key: KeyClaim | None


def stop_cause(
    state: TaskState, index: int, records: Mapping[int, NodeRecord] = _NONE
) -> tuple[str, str | None]:
    """Return the reason code of a stopped node, and its cause as a text if there is one.

    A node without a record was stopped with its task; a child of a map, for the reason of its map.
    ``records`` are those records of the node and its map that are in the archive.
    """
    plan = state.spec.plan

    def record_of(node: int) -> NodeRecord:
        return records.get(node) or state.record(node)

    code = _code_of(record_of(index))
    if code is None and index >= plan.size:
        code = _code_of(record_of(map_of(plan, index)))
    code = code or task_stop_code(state)
    match code:
        case "cancelled":
            text = state.reason
        case "task_failed" | "deadline_exceeded":
            text = state.error
        case "key_busy":
            text = state.reason or state.error
        case "task_ended":
            text = "the task was ended by task.end"
        case "map_item_failed":
            text = f"another child of {plan.ids[map_of(plan, index)]!r} failed"
        case "shard_failed":
            text = f"another shard of {plan.ids[map_of(plan, index)]!r} failed"
        case "resolved":
            of_node = record_of(index).resolution
            resolution = of_node or record_of(node_of(plan, index)).resolution
            before = resolved_before(state, index) if resolution is None else None
            text = None if resolution is None else str(resolution)
            if before is not None:
                text = f"the node before it, {plan.ids[before]!r}: {record_of(before).resolution}"
        case "not_needed":
            text = _satisfied_child(state, node_of(plan, index))
        case _:
            text = None
    return code, text or None


def _code_of(record: NodeRecord) -> str | None:
    return record.reason_code if record.resolution is None else RESOLVED


def was_stopped(state: TaskState, index: int) -> bool:
    """Return whether a node ended because it was stopped, so that a late command must not run."""
    return state.mark(index) in STOPPED or state.record(index).resolution is not None


def task_stop_code(state: TaskState) -> str:
    """Return the reason code of a node that was stopped with its task."""
    if state.key is not None and state.key.state == "busy":
        return KEY_BUSY
    if state.outcome is TaskStatus.CANCELLED:
        return "cancelled"
    if state.outcome is TaskStatus.FINISHED:
        return "task_ended"
    return "deadline_exceeded" if state.error == DEADLINE_PASSED else "task_failed"


def _satisfied_child(state: TaskState, index: int) -> str | None:
    """Return which child started with its other parents and stopped this node."""
    plan = state.spec.plan
    for edge in plan.children[index]:
        if plan.nodes[edge.node].on_satisfied == "cancel" and state.mark(edge.node) not in UNBEGUN:
            return f"node {plan.ids[edge.node]!r} needs no more parents"
    return None
