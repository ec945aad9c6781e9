"""Dead letters."""

from collections.abc import Collection, Sequence

from flowkit.protocols import DeadLetter
from flowkit_mongo._context import Context
from flowkit_mongo._database import Document
from flowkit_mongo._document_schemas import SCHEMA_VERSION, SHAPES
from flowkit_mongo._documents import LONGEST_FAULT, Read, Write, blob_of


class DeadLetters:
    """The collection ``{namespace}_dead_letters``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def park(self, letters: Sequence[DeadLetter]) -> None:
        """Store letters; those that are stored already are left unchanged."""
        if not letters:
            return
        first = {letter.letter_id: letter for letter in reversed(letters)}
        # Their blobs belong to no task: a dead letter outlives its task.
        outgoing = [self._context.blobs.outgoing(None) for _ in first]
        documents = [
            _letter_document(letter, batch.write)
            for letter, batch in zip(first.values(), outgoing, strict=True)
        ]
        await self._context.blobs.upload(outgoing)
        name = self._context.name("dead_letters")
        taken = await self._context.calls.patiently(
            lambda: self._context.database.insert(name, documents)
        )
        repeated = {
            documents[number]["_id"]: outgoing[number] for number in taken if outgoing[number].blobs
        }
        if repeated:
            where = {"_id": {"$in": list(repeated)}}
            found = await self._context.find("dead_letters", where)
            kept = {blob_of(document.get("data")) for document in found}
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
        """Return the matching letters in the order of their ids."""
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
            decode=_dead_letter,
            unreadable=_unreadable_letter,
            sort=[("_id", 1)],
            limit=limit,
        )

    async def drop(self, letter_ids: Collection[str]) -> int:
        """Delete letters with their blobs and return their number."""
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


def _letter_document(letter: DeadLetter, write: Write) -> Document:
    optional = {
        "task_id": letter.task_id,
        "node_id": letter.node_id,
        "uid": letter.uid,
        "size": letter.size or None,
        "generation": letter.generation or None,
        "attempt": letter.attempt or None,
        "topic": letter.topic,
        "key": _storable(letter.key) if letter.key else None,
        "partition": letter.partition,
        "position": letter.position,
        "headers": [{"k": _storable(name), "v": value} for name, value in letter.headers.items()]
        or None,
    }
    return {
        "_id": letter.letter_id,
        "schema_version": SCHEMA_VERSION,
        "at": letter.at,
        "kind": letter.kind,
        "reason_code": letter.reason_code,
        "error": letter.error,
        **{name: value for name, value in optional.items() if value is not None},
        "data": write("letter", letter.data),
    }


def _dead_letter(document: Document, read: Read) -> DeadLetter:
    return _letter(document, read(document["data"]))


def _unreadable_letter(document: Document, fault: str) -> DeadLetter:
    """Return a letter with its ``fault`` and its undamaged fields."""
    defaults = {
        "_id": str(document["_id"]),
        "at": 0.0,
        "kind": "message",
        "reason_code": "damaged",
        "error": "",
    }
    undamaged = SHAPES["dead_letters"].fitting(document)
    return _letter(defaults | undamaged, b"", fault=fault[:LONGEST_FAULT])


def _letter(document: Document, data: bytes, fault: str | None = None) -> DeadLetter:
    return DeadLetter(
        letter_id=document["_id"],
        at=document["at"],
        kind=document["kind"],
        reason_code=document["reason_code"],
        error=document["error"],
        task_id=document.get("task_id"),
        node_id=document.get("node_id"),
        uid=document.get("uid"),
        data=data,
        size=document.get("size", 0),
        generation=document.get("generation", 0),
        attempt=document.get("attempt", 0),
        topic=document.get("topic"),
        key=_text(document.get("key", "")),
        partition=document.get("partition"),
        position=document.get("position"),
        headers={_text(pair["k"]): pair["v"] for pair in document.get("headers", ())},
        fault=fault,
    )


def _storable(text: str) -> str | bytes:
    """Return text that is not Unicode as bytes, which MongoDB requires.

    The key of a message from another program may be such a text.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _text(stored: str | bytes) -> str:
    if isinstance(stored, str):
        return stored
    try:
        return stored.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return stored.decode("utf-8", "backslashreplace")
