"""Changes of keyed records: of one record each together, and of several with marks."""

import random
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial

import anyio

from flowkit.errors import RecordRefused, RecordTooLarge, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit_mongo._calls import side_by_side
from flowkit_mongo._context import Context
from flowkit_mongo._database import Change, Document
from flowkit_mongo._documents import (
    gone_update,
    mark_of,
    name_of,
    record_document,
    record_update,
)
from flowkit_mongo._marked_changes import UNMARKED, Concerned, MarkedChanges, id_of
from flowkit_mongo._value_forms import TEXT

LARGEST_BYTES = 4_000_000
"""Largest data of a record. A document with a mark has the data twice."""
AT_A_TIME = 8
TRIES = 100
FIRST_PAUSE_SEC, LONGEST_PAUSE_SEC = 0.002, 0.2
PATIENCE_SEC = 1.0
"""Time after which the change of another writer is prevented that has not committed it."""


class RecordChanges:
    """Applies changes to the collection ``{namespace}_records``."""

    def __init__(self, context: Context, steps: MarkedChanges) -> None:
        self._context = context
        self._steps = steps

    async def apply(self, changes: Sequence[RecordChange]) -> list[bool]:
        """Apply changes, and return for each whether it was applied."""
        for change in changes:
            for record in change.put:
                _check_size(record)
        applied: dict[int, bool | None] = {}

        async def insert(numbers: Sequence[int]) -> None:
            taken = await self._insert([changes[number] for number in numbers])
            applied.update({n: True for place, n in enumerate(numbers) if place not in taken})

        async def replace_or_delete(numbers: Sequence[int]) -> None:
            outcomes = await self._change_together([changes[number] for number in numbers])
            applied.update(zip(numbers, outcomes, strict=True))

        async def apply_one(number: int) -> None:
            applied[number] = await _Application(self, self._steps, changes[number]).outcome()

        single = [number for number, change in enumerate(changes) if _concerned_is_one(change)]
        new = [number for number in single if _is_new(changes[number])]
        known = [number for number in single if not _is_new(changes[number])]
        groups = [partial(insert, new)] if new else []
        if len(known) > 1:
            groups.append(partial(replace_or_delete, known))
        await side_by_side(groups, at_a_time=len(groups))
        left = [number for number in range(len(changes)) if applied.get(number) is None]
        await side_by_side([partial(apply_one, number) for number in left], at_a_time=AT_A_TIME)
        return [bool(applied[number]) for number in range(len(changes))]

    # ------------------------------------------------------------ one record

    async def _insert(self, changes: Sequence[RecordChange]) -> set[int]:
        """Insert new records, and return the indexes of those that exist."""
        documents = [record_document(change.put[0], change.op_id) for change in changes]
        return await self._context.calls.patiently(
            lambda: self._context.database.insert(self._context.name("records"), documents)
        )

    async def _change_together(self, changes: Sequence[RecordChange]) -> list[bool | None]:
        """Replace or delete one record for each change, in few calls. Return the outcomes, None for
        those that are not known yet.

        Raises:
            StoreUnavailable: the outcome of one is unknown.
        """
        # MongoDB answers with the number of matches alone. So what does not fit is not sent.
        found = await self._steps.states([_record_of(change) for change in changes])
        documents = [found.get(name_of(id_of(_record_of(change))), {}) for change in changes]
        sent = [
            one for one, document in zip(changes, documents, strict=True) if _is_free(one, document)
        ]
        applied = await self._send(sent) if sent else ()
        return [
            True if change.op_id in applied else False if _has_another(change, document) else None
            for change, document in zip(changes, documents, strict=True)
        ]

    async def _send(self, changes: Sequence[RecordChange]) -> Collection[str]:
        """Replace or delete records, and return the operations that were applied.

        The number of deleted documents would not say which ones. So a document is first updated to
        one without a record, which names the deletion.

        Raises:
            StoreUnavailable: some records were changed again before it was known which matched.
        """
        ids = [id_of(_record_of(change)) for change in changes]
        applied: Collection[str] = [change.op_id for change in changes]
        matched = await self._steps.update(list(map(_update_of, changes)))
        if matched < len(changes):
            applied = await self._steps.confirmed(ids, applied)
            if len(applied) < matched:
                raise StoreUnavailable("the outcome of some changes of keyed records is unknown")
        gone = [one.op_id for one in changes if one.delete and one.op_id in applied]
        if gone:
            await self._steps.remove_gone(ids, gone)
        return applied

    async def apply_alone(self, change: RecordChange) -> bool:
        """Apply a change of one record, and return whether the record matched."""
        if change.delete:
            return await self._delete_one(change.delete[0])
        if _is_new(change):
            return not await self._insert([change])
        return await self._steps.update([_update_of(change)]) > 0

    async def _delete_one(self, deletion: RecordDeletion) -> bool:
        name, where = self._context.name("records"), _deletion_of(deletion)
        return await self._steps.matched(lambda: self._context.database.delete_one(name, where))


