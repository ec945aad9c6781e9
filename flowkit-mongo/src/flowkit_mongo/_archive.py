"""Archived parts of tasks, which no longer change: one document each."""

from collections.abc import Collection, Sequence
from typing import Any

from flowkit.adapters import end_of_prefix
from flowkit.errors import CorruptRecord
from flowkit.protocols import ArchivedPart
from flowkit_mongo._blobs import Outgoing
from flowkit_mongo._context import Context, corrupt, none_missed, sound
from flowkit_mongo._database import Document
from flowkit_mongo._documents import (
    AFTER_ALL_TEXTS,
    archive_change,
    archive_document,
    archive_id,
    blob_of,
)


class Archive:
    """The collection ``{namespace}_archive``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def put(self, parts: Sequence[tuple[str, ArchivedPart]]) -> None:
        """Store parts, each with its task's id; they are durable when this returns.

        A part whose rank is lower than that of the stored one is dropped.
        """
        highest: dict[tuple[str, str], ArchivedPart] = {}
        for task_id, part in parts:
            other = highest.get((task_id, part.name))
            if other is None or part.rank > other.rank:
                highest[task_id, part.name] = part
        documents: list[Document] = []
        large: list[tuple[Outgoing, ArchivedPart]] = []
        for (task_id, _), part in highest.items():
            outgoing = self._context.blobs.outgoing(task_id, version=part.rank)
            value = outgoing.write(_use(part.name), part.data)
            documents.append(archive_document(task_id, part, value))
            if outgoing.blobs:
                large.append((outgoing, part))
        if not documents:
            return
        await self._context.blobs.upload(outgoing for outgoing, _ in large)
        await self._write(documents)
        for outgoing, part in large:
            await self._delete_unused_blobs(outgoing.task_id, part)

    async def _write(self, documents: Sequence[Document]) -> None:
        # Nearly all parts are new, and an insert costs the server a fraction of an upsert.
        database, calls = self._context.database, self._context.calls
        name = self._context.name("archive")
        taken = await calls.patiently(lambda: database.insert(name, documents))
        if changes := [archive_change(documents[number]) for number in taken]:
            await calls.patiently(lambda: database.change(name, changes))

    async def _delete_unused_blobs(self, task_id: str, part: ArchivedPart) -> None:
        """Delete the blobs of this part that its document does not point at.

        Blobs of a higher rank are kept: their document may be written next.
        """
        (stored,) = await self._context.find(
            "archive", {"_id": archive_id(task_id, part.name)}, {"rank": 1, "data.blob": 1}
        ) or [{}]
        where: Document = {
            "metadata.task_id": task_id,
            "metadata.use": _use(part.name),
            "metadata.version": {"$lte": part.rank},
        }
        if (kept := blob_of(stored.get("data"))) is not None:
            where["_id"] = {"$ne": kept}
        await self._context.blobs.delete_where(where)

    async def read(self, task_id: str, names: Collection[str]) -> dict[str, bytes]:
        """Return the data of these parts, by name.

        Raises:
            CorruptRecord: one of them cannot be decoded.
        """
        if not names:
            return {}

        async def read_names(wanted: Collection[str], **options: Any) -> dict[str, bytes]:
            ids = [archive_id(task_id, name) for name in wanted]
            found = await self._read({"_id": {"$in": ids}}, **options)
            for part in found:
                if isinstance(part, CorruptRecord):
                    raise part
            return dict(sound(found))

        return await none_missed(names, read_names)

    async def scan(
        self, task_id: str, *, prefix: str, after: str, limit: int
    ) -> list[tuple[str, bytes]]:
        """Return the parts whose names have a prefix, in order."""
        end = end_of_prefix(prefix)
        span: Document = {"$lt": archive_id(task_id, AFTER_ALL_TEXTS if end is None else end)}
        span["$gt" if after >= prefix and after else "$gte"] = archive_id(
            task_id, max(prefix, after)
        )
        return sound(await self._read({"_id": span}, sort=[("_id", 1)], limit=limit))

    async def _read(
        self, where: Document, **options: Any
    ) -> list[tuple[str, bytes] | CorruptRecord]:
        return await self._context.read(
            "archive",
            where,
            values=lambda document: [document["data"]],
            decode=lambda document, read: (document["_id"]["name"], read(document["data"])),
            unreadable=corrupt,
            **options,
        )


def of_task(task_id: str) -> Document:
    """Return the condition that matches all archived parts of a task."""
    return {"_id": {"$gte": archive_id(task_id, ""), "$lt": archive_id(task_id, AFTER_ALL_TEXTS)}}


def _use(name: str) -> str:
    return f"archive/{name}"
