"""A store in memory with hooks around its keyed records."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flowkit._records.letter_records import KIND as LETTER
from flowkit.protocols import KeyedRecord, RecordChange, RecordStore
from flowkit_testing import InMemoryStore


class HookedStore(InMemoryStore):
    """Store whose subclasses see and replace what happens to its keyed records."""

    def __init__(self) -> None:
        super().__init__()
        self.records = _HookedRecords(self, self._records)

    async def before_change(self, change: RecordChange) -> None:
        """Do something before a change, or raise."""

    async def before_read(self, kind: str) -> None:
        """Do something before records of a kind are read, or raise."""

    def seen(self, record: KeyedRecord) -> KeyedRecord:
        """Return what is read of a record."""
        return record


class _HookedRecords:
    def __init__(self, store: HookedStore, records: RecordStore) -> None:
        self._store = store
        self._records = records

    async def get(self, kind: str, keys: Collection[str]) -> Mapping[str, KeyedRecord]:
        await self._store.before_read(kind)
        found = await self._records.get(kind, keys)
        return {key: self._store.seen(record) for key, record in found.items()}

    async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
        for change in changes:
            await self._store.before_change(change)
        return await self._records.change(changes)

    async def scan(self, kind: str, **options: Any) -> Sequence[KeyedRecord]:
        await self._store.before_read(kind)
        return [self._store.seen(each) for each in await self._records.scan(kind, **options)]

    async def due(self, kind: str, *, before: float, limit: int) -> Sequence[KeyedRecord]:
        await self._store.before_read(kind)
        found = await self._records.due(kind, before=before, limit=limit)
        return [self._store.seen(each) for each in found]


def parks(change: RecordChange) -> bool:
    """Return whether a change stores a dead letter."""
    return any(record.kind == LETTER for record in change.put)
