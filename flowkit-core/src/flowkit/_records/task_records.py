"""How a task is laid out in a store's record: ``spec``, and the parts ``state``, ``vars``,
``n<index>`` and ``e<seq>``.

``n12`` is the node with index 12, ``e0000000007`` the changes from the seventh on. Everything is
JSON. Nodes that ended and changes that lie back are moved to the archive once there are many, so
that a record is as large as what is in flight.
"""

import json
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from flowkit._engine import Transition, confirmed_until, contradiction, derive
from flowkit._records import record_models
from flowkit._user_code.containment import error_text
from flowkit.errors import CorruptRecord
from flowkit.graph import Graph, Plan
from flowkit.messages import BatchRetries
from flowkit.protocols import ArchivedPart, Commit, Place, TaskHeader, TaskRecord
from flowkit.task import (
    ENDED,
    IN_FLIGHT,
    STATUS_OF_MARK,
    LogEntry,
    Mark,
    NodeRecord,
    Task,
    TaskSpec,
)
from flowkit.tracing import TraceContext

K = TypeVar("K", int, str)

STATE, VARS = "state", "vars"
KEEP_ENDED = 256
"""Ended nodes above this many go to the archive."""
KEEP_LOG_PARTS = 128
KEEP_BYTES = 512 * 1024
"""Of ended nodes, and of the history, what is above this goes to the archive as well, however few
they are.
"""

_BEGUN = re.compile(b"[%b]" % bytes(sorted(IN_FLIGHT | {Mark.DEFERRED})))
"""The marks of nodes whose records are never in the archive."""

Sent = tuple[int, int, int, Place | None]
"""A command on the bus: the node, the attempt, how often it was handed back before, and the place
if that is known.
"""

_OPTIONAL = (
    "generation",
    "handovers",
    "place",
    "claimed",
    "confirmed_at",
    "has_batch",
    "worker_id",
    "started_at",
    "heard_at",
    "finished_at",
    "next_retry_at",
    "cancel_by",
    "reason_code",
    "error",
    "result",
    "metrics",
    "progress",
    "retries",
    "skipped",
    "batches",
    "in_batches",
    "pulled",
    "letter",
    "required",
)


def node_part(index: int) -> str:
    return f"n{index}"


def _nodes_in(parts: Mapping[str, bytes]) -> Iterator[tuple[int, bytes]]:
    return ((int(name[1:]), data) for name, data in parts.items() if name[0] == "n")


def log_part(first_seq: int) -> str:
    return f"e{first_seq:010d}"


class _Plans:
    """Plans by the graphs they were made of, for many tasks have one graph. Those least lately used
    go first.

    ``most_nodes`` is of all plans together: one of 20,000 nodes takes some 25 MB.
    """

    def __init__(self, most: int = 256, most_nodes: int = 100_000) -> None:
        self._most, self._most_nodes = most, most_nodes
        self._plans: OrderedDict[bytes, Plan] = OrderedDict()
        self._nodes = 0

    def __contains__(self, graph: bytes) -> bool:
        return graph in self._plans

    def of(self, graph: bytes) -> Plan:
        plan = self._plans.get(graph)
        if plan is None:
            plan = Graph.restore(graph).plan
            self.keep(graph, plan)
        else:
            self._plans.move_to_end(graph)
        return plan

    def keep(self, graph: bytes, plan: Plan) -> None:
        before = self._plans.pop(graph, None)
        self._plans[graph] = plan
        self._nodes += len(plan.ids) - (0 if before is None else len(before.ids))
        while len(self._plans) > self._most or (
            self._nodes > self._most_nodes and len(self._plans) > 1
        ):
            _, oldest = self._plans.popitem(last=False)
            self._nodes -= len(oldest.ids)


_plans = _Plans()


# ---------------------------------------------------------------- spec


def encode_spec(spec: TaskSpec, graph: bytes) -> bytes:
    """What was submitted: a line about the task, a line with its graph."""
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
    if spec.trace is not None:
        head["trace"] = {"traceparent": spec.trace.traceparent, "tracestate": spec.trace.tracestate}
    _plans.keep(graph, spec.plan)
    return to_json(head) + b"\n" + graph


def decode_spec(task_id: str, data: bytes) -> TaskSpec:
    head_line, _, graph = data.partition(b"\n")
    head = record_models.HEAD.validate_json(head_line, strict=True)
    return TaskSpec(
        task_id=task_id,
        plan=_plans.of(graph),
        created_at=head.created_at,
        secret=bytes.fromhex(head.secret),
        params=head.params,
        pipeline=head.pipeline,
        labels=head.labels,
        priority=head.priority,
        idempotency_key=head.idempotency_key,
        deadline_sec=head.deadline_sec,
        trace=None
        if head.trace is None
        else TraceContext(head.trace.traceparent, head.trace.tracestate),
    )


