"""Keyed records: one document each."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from flowkit.adapters import Gathered, end_of_prefix
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit_mongo._context import Context, none_missed
from flowkit_mongo._database import Document, Range
from flowkit_mongo._document_schemas import SHAPES
from flowkit_mongo._documents import (
    AFTER_ALL_TEXTS,
    LONGEST_FAULT,
    keyed_record,
    mark_of,
    name_of,
    record_id,
)
from flowkit_mongo._marked_changes import MarkedChanges
from flowkit_mongo._record_changes import RecordChanges
from flowkit_mongo._value_forms import TEXT

TRIES = 5


class MongoRecordStore:
    """The collection ``{namespace}_records``."""

    def __init__(self, context: Context, steps: MarkedChanges) -> None:
        self._context = context
        self._steps = steps
        self._changes = RecordChanges(context, steps)
        self._find_in = Gathered(self._find_in_ranges)

    async def change(self, changes: Sequence[RecordChange]) -> list[bool]:
        return await self._changes.apply(changes) if changes else []

    async def get(self, kind: str, keys: Collection[str]) -> dict[str, KeyedRecord]:
        async def read(wanted: Collection[str], **options: Any) -> dict[str, KeyedRecord]:
            where = {"_id": {"$in": [record_id(kind, key) for key in wanted]}}
            found = await self._current(await self._context.find("records", where, **options))
            return {record.key: record for record in found if record is not None}

        return await none_missed(keys, read) if keys else {}

    async def scan(
        self, kind: str, *, prefix: str = "", after: str = "", limit: int = 100, last: bool = False
    ) -> list[KeyedRecord]:
        end = end_of_prefix(prefix)
        first: Document = {"$gte": record_id(kind, prefix)}
        until: Document = {"$lt": record_id(kind, AFTER_ALL_TEXTS if end is None else end)}
        found: list[KeyedRecord] = []
        while len(found) < limit:
            if after and last:
                until = {"$lt": record_id(kind, after if end is None else min(after, end))}
            elif after >= prefix:
                first = {"$gt": record_id(kind, after)}
            left = limit - len(found)
            page = await self._find_in(Range({"_id": first | until}, left, -1 if last else 1))
            found += [record for record in await self._current(page) if record is not None]
            if len(page) < left or not TEXT.fits(page[-1]["_id"].get("key")):
                break
            after = page[-1]["_id"]["key"]
        return found

    async def _find_in_ranges(self, ranges: Sequence[Range]) -> list[list[Document]]:
        name = self._context.name("records")
        return await self._context.calls.patiently(
            lambda: self._context.database.find_in(name, ranges)
        )

    async def due(self, kind: str, *, before: float, limit: int) -> list[KeyedRecord]:
        # The times in changes that a killed process has left are not in the index.
        await self._steps.complete()
        where = {"_id.kind": kind, "due_at": {"$lte": before}}
        found = await self._context.find(
            "records", where, sort=[("due_at", 1), ("_id", 1)], limit=limit
        )
        return [
            record
            for record in await self._current(found)
            if record is not None and record.due_at is not None and record.due_at <= before
        ]

    async def _current(self, documents: Sequence[Document]) -> list[KeyedRecord | None]:
        """Return the records of documents; None for one that does not exist yet or any more.

        A document with the mark of a change is as before the change until that is committed.
        """
        current = dict(enumerate(documents))
        marks = {index: mark for index in current if (mark := mark_of(current[index])) is not None}
        committed: set[str] = set()
        for _ in range(TRIES):
            if not marks:
                break
            committed |= await self._steps.committed(marks.values())
            undecided = {index: mark for index, mark in marks.items() if mark not in committed}
            # A change that is not there may have been completed after the document was read.
            again = await self._read_again([current[index] for index in undecided])
            marks = {}
            for index, mark in undecided.items():
                current[index] = again.get(name_of(current[index]["_id"]), {})
                if (later := mark_of(current[index])) not in (None, mark):
                    marks[index] = str(later)
        return [_record(document, committed) for document in current.values()]

    async def _read_again(self, documents: Sequence[Document]) -> Mapping[str, Document]:
        if not documents:
            return {}
        ids = [document["_id"] for document in documents]
        found = await self._context.find("records", {"_id": {"$in": ids}})
        return {name_of(document["_id"]): document for document in found}


def _record(document: Document, committed: Collection[str]) -> KeyedRecord | None:
    if not document:
        return None
    fault = SHAPES["records"].fault(document)
    if fault is None:
        return keyed_record(document, following=mark_of(document) in committed)
    name = document["_id"]
    if not isinstance(name, dict) or not all(TEXT.fits(name.get(part)) for part in ("kind", "key")):
        return None
    fitting = SHAPES["records"].fitting(document)
    return KeyedRecord(
        name["kind"],
        name["key"],
        b"",
        fitting.get("revision", ""),
        fitting.get("due_at"),
        fitting.get("task_id"),
        fault=fault[:LONGEST_FAULT],
    )
