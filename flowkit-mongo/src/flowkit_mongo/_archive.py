"""Parts of tasks that no longer change: one document each."""

from collections.abc import Collection, Sequence
from typing import Any

from flowkit.errors import CorruptRecord
from flowkit.protocols import ArchivedPart
from flowkit_mongo._blobs import Outgoing
from flowkit_mongo._context import Context, corrupt, none_missed, sound
from flowkit_mongo._documents import archive_change, archive_id, blob_of
from flowkit_mongo._driver import Change, Document

BEHIND_ALL_NAMES: Document = {}
"""MongoDB sorts every object behind every string."""


class Archive:
    """The collection ``{namespace}_archive``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def put(self, parts: Sequence[tuple[str, ArchivedPart]]) -> None:
        """Store these, each with its task's id. What has a lower rank than what is there is
        dropped. Durable when it returns.
        """
        highest: dict[tuple[str, str], ArchivedPart] = {}
        for task_id, part in parts:
            other = highest.get((task_id, part.name))
            if other is None or part.rank > other.rank:
                highest[task_id, part.name] = part
        changes: list[Change] = []
        large: list[tuple[Outgoing, ArchivedPart]] = []
        for (task_id, _), part in highest.items():
            outgoing = self._context.blobs.outgoing(task_id, version=part.rank)
            value = outgoing.write(_use(part.name), part.data)
            changes.append(archive_change(task_id, part, value))
            if outgoing.blobs:
                large.append((outgoing, part))
        if not changes:
            return
        await self._context.blobs.upload(outgoing for outgoing, _ in large)
        await self._context.calls.patiently(
            lambda: self._context.driver.change(self._context.name("archive"), changes)
        )
        for outgoing, part in large:
            await self._tidy(str(outgoing.task_id), part)

    async def _tidy(self, task_id: str, part: ArchivedPart) -> None:
        """Delete the blobs of this part that the document does not point at. One of a higher rank
        may be about to be pointed at.
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
        if not names:
            return {}

        async def of_names(wanted: Collection[str], **how: Any) -> dict[str, bytes]:
            found = await self._read(
                {"_id": {"$in": [archive_id(task_id, name) for name in wanted]}}, **how
            )
            for part in found:
                if isinstance(part, CorruptRecord):
                    raise part
            return dict(sound(found))

        return await none_missed(names, of_names)

    async def scan(
        self, task_id: str, *, prefix: str, after: str, limit: int
    ) -> list[tuple[str, bytes]]:
        span: Document = {"$lt": archive_id(task_id, _behind(prefix))}
        span["$gt" if after >= prefix and after else "$gte"] = archive_id(
            task_id, max(prefix, after)
        )
        return sound(await self._read({"_id": span}, sort=[("_id", 1)], limit=limit))

    async def _read(self, where: Document, **how: Any) -> list[tuple[str, bytes] | CorruptRecord]:
        return await self._context.read(
            "archive",
            where,
            values=lambda document: [document["data"]],
            decode=lambda document, read: (document["_id"]["name"], read(document["data"])),
            unreadable=corrupt,
            **how,
        )


def of_task(task_id: str) -> Document:
    """Where all of a task's archive is."""
    return {"_id": {"$gte": archive_id(task_id, ""), "$lt": archive_id(task_id, BEHIND_ALL_NAMES)}}


def _use(name: str) -> str:
    return f"archive/{name}"


def _behind(prefix: str) -> Any:
    """What sorts behind everything that starts with ``prefix``: the prefix with its last
    character's successor.
    """
    while prefix:
        code = ord(prefix[-1]) + 1
        if code == 0xD800:
            code = 0xE000  # between them are the surrogates, which are no characters
        if code <= 0x10FFFF:
            return prefix[:-1] + chr(code)
        prefix = prefix[:-1]
    return BEHIND_ALL_NAMES
