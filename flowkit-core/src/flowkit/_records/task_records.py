"""Tasks as stored: the submission, which never changes, and the parts that change.

Nodes that ended and old parts of the history are moved to the archive once there are many, so that
a record is as large as the work in flight.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from flowkit._engine import contradiction, derive, tags_of
from flowkit._records import record_models
from flowkit._records.child_marks import restore_children
from flowkit._records.node_packs import restore_packed
from flowkit._records.record_parts import (
    STATE,
    VARS,
    corrupt,
    damaged,
    decode_log,
    decode_nodes,
    signals_of,
)
from flowkit.graph import Graph, Plan
from flowkit.protocols import TaskHeader, TaskRecord
from flowkit.task import (
    IN_FLIGHT,
    STATUS_OF_MARK,
    UNUSED_PLACE,
    Mark,
    ScheduleOrigin,
    Task,
    TaskFlow,
    TaskSpec,
    TriggerOrigin,
    without,
)
from flowkit.tracing import TraceContext

MAX_PLANS = 256
MAX_NODES = 100_000
"""Limit for the nodes of all cached plans together. A plan of 20,000 nodes takes some 25 MB."""


# ---------------------------------------------------------------- submissions


def encode_spec(spec: TaskSpec, graph: bytes) -> bytes:
    """Return a submission as stored: a line with the task's fields, and a line with its graph."""
    head: dict[str, Any] = {
        "v": 1,
        "created_at": spec.created_at,
        "secret": spec.secret.hex(),
        "params": spec.params,
        "pipeline": spec.pipeline,
        "labels": spec.labels,
        "priority": spec.priority,
        "idempotency_key": spec.idempotency_key,
        "deadline_sec": spec.deadline_sec,
    }
    if spec.defaulted:
        head["defaulted"] = spec.defaulted
    if spec.trace is not None:
        head["trace"] = {"traceparent": spec.trace.traceparent, "tracestate": spec.trace.tracestate}
    if spec.parent is not None:
        head["parent"] = spec.parent
    if spec.flow is not None:
        head["flow"] = spec.flow
    if spec.rerun_of is not None:
        head["rerun_of"] = spec.rerun_of
    if spec.flow_versions:
        head["flow_versions"] = spec.flow_versions
    if spec.depth:
        head["depth"] = spec.depth
    if spec.schedule is not None:
        head["schedule"] = spec.schedule
    if spec.trigger is not None:
        head["trigger"] = spec.trigger
    if spec.chain:
        head["chain"] = spec.chain
    PLANS.add(graph, spec.plan)
    return to_json(head) + b"\n" + graph


def decode_spec(task_id: str, data: bytes) -> TaskSpec:
    """Return the submission that :func:`encode_spec` wrote.

    Raises:
        ValueError: the data is not what it wrote.
    """
    head_line, _, graph = data.partition(b"\n")
    head = record_models.HEAD.validate_json(head_line, strict=True)
    return TaskSpec(
        task_id=task_id,
        plan=PLANS.get(graph),
        created_at=head.created_at,
        secret=bytes.fromhex(head.secret),
        params=head.params,
        defaulted=head.defaulted,
        pipeline=head.pipeline,
        labels=head.labels,
        priority=head.priority,
        idempotency_key=head.idempotency_key,
        deadline_sec=head.deadline_sec,
        trace=None
        if head.trace is None
        else TraceContext(head.trace.traceparent, head.trace.tracestate),
        parent=head.parent,
        flow=head.flow,
        rerun_of=head.rerun_of,
        flow_versions=head.flow_versions,
        depth=head.depth,
        schedule=head.schedule,
        trigger=head.trigger,
        chain=head.chain,
    )


