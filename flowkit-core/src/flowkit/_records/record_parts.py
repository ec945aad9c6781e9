"""Parts of a task's record: ``state``, ``vars``, ``n<index>`` and ``e<seq>``, all of them JSON.

``n12`` is the node with index 12. ``e0000000007`` holds changes of the history, the first of which
has number 7.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from flowkit._records import record_models
from flowkit._user_code.containment import error_text
from flowkit.errors import CorruptRecord
from flowkit.messages import BatchRetries
from flowkit.protocols import TaskRecord
from flowkit.task import LogEntry, NodeRecord, Task

STATE, VARS = "state", "vars"

_ALWAYS = ("attempt", "first_attempt", "issued_at", "first_issued_at", "sent")
"""Fields that the part of a node always has."""
_OPTIONAL = tuple(field.name for field in fields(NodeRecord) if field.name not in _ALWAYS)
"""Fields that are left out of the part of a node if they are empty."""


def node_part(index: int) -> str:
    """Return the name of a node's part."""
    return f"n{index}"


def log_part(first_seq: int) -> str:
    """Return the name of the part of the history that begins with this number."""
    return f"e{first_seq:010d}"


def node_parts(parts: Mapping[str, bytes]) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of nodes, by index."""
    return ((int(name[1:]), data) for name, data in parts.items() if name[0] == "n")


def encode_state(task: Task) -> bytes:
    """Return the part with the state of the task as a whole."""
    outcome = task.outcome
    # The statuses as plain strings: the serializer takes several times as long for an enum.
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
    """Return the part of a node. Fields with their default values are left out."""
    values: dict[str, Any] = {name: getattr(record, name) for name in _ALWAYS}
    for name in _OPTIONAL:
        value = getattr(record, name)
        if value:
            values[name] = value
    if not record.result and record.result is not None:
        values["result"] = record.result
    if not record.progress and record.progress is not None:
        values["progress"] = record.progress
    return to_json(values)


def decode_node(data: bytes) -> NodeRecord:
    """Return the record of a node from the part that :func:`encode_node` wrote.

    Raises:
        CorruptRecord: the part holds something else.
    """
    try:
        record = record_models.NODE.validate_json(data, strict=True)
        if record.retries is not None:
            record.retries = BatchRetries.model_validate(record.retries, strict=True).model_dump()
        return record
    except ValueError as error:
        raise corrupt("a node", error) from None


def encode_log(entries: Iterable[LogEntry]) -> bytes:
    """Return a part of the history."""
    return to_json(entries)


def decode_log(name: str, data: bytes) -> list[tuple[int, LogEntry]]:
    """Return the numbered changes of a part of the history.

    Raises:
        CorruptRecord: the part holds something else.
    """
    try:
        first = int(name[1:])
        return [
            (first + place, entry)
            for place, entry in enumerate(record_models.LOG.validate_json(data, strict=True))
        ]
    except ValueError as error:
        raise corrupt(f"part {name}", error) from None


def refuse_damaged(record: TaskRecord) -> None:
    """Raise if the store could not decode a record.

    Raises:
        CorruptRecord: the record is damaged.
    """
    if record.fault is not None:
        raise CorruptRecord(
            f"the record of task {record.header.task_id!r} cannot be read: {record.fault}"
        )


def corrupt(what: str, error: Exception) -> CorruptRecord:
    """Return the error for a record or part that cannot be read, without any of its content."""
    if isinstance(error, CorruptRecord):
        return error
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return CorruptRecord(
            f"{what} cannot be read: {'.'.join(map(str, first['loc']))[:100] or 'it'}:"
            f" {first['msg'][:300]}"
        )
    return CorruptRecord(f"{what} cannot be read: {error_text(error, most=400)}")
