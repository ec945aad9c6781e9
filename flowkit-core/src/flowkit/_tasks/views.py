"""Views of tasks, nodes and events for users."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from flowkit._engine import Transition, stop_cause
from flowkit.protocols import utc
from flowkit.task import (
    STATUS_OF_MARK,
    LogEntry,
    Mark,
    NodeRecord,
    NodeStatus,
    NodeView,
    Task,
    TaskEvent,
    TaskStatus,
    TaskView,
)

_NOTHING = NodeRecord()


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else utc(seconds)


def node_view(
    task: Task,
    index: int,
    step: Transition | None = None,
    records: Mapping[int, NodeRecord] | None = None,
) -> NodeView:
    """Return the view of a node; after ``step``, if given."""
    if step is None:
        mark, record = task.marks[index], task.records.get(index, _NOTHING)
    else:
        mark, record = step.mark(index), step.record(index)
    if records is not None and index in records:
        record = records[index]
    status = STATUS_OF_MARK[mark]
    if task.paused and mark in (Mark.READY, Mark.CHECKING):
        status = NodeStatus.PAUSED
    reason_code, error = record.reason_code, record.error
    if mark in (Mark.CANCELLED, Mark.CANCELLING):
        reason_code, error = stop_cause(task if step is None else step, index, reason_code)
    return NodeView(
        node_id=task.spec.plan.ids[index],
        type=task.spec.plan.nodes[index].type,
        status=status,
        labels=task.spec.plan.nodes[index].labels,
        attempt=max(record.attempt, 0),
        worker_id=record.worker_id,
        reason_code=reason_code,
        error=error,
        result=record.result,
        metrics=record.metrics or {},
        skipped_batches=record.skipped,
        progress=record.progress,
        started_at=_time(record.started_at),
        finished_at=_time(record.finished_at),
        next_retry_at=_time(record.next_retry_at),
    )


def task_view(
    task: Task,
    step: Transition | None = None,
    *,
    nodes: dict[str, NodeView] | None = None,
    result: dict[str, Any] | None = None,
) -> TaskView:
    """Return the view of a task; after ``step``, if given. It has only the nodes that are given."""
    state = task if step is None else step
    spec = task.spec
    return TaskView(
        id=spec.task_id,
        pipeline=spec.pipeline,
        status=state.status,
        params=spec.params,
        vars=state.vars,
        labels=spec.labels,
        result=result,
        error=(state.reason or state.error)
        if state.outcome is TaskStatus.CANCELLED
        else state.error,
        created_at=utc(spec.created_at),
        started_at=_time(state.started_at),
        finished_at=_time(state.finished_at),
        nodes=nodes or {},
    )


def full_view(task: Task, records: Mapping[int, NodeRecord]) -> TaskView:
    """Return the view of a task with its nodes and, once it has ended, its result. ``records`` are
    the records of nodes from the archive.
    """
    plan = task.spec.plan
    nodes = {
        node_id: node_view(task, index, records=records) for index, node_id in enumerate(plan.ids)
    }
    result = None
    if task.terminal:
        leaves = [nodes[plan.ids[leaf]] for leaf in plan.leaves]
        result = {
            leaf.node_id: leaf.result for leaf in leaves if leaf.status is NodeStatus.FINISHED
        }
    return task_view(task, nodes=nodes, result=result)


def event_view(task: Task, seq: int, entry: LogEntry) -> TaskEvent:
    """Return the view of a change in the history."""
    at, index, kind, status, data = entry
    return TaskEvent(
        seq=seq,
        at=utc(at),
        task_id=task.task_id,
        node_id=None if index < 0 else task.spec.plan.ids[index],
        kind=kind,
        status=status,
        data=data,
    )
