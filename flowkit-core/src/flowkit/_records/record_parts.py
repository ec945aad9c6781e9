"""Parts of a task's record, and the writer that encodes changes as commits.

The parts are ``state``, ``vars``, ``signals``, ``n<index>``, ``e<seq>`` and ``c<number>``, all of
them JSON. ``n12`` is the node with index 12. ``e0000000007`` holds changes of the history, the
first of which has number 7. ``c0000003`` holds the marks of children of maps, from the one with
number 3 * 1,024. The archive has ended nodes in :mod:`packs <flowkit._records.node_packs>`, too.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, fields
from itertools import compress
from operator import attrgetter
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from flowkit._engine import Transition, tags_of
from flowkit._records import record_models
from flowkit._records.child_marks import changed_parts, encode_blocks, encode_marks, encode_streams
from flowkit._records.map_items import grown_parts, item_parts
from flowkit._records.node_packs import (
    MAX_PACK_BYTES,
    add_to_pack,
    encode_pack,
    encode_packed,
    nodes_of_pack,
    pack_part,
    take_from_packs,
)
from flowkit._text.validation_errors import message_of
from flowkit._user_code.containment import error_text
from flowkit.errors import CorruptRecord
from flowkit.graph import Plan
from flowkit.messages import BatchRetries
from flowkit.protocols import ArchivedPart, Commit, TaskRecord
from flowkit.task import CLAIM_KINDS, ENDED, LogEntry, NodeRecord, SignalBox, Task

STATE, VARS, SIGNALS = "state", "vars", "signals"

_ALWAYS = ("attempt", "first_attempt")
"""Fields that the part of a node always has."""
_OPTIONAL = tuple(field.name for field in fields(NodeRecord) if field.name not in _ALWAYS)
"""Fields that are left out of the part of a node if they are empty."""
_optional_of = attrgetter(*_OPTIONAL)


def node_part(index: int) -> str:
    """Return the name of a node's part."""
    return f"n{index}"


