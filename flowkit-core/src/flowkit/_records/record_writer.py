"""The writer of a task's record: it collects changes and encodes them as commits."""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from pydantic_core import from_json, to_json

from flowkit._engine import Transition
from flowkit._records.record_parts import (
    STATE,
    VARS,
    encode_log,
    encode_node,
    encode_state,
    log_part,
    node_part,
    node_parts,
)
from flowkit.protocols import ArchivedPart, Commit
from flowkit.task import ENDED, LogEntry, Task

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
        "ended",
        "log",
        "vars_changed",
    )

    def __init__(self, task: Task, parts: Mapping[str, bytes]) -> None:
        self.changed: set[int] = set()
        self.log: list[LogEntry] = []
        self.vars_changed = False
        self._log_parts = {name: parts[name] for name in sorted(parts) if name[0] == "e"}
        # An OrderedDict: iterating over a plain dict is slow once many items were removed from its
        # front.
        self.ended = OrderedDict(
            (index, data) for index, data in node_parts(parts) if task.marks[index] in ENDED
        )
        """The parts of ended nodes that are not in the archive, the oldest first."""
        self._ended_bytes = sum(map(len, self.ended.values()))
        self._log_bytes = sum(map(len, self._log_parts.values()))

    def add(self, step: Transition) -> None:
        """Add a change that was made to the task."""
        self.changed.update(step.records)
        self.log += step.log
        self.vars_changed |= step.vars_changed

    def commit(self, task: Task, op_id: str) -> Commit:
        """Return the changes since the last commit, and begin to collect those of the next.

        Call :meth:`committed` once the commit is stored. If it is not stored, neither the task nor
        this writer can be used any more.
        """
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
            for index in self._nodes_to_archive(task):
                drop.append(node_part(index))
                archive.append(ArchivedPart(node_part(index), task.version, self.ended[index]))
        if len(self._log_parts) > KEEP_LOG_PARTS or self._log_bytes > KEEP_BYTES:
            old = list(_oldest(self._log_parts, self._log_bytes, keep=KEEP_LOG_PARTS // 2))
            drop += old
            archive.append(_merged({name: self._log_parts[name] for name in old}))
        self.changed = set()
        self.log = []
        self.vars_changed = False
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

    def _nodes_to_archive(self, task: Task) -> list[int]:
        """Return the oldest ended nodes that were stored before this commit."""
        oldest = _oldest(self.ended, self._ended_bytes, keep=KEEP_ENDED // 2)
        return [
            index for index in oldest if index not in self.changed and task.marks[index] in ENDED
        ]

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
