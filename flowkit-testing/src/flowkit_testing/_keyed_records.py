"""Keyed records in memory."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from itertools import islice, takewhile
from operator import attrgetter

from flowkit.errors import RecordTooLarge
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit_testing._time_index import TimeIndex


class _Kind:
    """Records of one kind: by key, in the order of their keys, and by time."""

    def __init__(self) -> None:
        self.records: dict[str, KeyedRecord] = {}
        self.keys: list[str] = []
        self.times = TimeIndex[str]()

    def put(self, record: KeyedRecord) -> None:
        if record.key not in self.records:
            insort(self.keys, record.key)
        self.records[record.key] = record
        self.times.set(record.key, record.due_at)

    def delete(self, key: str) -> KeyedRecord:
        self.times.set(key, None)
        del self.keys[bisect_left(self.keys, key)]
        return self.records.pop(key)


class InMemoryRecordStore:
    """:class:`~flowkit.protocols.RecordStore` in memory."""

    def __init__(self, *, max_record_bytes: int) -> None:
        self.max_record_bytes = max_record_bytes
        self._kinds: dict[str, _Kind] = {}
        self._by_task: dict[str, set[tuple[str, str]]] = {}

    async def get(self, kind: str, keys: Collection[str]) -> Mapping[str, KeyedRecord]:
        records = self._of(kind).records
        return {key: _copy(records[key]) for key in keys if key in records}

    async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
        for change in changes:
            for record in change.put:
                if len(record.data) > self.max_record_bytes:
                    raise RecordTooLarge(
                        f"record {record.key!r} of the kind {record.kind!r} of"
                        f" {len(record.data)} bytes is above the limit of {self.max_record_bytes}"
                    )
        return [self._apply(change) for change in changes]

    async def scan(
        self, kind: str, *, prefix: str = "", after: str = "", limit: int = 100, last: bool = False
    ) -> Sequence[KeyedRecord]:
        records = self._of(kind)
        keys = records.keys
        if last:
            end = bisect_right(keys, prefix, key=lambda key: key[: len(prefix)])
            places = range((min(end, bisect_left(keys, after)) if after else end) - 1, -1, -1)
        else:
            places = range(max(bisect_left(keys, prefix), bisect_right(keys, after)), len(keys))
        found = takewhile(lambda key: key.startswith(prefix), map(keys.__getitem__, places))
        return [_copy(records.records[key]) for key in islice(found, limit)]

    async def due(self, kind: str, *, before: float, limit: int) -> Sequence[KeyedRecord]:
        records = self._of(kind)
        return [_copy(records.records[key]) for _, key in records.times.first(limit, until=before)]

    def forget(self, task_id: str) -> None:
        """Delete the records of a task."""
        for kind, key in list(self._by_task.get(task_id, ())):
            self._delete(kind, key)

    # ------------------------------------------------------------ changes

    def _of(self, kind: str) -> _Kind:
        return self._kinds.get(kind) or _Kind()

    def _apply(self, change: RecordChange) -> bool:
        wanted: list[KeyedRecord | RecordDeletion] = [*change.put, *change.delete]
        if not all(map(self._has, wanted)):
            return False
        for deletion in change.delete:
            self._delete(deletion.kind, deletion.key)
        for record in change.put:
            stored = _copy(record)
            stored.data, stored.revision = bytes(record.data), change.op_id
            self._put(stored)
        return True

    def _has(self, wanted: KeyedRecord | RecordDeletion) -> bool:
        """Return whether a record is stored in the revision that a change names."""
        kind = self._kinds.get(wanted.kind)
        stored = None if kind is None else kind.records.get(wanted.key)
        if stored is None:
            return isinstance(wanted, KeyedRecord) and not wanted.revision
        return wanted.revision in (None, stored.revision)

    def _put(self, record: KeyedRecord) -> None:
        if (kind := self._kinds.get(record.kind)) is None:
            kind = self._kinds[record.kind] = _Kind()
        self._index(kind.records.get(record.key), record)
        kind.put(record)

    def _delete(self, kind: str, key: str) -> None:
        self._index(self._kinds[kind].delete(key), None)

    def _index(self, before: KeyedRecord | None, after: KeyedRecord | None) -> None:
        """Replace a record in the index by task."""
        if before is not None and before.task_id is not None:
            names = self._by_task[before.task_id]
            names.remove((before.kind, before.key))
            if not names:
                del self._by_task[before.task_id]
        if after is not None and after.task_id is not None:
            self._by_task.setdefault(after.task_id, set()).add((after.kind, after.key))


_VALUES = attrgetter(*(field.name for field in fields(KeyedRecord)))


def _copy(record: KeyedRecord) -> KeyedRecord:
    """Return a copy. This is faster than ``dataclasses.replace``."""
    return KeyedRecord(*_VALUES(record))