@dataclass(frozen=True, slots=True)
class FirstSubmission:
    """What a task was submitted with, to compare a second submission under its id or key with."""

    secret: bytes
    graph: bytes
    params: dict[str, Any]

    def difference(self, graph: bytes, params: dict[str, Any]) -> str | None:
        """Name what is not the same in the first submission; None if all of it is. The order of
        keys in an object does not count.
        """
        try:
            if self.graph != graph and _canonical(from_json(self.graph)) != _canonical(
                from_json(graph)
            ):
                return "another graph"
        except ValueError:
            return "a graph that cannot be read"
        return None if _canonical(self.params) == _canonical(params) else "other params"


def decode_submission(record: TaskRecord) -> FirstSubmission:
    """Return what a task was submitted with.

    Raises:
        CorruptRecord: the record cannot be read.
    """
    if record.fault is not None:
        raise CorruptRecord(
            f"the record of task {record.header.task_id!r} cannot be read: {record.fault}"
        )
    head_line, _, graph = record.spec.partition(b"\n")
    try:
        head = record_models.HEAD.validate_json(head_line, strict=True)
        return FirstSubmission(bytes.fromhex(head.secret), graph, head.params)
    except ValueError as error:
        raise _corrupt(f"the record of task {record.header.task_id!r}", error) from None


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


# ---------------------------------------------------------------- parts


def encode_state(task: Task) -> bytes:
    outcome = task.outcome
    # The plain text of the statuses: an enum takes the serializer several times as long.
    return to_json(
        {
            "status": task.status.value,
            "marks": task.marks.decode("ascii"),
            "seq": task.seq,
            "outcome": None if outcome is None else outcome.value,
            "paused": task.paused,
            "error": task.error,
            "reason": task.reason,
            "started_at": task.started_at,
            "finished_at": task.finished_at,
            "deadline_at": task.deadline_at,
        }
    )


def encode_node(record: NodeRecord) -> bytes:
    """What is known of a node; fields that say nothing are left out."""
    fields: dict[str, Any] = {
        "attempt": record.attempt,
        "first_attempt": record.first_attempt,
        "issued_at": record.issued_at,
        "first_issued_at": record.first_issued_at,
        "sent": record.sent,
    }
    for name in _OPTIONAL:
        value = getattr(record, name)
        if value:
            fields[name] = value
    if not record.result and record.result is not None:
        fields["result"] = record.result
    if not record.progress and record.progress is not None:
        fields["progress"] = record.progress
    return to_json(fields)


def decode_node(data: bytes) -> NodeRecord:
    """What :func:`encode_node` wrote.

    Raises:
        CorruptRecord: this is something else.
    """
    try:
        record = record_models.NODE.validate_json(data, strict=True)
        if record.retries is not None:
            record.retries = BatchRetries.model_validate(record.retries, strict=True).model_dump()
        return record
    except ValueError as error:
        raise _corrupt("a node", error) from None


def encode_log(entries: Iterable[LogEntry]) -> bytes:
    return to_json(entries)


def decode_log(name: str, data: bytes) -> list[tuple[int, LogEntry]]:
    """The changes in a part, each with its number.

    Raises:
        CorruptRecord: it holds something else.
    """
    try:
        first = int(name[1:])
        return [
            (first + place, entry)
            for place, entry in enumerate(record_models.LOG.validate_json(data, strict=True))
        ]
    except ValueError as error:
        raise _corrupt(f"part {name}", error) from None


def last_change_at(record: TaskRecord) -> float:
    """Return when a task changed last, by the part of its history that is in the record."""
    history = (decode_log(name, data) for name, data in record.parts.items() if name[0] == "e")
    return max((entry[0] for part in history for _, entry in part), default=0.0)


def decode_task(record: TaskRecord, *, to_look_at: bool = False) -> Task:
    """A task as it is stored, ready for the engine; without what the engine derives, if it is only
    ``to_look_at``.

    Raises:
        CorruptRecord: this is not what was stored.
    """
    refuse_damaged(record)
    try:
        task = _task(record)
        if not to_look_at:
            for name, data in record.parts.items():
                if name[0] == "e":
                    decode_log(name, data)
            derive(task)
            if (why := contradiction(task)) is not None:
                raise ValueError(why)
    except Exception as error:  # whatever it is, the record is why: nothing else has a part in it
        cause = (
            None if isinstance(error, ValidationError) else error
        )  # it would show what is stored
        raise _corrupt(f"the record of task {record.header.task_id!r}", error) from cause
    return task


