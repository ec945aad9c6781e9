"""Log lines of handlers, as keyed records of the store.

A record has lines of one task from one worker process, the *writer*. The writer stores the records
of a task one after the other, and their keys count up. So a reader that continues after the last
key that it has read misses no line.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from flowkit._json.limits import Count, Moment
from flowkit._records.record_parts import damage_of
from flowkit.errors import CorruptRecord
from flowkit.protocols import KeyedRecord

KIND = "log"


@dataclass(frozen=True, slots=True)
class StoredLine:
    """A log line as it is stored."""

    run: Count
    """Number of the run among those of the writer that have logged."""
    number: Count
    """Number of the line among those of the run."""
    at: Moment
    node: str
    attempt: Count
    level: str
    logger: str
    text: str
    batch: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    traceback: str | None = None
    trace_id: str | None = None
    span_id: str | None = None


@dataclass(frozen=True, slots=True)
class StoredLines:
    """The lines of a record, in order."""

    v: Literal[1]
    worker: str
    lines: list[StoredLine]


_LINES: TypeAdapter[StoredLines] = TypeAdapter(StoredLines)


def log_record(
    task_id: str, writer: str, flush: int, part: int, *, worker: str, lines: Iterable[bytes]
) -> KeyedRecord:
    """Return a new record. ``lines`` are JSON, each of a :class:`StoredLine`.

    ``flush`` counts the times at which the writer stores lines, and ``part`` the records of the
    task that it stores at one of these times.
    """
    key = f"{prefix_of(task_id, writer)}{flush:010d}\n{part:06d}"
    data = b'{"v":1,"worker":%b,"lines":[%b]}' % (to_json(worker), b",".join(lines))
    return KeyedRecord(KIND, key, data, task_id=task_id)


def prefix_of(task_id: str, writer: str | None = None) -> str:
    """Return the beginning of the keys of a task's lines. No id contains a line break."""
    return f"{task_id}\n" if writer is None else f"{task_id}\n{writer}\n"


def after_writer(task_id: str, writer: str) -> str:
    """Return a text that is above all keys of a writer, and below those of the next one."""
    return f"{prefix_of(task_id, writer)}:"


def writer_of(record: KeyedRecord) -> str:
    """Return the writer of a record."""
    return record.key.split("\n")[1]


def flush_of(record: KeyedRecord) -> str:
    """Return a text that the records have in common that their writer stored at one time."""
    return record.key.rpartition("\n")[0]


def whole_flushes(page: Sequence[KeyedRecord], limit: int) -> Sequence[KeyedRecord]:
    """Return a page of a writer's records without those of its last flush, if the ``limit`` cut
    that off. A flush that fills a page remains.
    """
    if len(page) < limit:
        return page
    cut_off = flush_of(page[-1])
    return [record for record in page if flush_of(record) != cut_off] or page


def decode_lines(record: KeyedRecord) -> StoredLines:
    """Return the lines of a record.

    Raises:
        CorruptRecord: it cannot be decoded.
    """
    fault = record.fault
    if fault is None:
        try:
            return _LINES.validate_json(record.data, strict=True)
        except ValidationError as error:
            fault = damage_of(error)
    raise CorruptRecord(f"a record of log lines of task {record.task_id!r} is damaged: {fault}")
