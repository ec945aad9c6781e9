"""Sessions of workers, and dead letters."""

from collections.abc import Collection, Sequence

from flowkit.protocols import DeadLetter, WorkerSession
from flowkit_mongo._context import Context
from flowkit_mongo._document_schemas import SHAPES, TEXT_ID
from flowkit_mongo._documents import (
    blob_of,
    dead_letter,
    letter_document,
    session,
    session_change,
    unreadable_letter,
)
from flowkit_mongo._driver import Document


class Sessions:
    """The collection ``{namespace}_workers``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def renew(self, worker: WorkerSession) -> WorkerSession | None:
        change = session_change(worker)
        replaced = await self._context.calls.patiently(
            lambda: self._context.driver.replace(self._context.name("workers"), change)
        )
        return (
            None
            if replaced is None or SHAPES["workers"].fault(replaced) is not None
            else session(replaced)
        )

    async def end(self, worker_id: str) -> None:
        await self._context.delete("workers", {"_id": worker_id})

    async def all(self) -> list[WorkerSession]:
        # Every id is a string, so this is all of them, by the index. One that cannot be decoded is
        # left out until its worker renews it.
        found = await self._context.find("workers", {"_id": TEXT_ID})
        return [
            session(document) for document in found if SHAPES["workers"].fault(document) is None
        ]


class DeadLetters:
    """The collection ``{namespace}_dead_letters``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def park(self, letters: Sequence[DeadLetter]) -> None:
        if not letters:
            return
        first = {letter.letter_id: letter for letter in reversed(letters)}
        # Their blobs belong to no task: a dead letter outlives its task.
        outgoing = [self._context.blobs.outgoing(None) for _ in first]
        documents = [
            letter_document(letter, batch.write)
            for letter, batch in zip(first.values(), outgoing, strict=True)
        ]
        await self._context.blobs.upload(outgoing)
        name = self._context.name("dead_letters")
        taken = await self._context.calls.patiently(
            lambda: self._context.driver.insert(name, documents)
        )
        repeated = {
            documents[number]["_id"]: outgoing[number] for number in taken if outgoing[number].blobs
        }
        if repeated:
            kept = {
                blob_of(document.get("data"))
                for document in await self._context.find(
                    "dead_letters", {"_id": {"$in": list(repeated)}}
                )
            }
            await self._context.blobs.discard(
                batch for batch in repeated.values() if batch.blobs[0].blob_id not in kept
            )

    async def read(
        self,
        *,
        task_id: str | None,
        kind: str | None,
        letter_ids: Collection[str] | None,
        after: str,
        limit: int,
    ) -> list[DeadLetter]:
        where: Document = {"_id": {"$gt": after}}
        if letter_ids is not None:
            where["_id"]["$in"] = list(letter_ids)
        if task_id is not None:
            where["task_id"] = task_id
        if kind is not None:
            where["kind"] = kind
        return await self._context.read(
            "dead_letters",
            where,
            values=lambda document: [document["data"]],
            decode=dead_letter,
            unreadable=unreadable_letter,
            sort=[("_id", 1)],
            limit=limit,
        )

    async def drop(self, letter_ids: Collection[str]) -> int:
        if not letter_ids:
            return 0
        where = {"_id": {"$in": list(letter_ids)}}
        found = await self._context.find("dead_letters", where, {"data.blob": 1})
        blobs = [
            blob_id for document in found if (blob_id := blob_of(document.get("data") or None))
        ]
        count = await self._context.delete("dead_letters", where)
        await self._context.blobs.delete(blobs)
        return count