def refuse_damaged(record: TaskRecord) -> None:
    """Raise if the store could not decode a record.

    Raises:
        CorruptRecord: it could not.
    """
    if record.fault is not None:
        raise CorruptRecord(
            f"the record of task {record.header.task_id!r} cannot be read: {record.fault}"
        )


def _task(record: TaskRecord) -> Task:
    spec = decode_spec(record.header.task_id, record.spec)
    parts = record.parts
    state = record_models.STATE.validate_json(parts[STATE], strict=True)
    header = record.header
    if (header.status, header.finished_at) != (
        state.status,
        state.finished_at,
    ) or state.status.terminal != (state.finished_at is not None):
        raise ValueError("its header and its state differ in the status or in the time of the end")
    marks = bytearray(state.marks, "ascii")
    if len(marks) != len(spec.plan.ids) or not STATUS_OF_MARK.keys() >= set(marks):
        raise ValueError("the marks are not those of its nodes")
    records = {index: decode_node(data) for index, data in _nodes_in(parts)}
    if not all(0 <= index < len(marks) for index in records):
        raise ValueError("it has records of nodes that are not there")
    for found in _BEGUN.finditer(marks):
        index = found.start()
        if index not in records:
            raise ValueError(f"node {spec.plan.ids[index]!r} has begun and has no record")
        if records[index].attempt < records[index].first_attempt:
            raise ValueError(
                f"node {spec.plan.ids[index]!r} has begun and its record has no attempt"
            )
    return Task(
        spec=spec,
        marks=marks,
        version=record.version,
        status=state.status,
        outcome=state.outcome,
        paused=state.paused,
        seq=state.seq,
        vars=record_models.VARS.validate_json(parts[VARS], strict=True) if VARS in parts else {},
        error=state.error,
        reason=state.reason,
        started_at=state.started_at,
        finished_at=state.finished_at,
        deadline_at=state.deadline_at,
        wake_at=record.header.wake_at,
        records=records,
    )


def _corrupt(what: str, error: Exception) -> CorruptRecord:
    if isinstance(error, CorruptRecord):
        return error
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return CorruptRecord(
            f"{what} cannot be read: {'.'.join(map(str, first['loc']))[:100] or 'it'}:"
            f" {first['msg'][:300]}"
        )
    return CorruptRecord(f"{what} cannot be read: {error_text(error, most=400)}")


def mentions(record: TaskRecord, names: Collection[bytes]) -> bool:
    """Whether one of these strings, as JSON, is in what is known of the nodes that have begun.
    Quicker than decoding them.
    """
    return any(
        name in data for part, data in record.parts.items() if part[0] == "n" for name in names
    )


# ---------------------------------------------------------------- new records and changes


def new_record(task: Task, spec: bytes, log: Sequence[LogEntry]) -> TaskRecord:
    """A task that is not stored yet, with the changes its submission brought."""
    parts = {STATE: encode_state(task), log_part(1): encode_log(log)}
    for index, record in task.records.items():
        parts[node_part(index)] = encode_node(record)
    return TaskRecord(header=header_of(task), spec=spec, parts=parts)


def header_of(task: Task) -> TaskHeader:
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
    )


