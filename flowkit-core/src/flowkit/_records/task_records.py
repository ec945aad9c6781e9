"""Tasks as stored: the submission, and the parts that change.

Nodes that ended and old parts of the history are moved to the archive once there are many, so that
a record is as large as the work in flight.
"""

import re
from collections.abc import Collection

from pydantic import ValidationError

from flowkit._engine import contradiction, derive
from flowkit._records import record_models
from flowkit._records.record_parts import (
    STATE,
    VARS,
    corrupt,
    decode_log,
    decode_node,
    node_parts,
    refuse_damaged,
)
from flowkit._records.submission_records import decode_spec
from flowkit.protocols import TaskHeader, TaskRecord
from flowkit.task import IN_FLIGHT, STATUS_OF_MARK, Mark, Task

_BEGUN = re.compile(b"[%b]" % bytes(sorted(IN_FLIGHT | {Mark.DEFERRED})))
"""The marks of nodes whose records are never in the archive."""


def last_change_at(record: TaskRecord) -> float:
    """Return when a task last changed, by the part of its history that is in the record."""
    history = (decode_log(name, data) for name, data in record.parts.items() if name[0] == "e")
    return max((entry[0] for part in history for _, entry in part), default=0.0)


def decode_task(record: TaskRecord, *, to_look_at: bool = False) -> Task:
    """Return a stored task, ready for the engine. A task that is only read (``to_look_at``) comes
    without the fields that the engine derives.

    Raises:
        CorruptRecord: the record is damaged.
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
    except Exception as error:  # any error has its cause in the record: it is the only input
        # A validation error would show stored values.
        cause = None if isinstance(error, ValidationError) else error
        raise corrupt(f"the record of task {record.header.task_id!r}", error) from cause
    return task


def _task(record: TaskRecord) -> Task:
    spec = decode_spec(record.header.task_id, record.spec)
    parts = record.parts
    state = record_models.STATE.validate_json(parts[STATE], strict=True)
    header = record.header
    if (header.status, header.finished_at) != (
        state.status,
        state.finished_at,
    ) or state.status.terminal != (state.finished_at is not None):
        raise ValueError("its header and its state differ in the status or the time of the end")
    marks = bytearray(state.marks, "ascii")
    if len(marks) != len(spec.plan.ids) or not STATUS_OF_MARK.keys() >= set(marks):
        raise ValueError("its marks do not fit its nodes")
    records = {index: decode_node(data) for index, data in node_parts(parts)}
    if not all(0 <= index < len(marks) for index in records):
        raise ValueError("it has records of nodes that are not in its graph")
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
    )


def mentions(record: TaskRecord, names: Collection[bytes]) -> bool:
    """Return whether the record of a node contains one of these JSON strings. Faster than decoding
    the records.
    """
    return any(
        name in data for part, data in record.parts.items() if part[0] == "n" for name in names
    )
