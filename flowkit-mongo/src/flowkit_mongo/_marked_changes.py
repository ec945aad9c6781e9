"""Steps of a change of several keyed records.

A change of one record is one write. MongoDB does not write several documents together without a
replica set, so a change of several records marks them first:

1. The change is stored in ``{namespace}_record_changes``, with the ids of its records.
2. Each record gets the mark of the change, with its next contents, if it has the expected revision
   and no other mark. A record that does not exist yet gets a document with an empty revision.
3. If all records have the mark, the change is committed: this is one write of its document. From
   then on, readers take the next contents for the current ones.
4. The records get their next contents, and the document of the change is deleted.

A writer that meets the mark of another change completes it if it is committed, and otherwise
deletes its document, after which it cannot be committed. A mark of a change that is not there has
no effect. So a process that is killed at any step leaves no record that cannot be changed.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta

from flowkit.errors import StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion, utc
from flowkit_mongo._context import Context
from flowkit_mongo._database import BATCH, Change, Document
from flowkit_mongo._document_schemas import SHAPES
from flowkit_mongo._documents import (
    NOT_YET,
    current_fields,
    following_fields,
    name_of,
    note_change,
    record_id,
)

NOTE_KEPT = timedelta(hours=1)
MOST_COMPLETED = 1000
UNMARKED: Document = {"next.change": {"$exists": False}}
WITHOUT_TEXT: Document = {
    "$or": [{"next.change": {"$not": {"$gte": ""}}}, {"next.change": {"$type": "array"}}]
}
"""Condition of documents without a mark, or with a damaged one."""
UNCOMMITTED: Document = {"committed": {"$exists": False}}

Concerned = KeyedRecord | RecordDeletion


class MarkedChanges:
    """Steps of the changes of the collection ``{namespace}_records``, and reads of their marks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # ------------------------------------------------------------ steps of a change

    async def note(self, mark: str, concerned: Sequence[Concerned]) -> None:
        """Store a change that is not committed."""
        change = note_change(mark, [id_of(each) for each in concerned])
        await self._context.calls.patiently(
            lambda: self._context.database.change(self._context.name("record_changes"), [change])
        )

    async def mark(self, change: RecordChange, mark: str) -> list[tuple[Document, Document]]:
        """Mark the records of a change that match. Return the ids and the next contents of all."""
        marks: list[Change] = []
        following: list[tuple[Document, Document]] = []
        concerned: list[Concerned] = [*change.put, *change.delete]
        for each in concerned:
            contents = following_fields(each, mark, change.op_id)
            following.append((id_of(each), contents))
            where = {"_id": id_of(each), "revision": each.revision} | UNMARKED
            new = {"$setOnInsert": NOT_YET} if not each.revision else {}
            marks.append(Change(where, {"$set": {"next": contents}} | new, upsert=bool(new)))
        # Once only: a second try could let the first one arrive after the change.
        await self._context.calls.once(
            lambda: self._context.database.change(self._context.name("records"), marks)
        )
        return following

    async def commit(self, mark: str) -> bool:
        """Commit a change, and return whether another writer has not prevented it.

        Raises:
            StoreUnavailable: the outcome is unknown.
        """
        change = Change({"_id": mark}, {"$set": {"committed": True}})
        name = self._context.name("record_changes")
        return await self.matched(lambda: self._context.database.change(name, [change]))

    async def abort(self, mark: str, ids: Sequence[Document]) -> None:
        """Prevent a change that is not committed, and remove its marks from these records."""
        await self._context.delete("record_changes", {"_id": mark} | UNCOMMITTED)
        await self._unmark(mark, ids)

    async def _unmark(self, mark: str, ids: Sequence[Document]) -> None:
        marked = {"_id": {"$in": list(ids)}, "next.change": mark}
        await self._context.delete("records", marked | {"revision": ""})
        name = self._context.name("records")
        await self._context.calls.patiently(
            lambda: self._context.database.handle[name].update_many(
                marked, {"$unset": {"next": ""}}
            )
        )

    async def complete_one(self, mark: str, ids: Sequence[Document]) -> None:
        """Complete a committed change of another writer."""
        marked = {"_id": {"$in": list(ids)}, "next.change": mark}
        # A server that does not know the marks yet must not let the change be deleted.
        found = await self._context.find("records", marked, latest=True)
        following = [
            (each["_id"], each["next"]) for each in found if SHAPES["records"].fault(each) is None
        ]
        await self.roll_forward(mark, following)

    async def repair(self, record: Document) -> None:
        """Remove a damaged mark, and a document without a record."""
        unmarked = {"_id": record} | WITHOUT_TEXT
        name = self._context.name("records")
        await self._context.delete("records", unmarked | {"revision": ""})
        await self._context.calls.patiently(
            lambda: self._context.database.handle[name].update_one(
                unmarked, {"$unset": {"next": ""}}
            )
        )

    async def roll_forward(self, mark: str, following: Sequence[tuple[Document, Document]]) -> None:
        """Give the records of a committed change their next contents, and delete the change."""
        updates = [
            Change({"_id": record, "next.change": mark}, current_fields(contents))
            for record, contents in following
            if contents["revision"]
        ]
        gone = [record for record, contents in following if not contents["revision"]]
        if updates:
            await self.update(updates)
        if gone:
            await self._context.delete("records", {"_id": {"$in": gone}, "next.change": mark})
        await self._context.delete("record_changes", {"_id": mark})

    async def resolve(self, mark: str, ids: Sequence[Document], *, prevent: bool) -> None:
        """Complete the change with a mark if it is committed; otherwise ``prevent`` it.

        Remove the mark from these records if there is no such change.
        """
        if prevent:
            await self._context.delete("record_changes", {"_id": mark} | UNCOMMITTED)
        # The answer must not be that of a server which does not know yet that it was committed.
        found = await self._context.find("record_changes", {"_id": mark}, latest=True)
        if not found:
            await self._unmark(mark, ids)
        elif "committed" in found[0] and SHAPES["record_changes"].fault(found[0]) is None:
            await self.complete_one(mark, found[0]["records"])

    # ------------------------------------------------------------ changes of other processes

    async def committed(self, marks: Collection[str]) -> set[str]:
        """Return those of these changes that are committed."""
        where = {"_id": {"$in": list(set(marks))}, "committed": True}
        found = await self._context.find("record_changes", where, {"_id": 1})
        return {document["_id"] for document in found}

    async def complete(self) -> None:
        """Complete the committed changes, which killed processes may have left."""
        left = await self._context.find("record_changes", {"committed": True}, limit=MOST_COMPLETED)
        for document in left:
            if SHAPES["record_changes"].fault(document) is not None:
                continue
            await self.complete_one(document["_id"], document["records"])

    async def forget_old(self, now: float) -> None:
        """Delete changes that killed processes have not committed, and documents of deleted records
        that they have left.
        """
        old = {"at": {"$lt": utc(now) - NOTE_KEPT}} | UNCOMMITTED
        await self._context.delete("record_changes", old)
        await self._context.delete("records", {"gone": {"$gte": ""}, "revision": ""} | UNMARKED)

    # ------------------------------------------------------------ reading

    async def states(self, concerned: Sequence[Concerned]) -> dict[str, Document]:
        """Return the documents of records without their contents, by the names of the records."""
        collection = self._context.database.newest(self._context.name("records"))
        where = {"_id": {"$in": [id_of(each) for each in concerned]}}
        fields = {"revision": 1, "next.change": 1}
        found = await self._context.calls.patiently(
            lambda: collection.find(where, fields, batch_size=BATCH).to_list(None)
        )
        return {name_of(document["_id"]): document for document in found}

    async def confirmed(
        self, ids: Sequence[Document], operations: Collection[str]
    ) -> Collection[str]:
        """Return those of these operations that changed the documents last, and with which the
        majority agrees.
        """
        names = {"$in": list(operations)}
        changed = {"_id": {"$in": list(ids)}, "$or": [{"revision": names}, {"gone": names}]}
        found = await self._context.find("records", changed, {"revision": 1, "gone": 1})
        return {document["revision"] or document["gone"] for document in found}

    async def matched(self, write: Callable[[], Awaitable[int]]) -> bool:
        """Repeat a write until it is answered, and return whether a document matched.

        Raises:
            StoreUnavailable: none matched after a write without an answer, which may have been
                applied.
        """
        tries = 0

        async def write_once() -> int:
            nonlocal tries
            tries += 1
            return await write()

        matched = await self._context.calls.patiently(write_once)
        if not matched and tries > 1:
            raise StoreUnavailable("the outcome of a change of keyed records is unknown")
        return matched > 0

    async def remove_gone(self, ids: Sequence[Document], operations: Collection[str]) -> None:
        """Delete documents whose records these operations have deleted, unless another change has
        marked them meanwhile.
        """
        gone = {"_id": {"$in": list(ids)}, "gone": {"$in": list(operations)}}
        await self._context.delete("records", gone | {"revision": ""} | UNMARKED)

    async def update(self, changes: Sequence[Change]) -> int:
        """Repeat updates until they are answered, and return how many records matched."""
        return await self._context.calls.patiently(
            lambda: self._context.database.change(self._context.name("records"), changes)
        )


def id_of(record: Concerned) -> Document:
    return record_id(record.kind, record.key)