class Ledger:
    """What of a task is stored, and what has changed since."""

    __slots__ = (
        "_ended_bytes",
        "_log_bytes",
        "changed",
        "ended",
        "log",
        "log_parts",
        "unsaved",
        "vars_changed",
    )

    def __init__(self, task: Task, parts: Mapping[str, bytes]) -> None:
        self.changed: set[int] = set()
        self.unsaved: list[Sent] = []
        """Commands that were sent since the last commit."""
        self.log: list[LogEntry] = []
        self.vars_changed = False
        self.log_parts = {name: parts[name] for name in sorted(parts) if name[0] == "e"}
        # Ordered, as a plain dict is slow to begin at its front once much was taken from there.
        self.ended = OrderedDict(
            (index, data) for index, data in _nodes_in(parts) if task.marks[index] in ENDED
        )
        """The parts of ended nodes that are not in the archive, the oldest first."""
        self._ended_bytes = sum(map(len, self.ended.values()))
        self._log_bytes = sum(map(len, self.log_parts.values()))

    def take(self, step: Transition) -> None:
        """A change was made to the task."""
        self.changed.update(step.records)
        self.log += step.log
        self.vars_changed |= step.vars_changed

    def sent(self, task: Task, commands: Iterable[Sent]) -> None:
        """These commands are on the bus: they need not be sent again."""
        for command in commands:
            index, attempt, handovers, place = command
            record = task.records.get(index)
            if record is not None and (record.attempt, record.handovers, record.sent) == (
                attempt,
                handovers,
                False,
            ):
                task.records[index] = record = record.copy()
                record.sent = True
                record.place = place
                self.changed.add(index)
                self.unsaved.append(command)

    def waits(self, task: Task, command: Sent, now: float) -> None:
        """Record that the bus has confirmed that a command waits, if a check of it is due."""
        index, attempt, handovers, place = command
        record = task.records.get(index)
        if (
            record is None
            or task.marks[index] != Mark.ISSUED
            or confirmed_until(record, now) is not None
        ):
            return
        if (record.attempt, record.handovers, record.sent, record.place) == (
            attempt,
            handovers,
            True,
            place,
        ):
            task.records[index] = record = record.copy()
            record.confirmed_at = now
            self.changed.add(index)

    def commit(self, task: Task, op_id: str) -> Commit:
        """Everything since the last commit. Call :meth:`committed` once it is stored."""
        put: dict[str, bytes] = {STATE: encode_state(task)}
        if self.vars_changed:
            put[VARS] = to_json(task.vars)
        for index in self.changed:
            put[node_part(index)] = encode_node(task.records[index])
        if self.log:
            put[log_part(task.seq - len(self.log) + 1)] = encode_log(self.log)
        drop: list[str] = []
        archive: list[ArchivedPart] = []
        if len(self.ended) > KEEP_ENDED or self._ended_bytes > KEEP_BYTES:
            for index in self._to_archive(task):
                drop.append(node_part(index))
                archive.append(ArchivedPart(node_part(index), task.version, self.ended[index]))
        if len(self.log_parts) > KEEP_LOG_PARTS or self._log_bytes > KEEP_BYTES:
            old = list(_oldest(self.log_parts, self._log_bytes, keep=KEEP_LOG_PARTS // 2))
            drop += old
            archive.append(_folded({name: self.log_parts[name] for name in old}))
        return Commit(
            task_id=task.spec.task_id,
            expected_version=task.version,
            op_id=op_id,
            status=task.status.value,
            wake_at=task.wake_at,
            finished_at=task.finished_at,
            put=put,
            drop=drop,
            archive=archive,
        )

    def _to_archive(self, task: Task) -> list[int]:
        """The ended nodes to move out: of those stored before this commit, the oldest."""
        oldest = _oldest(self.ended, self._ended_bytes, keep=KEEP_ENDED // 2)
        return [
            index for index in oldest if index not in self.changed and task.marks[index] in ENDED
        ]

    def committed(self, task: Task, commit: Commit) -> None:
        """The commit is stored: it is where the next change begins."""
        task.version += 1
        for name in commit.drop:
            if name[0] == "n":
                index = int(name[1:])
                del task.records[index]
                self._ended_bytes -= len(self.ended.pop(index))
            else:
                self._log_bytes -= len(self.log_parts.pop(name))
        for index in self.changed:
            self._ended_bytes -= len(self.ended.pop(index, b""))
            if task.marks[index] in ENDED:
                data = self.ended[index] = commit.put[node_part(index)]
                self._ended_bytes += len(data)
        if self.log:
            name = log_part(task.seq - len(self.log) + 1)
            data = self.log_parts[name] = commit.put[name]
            self._log_bytes += len(data)
        self.changed = set()
        self.unsaved = []
        self.log = []
        self.vars_changed = False


def _oldest(parts: Mapping[K, bytes], size: int, *, keep: int) -> Iterator[K]:
    """The first of these, until at most ``keep`` are left and they have half of what may be kept.
    ``size`` is that of all.
    """
    count = len(parts)
    for name, data in parts.items():
        if count <= keep and size <= KEEP_BYTES // 2:
            return
        yield name
        count -= 1
        size -= len(data)


def _folded(parts: Mapping[str, bytes]) -> ArchivedPart:
    """Several parts of the history as one, under the name of the first. The more it holds the
    higher its rank.
    """
    entries: list[Any] = []
    for name in sorted(parts):
        entries += from_json(parts[name])
    return ArchivedPart(min(parts), len(entries), to_json(entries))


__all__ = [
    "Ledger",
    "Sent",
    "decode_log",
    "decode_node",
    "decode_spec",
    "decode_task",
    "encode_spec",
    "header_of",
    "last_change_at",
    "log_part",
    "mentions",
    "new_record",
    "node_part",
    "refuse_damaged",
]