@dataclass(frozen=True, slots=True)
class FirstSubmission:
    """First submission under an id or idempotency key, which later ones are compared with."""

    secret: bytes
    graph: bytes
    flow: TaskFlow | None
    params: dict[str, Any]
    """The params as they were given, without defaults."""
    origin: ScheduleOrigin | TriggerOrigin | None = None
    """Schedule or trigger that made the task."""

    def difference(self, graph: bytes, flow: TaskFlow | None, params: dict[str, Any]) -> str | None:
        """Return the part of the first submission that differs; None if both are equal. The order
        of keys in an object does not count. Of a flow, the name and the version that was asked for
        are compared, not the graph.
        """
        if self.flow is None or flow is None:
            if self.flow is not flow:
                return "a graph of its own" if self.flow is None else f"flow {self.flow.name!r}"
            try:
                if not same_json(self.graph, graph):
                    return "another graph"
            except ValueError:
                return "a graph that cannot be read"
        elif self.flow.asked != flow.asked:
            return f"flow {self.flow.name!r}, {self.flow.shown_version}"
        return None if _canonical(self.params) == _canonical(params) else "other params"


def decode_submission(record: TaskRecord) -> FirstSubmission:
    """Return the submission of a stored task.

    Raises:
        CorruptRecord: the record cannot be read.
    """
    if record.fault is not None:
        raise damaged(record)
    head_line, _, graph = record.spec.partition(b"\n")
    try:
        head = record_models.HEAD.validate_json(head_line, strict=True)
        given = without(head.params, head.defaulted)
        origin = head.schedule or head.trigger
        return FirstSubmission(bytes.fromhex(head.secret), graph, head.flow, given, origin)
    except ValueError as error:
        raise corrupt(f"the record of task {record.header.task_id!r}", error) from None


def same_json(one: bytes, other: bytes) -> bool:
    """Return whether two JSON texts have the same value. The order of keys does not count.

    Raises:
        ValueError: they differ, and one of them is no JSON.
    """
    return one == other or _canonical(from_json(one)) == _canonical(from_json(other))


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


_BEGUN = re.compile(b"[%b]" % bytes(sorted(IN_FLIGHT | {Mark.DEFERRED, Mark.MAPPING})))
"""The marks of nodes whose records are never in the archive."""


# ---------------------------------------------------------------- tasks


def last_change_at(record: TaskRecord) -> float:
    """Return when a task last changed, by the part of its history that is in the record."""
    task_id = record.header.task_id
    history = (
        decode_log(name, data, task_id) for name, data in record.parts.items() if name[0] == "e"
    )
    return max((entry[0] for part in history for _, entry in part), default=0.0)


def decode_task(record: TaskRecord, *, to_look_at: bool = False) -> Task:
    """Return a stored task, ready for the engine. A task that is only read (``to_look_at``) comes
    without the fields that the engine derives.

    Raises:
        CorruptRecord: the record is damaged.
    """
    if record.fault is not None:
        raise damaged(record)
    try:
        task = _task(record)
        if not to_look_at:
            for name, data in record.parts.items():
                if name[0] == "e":
                    decode_log(name, data, task.task_id)
            derive(task)
            if (why := contradiction(task)) is not None:
                raise ValueError(why)
    except Exception as error:  # any error has its cause in the record: it is the only input
        # A validation error would show stored values.
        cause = None if isinstance(error, ValidationError) else error
        raise corrupt(f"the record of task {record.header.task_id!r}", error) from cause
    return task


