"""Views of tasks, nodes and events for users, and reports of changes to plugins."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from flowkit._engine import Transition, error_of, shown_child, shown_rounds, stop_cause
from flowkit._tasks.map_children import marks_of_children
from flowkit._tasks.wait_explanations import waits_of
from flowkit.graph._expanded_plan import node_of
from flowkit.measures import Measure
from flowkit.plugins import Plugins
from flowkit.task import (
    STATUS_OF_MARK,
    STOPPING,
    ClaimKind,
    LogEntry,
    Mark,
    NodeRecord,
    NodesShown,
    NodeStatus,
    NodeView,
    Task,
    TaskEvent,
    TaskView,
    WaitKind,
)
from flowkit.tracing import TraceContext, use_trace

CHILDREN_SHOWN = 1_000
"""Children of a map in the view of its task."""
ROUNDS_SHOWN = 20
"""Rounds of a loop in the view of its node."""
_NOTHING = NodeRecord()


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)


def shown_status(task: Task, index: int, mark: int) -> NodeStatus:
    """Return the status of a node with this mark, as users see it. A child that waits in a running
    map lacks nothing but a place, so a pause of the task holds it back.
    """
    if task.paused and (mark in _HELD_BACK or (mark == Mark.WAITING and _may_begin(task, index))):
        return NodeStatus.PAUSED
    return STATUS_OF_MARK[mark]


_HELD_BACK = frozenset({Mark.READY, Mark.CHECKING})


def _may_begin(task: Task, index: int) -> bool:
    """Return whether a node is a child of a running map."""
    plan = task.spec.plan
    return index >= plan.size and task.marks[node_of(plan, index)] == Mark.MAPPING


def node_view(
    task: Task,
    index: int,
    step: Transition | None = None,
    records: Mapping[int, NodeRecord] | None = None,
) -> NodeView:
    """Return the view of a node; after ``step``, if given. ``records`` are records from the
    archive: of the node, and of its map if it is a child.
    """
    if step is None:
        mark, record = task.marks[index], task.records.get(index, _NOTHING)
    else:
        mark, record = step.mark(index), step.record(index)
    if records is not None and index in records:
        record = records[index]
    reason_code, error, since = record.reason_code, record.error, record.sharded_since
    plan = task.spec.plan
    phase = "main" if plan.ends is None else plan.ends.phase_name(node_of(plan, index))
    resolution = record.resolution
    if mark == Mark.SKIPPED and phase == "undo" and resolution is None:
        reason_code = "nothing_to_undo"
    if mark in (Mark.CANCELLED, *STOPPING):
        reason_code, error = stop_cause(task if step is None else step, index, records or {})
    wait = record.wait if mark == Mark.DEFERRED else None
    waiting: WaitKind | ClaimKind | None = None if wait is None else wait.kind
    if mark == Mark.DEFERRED and record.queued_for is not None:
        waiting, wait = record.queued_for, None
    return NodeView(
        node_id=task.spec.plan.ids[index],
        type=task.spec.plan.nodes[index].type,
        status=shown_status(task, index, mark),
        phase=phase,
        labels=task.spec.plan.nodes[index].labels,
        optional=phase != "undo" and task.spec.plan.nodes[index].optional,
        attempt=max(record.attempt, record.first_attempt if since else 0),
        worker_id=record.worker_id,
        reason_code=reason_code,
        error=error,
        result=record.result,
        metrics=record.metrics or {},
        skipped_batches=record.skipped,
        progress=record.progress,
        started_at=_time(since or record.started_at),
        finished_at=_time(record.finished_at),
        next_retry_at=_time(record.next_retry_at),
        child_task_id=shown_child(task, index, record),
        rounds=shown_rounds(task, index, record, most=ROUNDS_SHOWN),
        waiting=waiting,
        waiting_until=None if wait is None else _time(wait.until),
        cached=record.cached,
        resolved_by=None if resolution is None else resolution.by,
        children=_children(task, index, step) if index in task.maps else {},
    )


def _children(task: Task, index: int, step: Transition | None) -> dict[NodeStatus, int]:
    """Return the number of the children of a map in each status."""
    counts: dict[NodeStatus, int] = {}
    for mark, number in marks_of_children(task, index, step).items():
        status = shown_status(task, task.maps[index].places()[0].start, mark)
        counts[status] = counts.get(status, 0) + number
    return counts


def task_view(
    task: Task,
    step: Transition | None = None,
    *,
    nodes: dict[str, NodeView] | None = None,
    result: Any = None,
    waits: tuple[str, ...] = (),
) -> TaskView:
    """Return the view of a task; after ``step``, if given. It has only the nodes that are given."""
    state = task if step is None else step
    spec = task.spec
    return TaskView(
        id=spec.task_id,
        pipeline=spec.pipeline,
        flow=None if spec.flow is None else spec.flow.name,
        version=None if spec.flow is None else spec.flow.version,
        parent=None if spec.parent is None else spec.parent.task_id,
        parent_node=None if spec.parent is None else spec.parent.node_id,
        rerun_of=spec.rerun_of,
        schedule=None if spec.schedule is None else spec.schedule.schedule_id,
        waiting="key" if state.key is not None and state.key.state == "queued" else None,
        waits=waits,
        schedule_at=None if spec.schedule is None else _time(spec.schedule.at),
        trigger=None if spec.trigger is None else spec.trigger.trigger_id,
        status=state.status,
        params=spec.params,
        vars=state.vars,
        labels=spec.labels,
        result=result,
        error=error_of(state),
        created_at=datetime.fromtimestamp(spec.created_at, UTC),
        started_at=_time(state.started_at),
        finished_at=_time(state.finished_at),
        seq=task.seq if step is None else task.seq + len(step.log),
        nodes=nodes or {},
    )


def shown_nodes(task: Task, shown: NodesShown = "all") -> Sequence[int]:
    """Return the nodes that a view of a task has."""
    if shown == "none":
        return ()
    graph = range(task.spec.plan.size)
    if shown == "graph" or not task.maps:
        return graph
    nodes = list(graph)
    for index in sorted(task.maps):
        nodes += islice(task.maps[index].children(), CHILDREN_SHOWN)
    return nodes


def read_nodes(task: Task, shown: NodesShown = "all") -> Collection[int]:
    """Return the nodes whose records a view of a task needs."""
    by_id = task.terminal and not _has_output(task)
    return {*shown_nodes(task, shown), *(task.spec.plan.leaves if by_id else ())}


def full_view(task: Task, records: Mapping[int, NodeRecord], shown: NodesShown = "all") -> TaskView:
    """Return the view of a task with its nodes and, once it has ended, its result. ``records`` are
    the records of nodes from the archive.
    """
    plan = task.spec.plan
    nodes = {
        plan.ids[index]: node_view(task, index, records=records)
        for index in shown_nodes(task, shown)
    }
    result = result_of(task, records) if task.terminal else None
    return task_view(task, nodes=nodes, result=result, waits=waits_of(task))


def result_of(task: Task, records: Mapping[int, NodeRecord]) -> Any:
    """Return the result of an ended task. ``records`` are the records of nodes from the archive."""
    plan = task.spec.plan
    if _has_output(task):
        # A task that would have finished and failed in `finally` has an output, and no result.
        failed_later = task.status is not task.outcome
        return None if task.output is None or failed_later else task.output.value
    return {
        plan.ids[leaf]: (records.get(leaf) or task.records[leaf]).result
        for leaf in plan.leaves
        if task.marks[leaf] == Mark.FINISHED
    }


def _has_output(task: Task) -> bool:
    """Return whether the result of a task is an output, and not the results of its nodes."""
    return task.output is not None or task.spec.plan.output is not None


def event_view(task: Task, seq: int, entry: LogEntry) -> TaskEvent:
    """Return the view of a change in the history."""
    at, index, kind, status, data = entry
    return TaskEvent(
        seq=seq,
        at=datetime.fromtimestamp(at, UTC),
        task_id=task.task_id,
        node_id=None if index < 0 else task.spec.plan.ids[index],
        kind=kind,
        status=status,
        data=data,
    )


@dataclass(frozen=True, slots=True)
class Notice:
    """Call of a hook that observes tasks or nodes."""

    hook: str
    arguments: dict[str, Any]
    trace: TraceContext | None


class Observers:
    """Plugins that observe tasks and nodes."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins
        self._observing = plugins.observes_nodes or plugins.observes_tasks
        self.measuring = plugins.measures
        """Whether any plugin observes measures."""
        self.watching = self._observing or self.measuring
        """Whether any plugin observes changes or measures."""

    def notices(self, step: Transition) -> list[Notice]:
        """Return the notices about a change. Call this before the change is applied."""
        plugins, task, trace = self._plugins, step.task, step.task.spec.trace
        notices: list[Notice] = []
        if plugins.observes_tasks and step.status is not task.status:
            views = {"before": task_view(task), "after": task_view(task, step)}
            notices.append(Notice("flowkit_task_changed", views, trace))
        if plugins.observes_nodes:
            after_task = task_view(task, step)
            for index in step.marks:
                node_before, node_after = node_view(task, index), node_view(task, index, step)
                if node_after.status is not node_before.status:
                    arguments = {"task": after_task, "before": node_before, "after": node_after}
                    notices.append(Notice("flowkit_node_changed", arguments, trace))
        return notices

    def notify(self, notices: list[Notice]) -> None:
        """Call the hooks of plugins. A plugin that raises is logged."""
        for notice in notices:
            with use_trace(notice.trace):
                self._plugins.notify(notice.hook, **notice.arguments)

    def measure(self, measures: Sequence[Measure]) -> None:
        """Give the measures of a change to plugins."""
        self._plugins.measure(*measures)