def encode_state(task: Task) -> bytes:
    """Return the part with the state of the task as a whole."""
    outcome, output = task.outcome, task.output
    # The statuses as plain strings: the serializer takes several times as long for an enum.
    state: dict[str, Any] = {
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
    if output is not None:
        state["output"] = {"since": output.since, "value": output.value, "ended": output.ended}
    if task.blocks:
        state["marks"] = task.marks[: task.spec.plan.size].decode("ascii")
        state["maps"] = encode_blocks(task)
    if streams := encode_streams(task):
        state["map_streams"] = streams
    if task.pauses:
        state["pauses"] = task.pauses
    if task.forced:
        state["forced"] = True
    if task.failed_codes:
        state["failed_codes"] = task.failed_codes
    if task.key is not None:
        state["key"] = task.key.fields()
    if task.publication is not None:
        state["publication"] = asdict(task.publication)
    if task.packed:
        state["packed"] = encode_packed(task)
    if task.spec.parent is not None:
        state["parent_attempt"] = task.parent_attempt
        state["parent_pauses"] = task.parent_pauses
    return to_json(state)


def encode_node(record: NodeRecord) -> bytes:
    """Return the part of a node. Fields with their default values are left out."""
    values: dict[str, Any] = {"attempt": record.attempt, "first_attempt": record.first_attempt}
    for name in compress(_OPTIONAL, _optional_of(record)):
        values[name] = getattr(record, name)
    for kind in CLAIM_KINDS:
        if kind in values:
            values[kind] = values[kind].fields()
    if not record.result and record.result is not None:
        values["result"] = record.result
    if not record.progress and record.progress is not None:
        values["progress"] = record.progress
    return to_json(values)


def decode_node(data: bytes, task_id: str, node_id: str) -> NodeRecord:
    """Return the record of this node from the part that :func:`encode_node` wrote.

    Raises:
        CorruptRecord: the part holds something else.
    """
    try:
        record = record_models.NODE.validate_json(data, strict=True)
        if record.retries is not None:
            record.retries = BatchRetries.model_validate(record.retries, strict=True).model_dump()
        return record
    except ValueError as error:
        raise corrupt(f"the record of node {node_id!r} of task {task_id!r}", error) from None


def decode_nodes(parts: Mapping[str, bytes], task_id: str, plan: Plan) -> dict[int, NodeRecord]:
    """Return the records of nodes from the parts of a task's record, by index.

    Raises:
        ValueError: there is no node with such an index.
        CorruptRecord: a part holds something else.
    """
    ids = plan.ids
    found: dict[int, NodeRecord] = {}
    for name, data in parts.items():
        if name[0] == "n":
            index = int(name[1:])
            if not 0 <= index < len(ids):
                raise ValueError("it has records of nodes that are not in its graph")
            found[index] = decode_node(data, task_id, ids[index])
    return found


def signals_of(parts: Mapping[str, bytes], task_id: str) -> SignalBox:
    """Return the signals from the parts of a task's record.

    Raises:
        CorruptRecord: the part holds something else.
    """
    if SIGNALS not in parts:
        return SignalBox()
    try:
        return record_models.SIGNALS.validate_json(parts[SIGNALS], strict=True)
    except ValueError as error:
        raise corrupt(f"the signals of task {task_id!r}", error) from None


def decode_log(name: str, data: bytes, task_id: str) -> list[tuple[int, LogEntry]]:
    """Return the numbered changes of a part of a task's history.

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
        raise corrupt(f"part {name} of the history of task {task_id!r}", error) from None


def damaged(record: TaskRecord) -> CorruptRecord:
    """Return the error for a record that the store could not decode: it has a ``fault``."""
    return CorruptRecord(
        f"the record of task {record.header.task_id!r} cannot be read: {record.fault}"
    )


def corrupt(what: str, error: Exception) -> CorruptRecord:
    """Return the error for a record or part that cannot be read, without any of its content."""
    if isinstance(error, CorruptRecord):
        return error
    return CorruptRecord(f"{what} cannot be read: {damage_of(error)}")


def damage_of(error: Exception) -> str:
    """Return why a record or part cannot be read, without any of its content."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))[:100]
        return f"{place}: {message_of(first)[:300]}" if place else message_of(first)[:300]
    return error_text(error, most=400)


K = TypeVar("K", int, str)

KEEP_ENDED = 256
"""Ended nodes above this number are moved to the archive."""
KEEP_LOG_PARTS = 128
"""Parts of the history above this number are moved to the archive."""
KEEP_BYTES = 512 * 1024
"""Ended nodes, and parts of the history, above this size are moved to the archive as well."""


class RecordWriter:
    """Changes of a task since its last commit, and the stored parts that may move to the archive.

    ``parts`` are the stored parts; a task that is not stored yet has none.
    """

    __slots__ = (
        "_ended_bytes",
        "_log_bytes",
        "_log_parts",
        "changed",
        "changed_marks",
        "ended",
        "items",
        "log",
        "signals_changed",
        "vars_changed",
    )

    def __init__(self, task: Task, parts: Mapping[str, bytes]) -> None:
        self.changed: set[int] = set()
        self.changed_marks: set[int] = set()
        """Parts with marks of children."""
        self.items: list[ArchivedPart] = []
        """Items of maps to archive."""
        self.log: list[LogEntry] = []
        self.vars_changed = self.signals_changed = False
        self._log_parts: dict[str, bytes] = {}
        # An OrderedDict: iterating over a plain dict is slow once many items were removed from its
        # front.
        self.ended: OrderedDict[int, bytes] = OrderedDict()
        """The parts of ended nodes that are not in the archive, the oldest first."""
        self._ended_bytes = self._log_bytes = 0
        if parts:
            self._add_stored(task, parts)

    def _add_stored(self, task: Task, parts: Mapping[str, bytes]) -> None:
        for name in sorted(parts):
            if name[0] == "e":
                self._log_parts[name] = parts[name]
        for name, data in parts.items():
            if name[0] == "n" and task.marks[index := int(name[1:])] in ENDED:
                self.ended[index] = data
        self._log_bytes = sum(map(len, self._log_parts.values()))
        self._ended_bytes = sum(map(len, self.ended.values()))

    def add(self, step: Transition) -> None:
        """Add a change that was made to the task."""
        self.changed.update(step.records)
        self.log += step.log
        self.vars_changed |= step.vars_changed
        self.signals_changed |= step.signals_changed
        if step.task.blocks:
            self.changed_marks.update(changed_parts(step))
            if step.opened is not None:
                self.items += item_parts(*step.opened, step.task.version)
            for growth in step.growths:
                self.items += grown_parts(step.task, growth, step.task.version)

    def commit(self, task: Task, op_id: str, *, durable: bool = True) -> Commit:
        """Return the changes since the last commit, and begin to collect those of the next.

        Call :meth:`committed` once the commit is stored. If it is not stored, neither the task nor
        this writer can be used any more.
        """
        take_from_packs(task, self.changed)
        drop: list[str] = []
        archive, self.items = self.items, []
        if len(self.ended) > KEEP_ENDED or self._ended_bytes > KEEP_BYTES:
            for part, nodes in self._archived_nodes(task):
                archive.append(part)
                drop += map(node_part, nodes)
        if len(self._log_parts) > KEEP_LOG_PARTS or self._log_bytes > KEEP_BYTES:
            old = list(_oldest(self._log_parts, self._log_bytes, keep=KEEP_LOG_PARTS // 2))
            drop += old
            archive.append(_merged({name: self._log_parts[name] for name in old}))
        put: dict[str, bytes] = {STATE: encode_state(task)}
        if self.vars_changed:
            put[VARS] = to_json(task.vars)
        if self.signals_changed:
            put[SIGNALS] = to_json(task.signals)
        for index in self.changed:
            put[node_part(index)] = encode_node(task.records[index])
        if self.log:
            put[f"e{task.seq - len(self.log) + 1:010d}"] = to_json(self.log)
        if self.changed_marks:
            put.update(encode_marks(task, self.changed_marks))
            self.changed_marks = set()
        self.changed = set()
        self.log = []
        self.vars_changed = self.signals_changed = False
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
            durable=durable,
            tags=tags_of(task),
        )

    def _archived_nodes(self, task: Task) -> Iterator[tuple[ArchivedPart, Collection[int]]]:
        """Yield the parts that take over the oldest ended nodes, and the nodes of each: packs, and
        then the others one by one if too many are left. The nodes were stored before this commit.
        """
        oldest = _oldest(self.ended, self._ended_bytes, keep=KEEP_ENDED // 2)
        movable = [index for index in oldest if self._may_move(task, index)]
        packed, packed_bytes = set[int](), 0
        for nodes in dict.fromkeys(map(nodes_of_pack, movable)):
            if not all(self._may_move(task, index) for index in nodes):
                continue
            parts = {index: self.ended[index] for index in nodes}
            size = sum(map(len, parts.values()))
            if size <= MAX_PACK_BYTES:
                yield ArchivedPart(pack_part(nodes[0]), task.version, encode_pack(parts)), nodes
                add_to_pack(task, nodes)
                packed.update(nodes)
                packed_bytes += size
        left, left_bytes = len(self.ended) - len(packed), self._ended_bytes - packed_bytes
        if left > KEEP_ENDED or left_bytes > KEEP_BYTES:
            for index in movable:
                if index not in packed:
                    yield ArchivedPart(node_part(index), task.version, self.ended[index]), (index,)

    def _may_move(self, task: Task, index: int) -> bool:
        """Return whether a node has ended and is stored unchanged in the record of the task."""
        return index in self.ended and index not in self.changed and task.marks[index] in ENDED

    def committed(self, task: Task, commit: Commit) -> None:
        """Take over a commit that was stored."""
        task.version += 1
        for name in commit.drop:
            if name[0] == "n":
                index = int(name[1:])
                del task.records[index]
                self._ended_bytes -= len(self.ended.pop(index))
            else:
                self._log_bytes -= len(self._log_parts.pop(name))
        for name, data in commit.put.items():
            if name[0] == "n":
                index = int(name[1:])
                self._ended_bytes -= len(self.ended.pop(index, b""))
                if task.marks[index] in ENDED:
                    self.ended[index] = data
                    self._ended_bytes += len(data)
            elif name[0] == "e":
                self._log_parts[name] = data
                self._log_bytes += len(data)


def _oldest(parts: Mapping[K, bytes], size: int, *, keep: int) -> Iterator[K]:
    """Yield the first of these parts, until at most ``keep`` are left and these have at most half
    of ``KEEP_BYTES``. ``size`` is the size of all parts.
    """
    count = len(parts)
    for name, data in parts.items():
        if count <= keep and size <= KEEP_BYTES // 2:
            return
        yield name
        count -= 1
        size -= len(data)


def _merged(parts: Mapping[str, bytes]) -> ArchivedPart:
    """Return several parts of the history as one, under the name of the first. Its rank is the
    number of its changes.
    """
    entries: list[Any] = []
    for name in sorted(parts):
        entries += from_json(parts[name])
    return ArchivedPart(min(parts), len(entries), to_json(entries))