def _task(record: TaskRecord) -> Task:
    parts = record.parts
    if not parts:
        raise ValueError("its import is not complete; run the same flowkit import again")
    spec = decode_spec(record.header.task_id, record.spec)
    state = record_models.STATE.validate_json(parts[STATE], strict=True)
    header = record.header
    if (header.status, header.finished_at) != (
        state.status,
        state.finished_at,
    ) or state.status.terminal != (state.finished_at is not None):
        raise ValueError("its header and its state differ in the status or the time of the end")
    task = Task(
        spec=spec,
        marks=bytearray(state.marks, "ascii"),
        version=record.version,
        status=state.status,
        outcome=state.outcome,
        paused=state.paused,
        seq=state.seq,
        vars=record_models.VARS.validate_json(parts[VARS], strict=True) if VARS in parts else {},
        error=state.error,
        reason=state.reason,
        output=state.output,
        started_at=state.started_at,
        finished_at=state.finished_at,
        deadline_at=state.deadline_at,
        wake_at=record.header.wake_at,
        signals=signals_of(parts, spec.task_id),
        pauses=state.pauses,
        forced=state.forced,
        parent_attempt=state.parent_attempt,
        parent_pauses=state.parent_pauses,
        failed_codes=state.failed_codes,
        key=state.key,
        publication=state.publication,
    )
    if len(task.marks) != len(spec.plan.ids):
        raise ValueError("its marks do not fit its nodes")
    if state.maps or state.map_streams:
        restore_children(task, state.maps, state.map_streams, parts)
    restore_packed(task, state.packed)
    task.records = decode_nodes(parts, spec.task_id, task.spec.plan)
    _check_records(task)
    return task


def _check_records(task: Task) -> None:
    """Check that the records fit the nodes and their marks."""
    marks, records, ids = task.marks, task.records, task.spec.plan.ids
    if not STATUS_OF_MARK.keys() | {UNUSED_PLACE} >= set(marks):
        raise ValueError("its marks do not fit its nodes")
    for found in _BEGUN.finditer(marks):
        index = found.start()
        if index not in records:
            raise ValueError(f"node {ids[index]!r} has begun and has no record")
        record = records[index]
        if marks[index] == Mark.ASKING and record.asks_for is None:
            raise ValueError(f"node {ids[index]!r} asks for a place and its record has no claim")
        asks = marks[index] == Mark.ASKING or record.queued_for
        if not asks and record.attempt < record.first_attempt:
            raise ValueError(f"node {ids[index]!r} has begun and its record has no attempt")


def header_of(task: Task) -> TaskHeader:
    """Return the fields of a task that a store can search for."""
    spec = task.spec
    return TaskHeader(
        task_id=spec.task_id,
        status=task.status.value,
        created_at=spec.created_at,
        pipeline=spec.pipeline,
        labels=spec.labels,
        idempotency_key=spec.idempotency_key,
        wake_at=task.wake_at,
        finished_at=task.finished_at,
        tags=tags_of(task),
    )


def mentions(record: TaskRecord, names: Collection[bytes]) -> bool:
    """Return whether the record of a node contains one of these JSON strings. Faster than decoding
    the records.
    """
    return any(
        name in data for part, data in record.parts.items() if part[0] == "n" for name in names
    )


# ---------------------------------------------------------------- plans


class PlanCache:
    """Plans by the JSON text of their graphs. The least recently used ones are evicted above the
    limits.
    """

    def __init__(self, max_plans: int = MAX_PLANS, max_nodes: int = MAX_NODES) -> None:
        self._max_plans, self._max_nodes = max_plans, max_nodes
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._nodes = 0

    def __contains__(self, graph: bytes) -> bool:
        return graph in self._plans

    def get(self, graph: bytes) -> Plan:
        """Return the plan of a graph, which is parsed if it is not cached."""
        plan = self._plans.get(graph)
        if plan is None:
            plan = Graph.restore(graph).plan
            self.add(graph, plan)
        else:
            self._plans.move_to_end(graph)
        return plan

    def add(self, graph: bytes, plan: Plan) -> None:
        """Cache the plan of a graph as the most recently used one."""
        replaced = self._plans.pop(graph, None)
        self._plans[graph] = plan
        self._nodes += len(plan.ids) - (0 if replaced is None else len(replaced.ids))
        while len(self._plans) > self._max_plans or (
            self._nodes > self._max_nodes and len(self._plans) > 1
        ):
            _, oldest = self._plans.popitem(last=False)
            self._nodes -= len(oldest.ids)


PLANS = PlanCache()