class _Application:
    """The application of one change, which may take several tries."""

    def __init__(self, changes: RecordChanges, steps: MarkedChanges, change: RecordChange) -> None:
        self._changes = changes
        self._steps = steps
        self._change = change
        self._concerned: list[Concerned] = [*change.put, *change.delete]
        self._met: dict[str, float] = {}
        """Marks of other changes, with the time when each was met first."""

    async def outcome(self) -> bool:
        """Return whether the change was applied.

        Raises:
            StoreUnavailable: other changes are in the way at each try, or the outcome is unknown.
        """
        step = self._alone if _concerned_is_one(self._change) else self._together
        pause_sec = FIRST_PAUSE_SEC
        for _ in range(TRIES):
            if (applied := await step()) is not None:
                return applied
            await anyio.sleep(random.uniform(0, pause_sec))
            pause_sec = min(pause_sec * 2, LONGEST_PAUSE_SEC)
        raise StoreUnavailable("other changes of the same keyed records were in the way too often")

    async def _alone(self) -> bool | None:
        if await self._changes.apply_alone(self._change):
            return True
        return await self._judged(await self._steps.states(self._concerned))

    async def _together(self) -> bool | None:
        found = await self._steps.states(self._concerned)
        change = self._with_revisions(found)
        if change is None or any(map(mark_of, found.values())):
            return await self._judged(found)
        steps, mark = self._steps, secrets.token_hex(12)
        ids = [id_of(each) for each in self._concerned]
        await steps.note(mark, self._concerned)
        following = await steps.mark(change, mark)
        found = await steps.states(self._concerned)
        marks = [mark_of(found.get(name_of(each), {})) for each in ids]
        if all(each == mark for each in marks) and await steps.commit(mark):
            with suppress(StoreUnavailable):  # it is committed, and others complete it
                await steps.roll_forward(mark, following)
            return True
        await steps.abort(mark, ids)
        return None

    def _with_revisions(self, found: Mapping[str, Document]) -> RecordChange | None:
        """Return the change with the revision of each deletion, or None if it does not fit."""
        documents = [found.get(name_of(id_of(each))) for each in self._concerned]
        if not all(map(_fits, self._concerned, documents)):
            return None
        revisions = [found[name_of(id_of(each))].get("revision") for each in self._change.delete]
        if not all(map(TEXT.fits, revisions)):
            raise RecordRefused("a keyed record is damaged; delete it in a change of its own")
        deletions = [
            replace(deletion, revision=revision)
            for deletion, revision in zip(self._change.delete, revisions, strict=True)
        ]
        return replace(self._change, delete=deletions)

    async def _judged(self, found: Mapping[str, Document]) -> bool | None:
        """Return the outcome if the records do not match; None if it is not certain yet."""
        op_id = self._change.op_id
        for record in self._change.put:
            if found.get(name_of(id_of(record)), {}).get("revision") == op_id:
                # It was applied, and the answer was lost.
                return True if await self._steps.confirmed([id_of(record)], [op_id]) else None
        marked = [document for document in found.values() if _is_in_the_way(document)]
        for document in marked:
            mark = mark_of(document)
            if mark is None:
                await self._steps.repair(document["_id"])
                continue
            met_at = self._met.setdefault(mark, time.monotonic())
            await self._steps.resolve(
                mark, [document["_id"]], prevent=time.monotonic() - met_at > PATIENCE_SEC
            )
        fits = all(_fits(each, found.get(name_of(id_of(each)))) for each in self._concerned)
        return None if marked or fits else False


def _is_in_the_way(document: Document) -> bool:
    """Return whether a document has a mark, or is one without a record that was not deleted."""
    following = document.get("next")
    return (isinstance(following, dict) and "change" in following) or (
        document.get("revision") == ""
    )


def _concerned_is_one(change: RecordChange) -> bool:
    """Return whether a change concerns one record."""
    return len(change.put) + len(change.delete) == 1


def _record_of(change: RecordChange) -> Concerned:
    """Return what a change of one record puts or deletes."""
    return change.put[0] if change.put else change.delete[0]


def _is_new(change: RecordChange) -> bool:
    """Return whether a change of one record puts a new one."""
    return bool(change.put) and not change.put[0].revision


def _update_of(change: RecordChange) -> Change:
    """Return the update that replaces a record, or leaves its document without one."""
    if change.delete:
        return Change(_deletion_of(change.delete[0]), gone_update(change.op_id))
    (record,) = change.put
    where = {"_id": id_of(record), "revision": record.revision} | UNMARKED
    return Change(where, record_update(record, change.op_id))


def _deletion_of(deletion: RecordDeletion) -> Document:
    """Return the condition of the document that is deleted."""
    revision = {"$ne": ""} if deletion.revision is None else deletion.revision
    return {"_id": id_of(deletion), "revision": revision} | UNMARKED


def _is_free(change: RecordChange, document: Document) -> bool:
    """Return whether a document has the record that a change replaces or deletes, and no mark."""
    return (
        bool(document)
        and not _is_in_the_way(document)
        and _record_of(change).revision in (None, document.get("revision"))
    )


def _has_another(change: RecordChange, document: Document) -> bool:
    """Return whether a document certainly has neither the record that a change replaces or deletes,
    nor the one that it puts.
    """
    if not document:
        return True
    wanted = _record_of(change).revision
    return (
        wanted is not None
        and not _is_in_the_way(document)
        and document.get("revision", "") not in (wanted, change.op_id)
    )


def _fits(wanted: Concerned, document: Document | None) -> bool:
    """Return whether the document has the revision that a change names."""
    stored = "" if document is None else document.get("revision")
    if stored == "":
        return isinstance(wanted, KeyedRecord) and not wanted.revision
    return wanted.revision in (None, stored)


def _check_size(record: KeyedRecord) -> None:
    if (size := len(record.data)) > LARGEST_BYTES:
        raise RecordTooLarge(
            f"the {record.kind} record {record.key!r} has {size} bytes; the limit is"
            f" {LARGEST_BYTES}"
        )
