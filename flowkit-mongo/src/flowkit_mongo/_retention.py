"""Retention of tasks: deletion of ended tasks with all their records.

MongoDB cannot delete these documents together, so the order matters. First, a note is stored in
``{namespace}_purged``. Then the task is deleted, then its other records. The note stays for an
hour, after which the next purge deletes the task's records again: the first purge may have crashed,
or a late worker may have stored an artifact. So no record stays for ever, and a task that was
retried in the meantime keeps all of its records.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta

from flowkit.adapters import FIRST_MOMENT
from flowkit.protocols import utc
from flowkit_mongo._archive import of_task
from flowkit_mongo._context import Context
from flowkit_mongo._database import Document
from flowkit_mongo._document_schemas import TEXT_ID
from flowkit_mongo._marked_changes import MarkedChanges

NOTE_KEPT = timedelta(hours=1)
AT_A_TIME = 1000


class Retention:
    """Deletes ended tasks with all their records."""

    def __init__(
        self,
        context: Context,
        *,
        forget: Callable[[Collection[str]], None],
        marked_changes: MarkedChanges,
        now: Callable[[], Awaitable[float]] | None = None,
    ) -> None:
        self._context, self._forget = context, forget
        self._marked_changes = marked_changes
        self._server_time = now or context.server_time
        self._orphans_searched_to: datetime | None = None

    async def purge(self, *, finished_before: float, limit: int) -> int:
        """Delete up to ``limit`` tasks that ended before a time and return their number."""
        await self._delete_late_records()
        await self._delete_orphans()
        # Tasks with damaged ids or times are kept: many keyed records have no task, as if its id
        # were null.
        over = {
            "finished_at": {"$gte": FIRST_MOMENT, "$lt": finished_before},
            "wake_at": None,
            "_id": TEXT_ID,
        }
        found = await self._context.find(
            "tasks", over, {"_id": 1}, sort=[("finished_at", 1)], limit=limit
        )
        task_ids = [document["_id"] for document in found]
        if not task_ids:
            return 0
        await self._note(task_ids)
        count = await self._context.delete("tasks", {**over, "_id": {"$in": task_ids}})
        await self._delete_records_of(await self._gone(task_ids))
        return count

    async def _now(self) -> datetime:
        """Return the server's time, because processes with other clocks read the notes."""
        return utc(await self._server_time())

    async def _note(self, task_ids: Collection[str]) -> None:
        now = await self._now()
        notes = [{"_id": task_id, "at": now} for task_id in task_ids]
        name = self._context.name("purged")
        await self._context.calls.patiently(lambda: self._context.database.insert(name, notes))

    async def _gone(self, task_ids: Collection[str]) -> list[str]:
        """Return the ids of the tasks that do not exist."""
        existing = {
            document["_id"]
            for document in await self._context.find(
                "tasks", {"_id": {"$in": list(task_ids)}}, {"_id": 1}
            )
        }
        return [task_id for task_id in task_ids if task_id not in existing]

    async def _delete_records_of(self, task_ids: Collection[str]) -> None:
        if not task_ids:
            return
        self._forget(set(task_ids))
        for task_id in task_ids:
            await self._context.delete("archive", of_task(task_id))
        await self._marked_changes.complete()
        await self._context.delete("records", {"task_id": {"$in": list(task_ids)}})
        await self._context.delete("artifacts", {"task_id": {"$in": list(task_ids)}})
        await self._context.blobs.delete_where({"metadata.task_id": {"$in": list(task_ids)}})

    async def _delete_late_records(self) -> None:
        """Delete the records of tasks whose notes are older than an hour, then the notes."""
        await self._marked_changes.forget_old(await self._server_time())
        old = {"at": {"$lt": await self._now() - NOTE_KEPT}, "_id": TEXT_ID}
        noted = [
            document["_id"]
            for document in await self._context.find(
                "purged", old, {"_id": 1}, sort=[("at", 1)], limit=AT_A_TIME
            )
        ]
        if noted:
            await self._delete_records_of(await self._gone(noted))
            await self._context.delete("purged", {**old, "_id": {"$in": noted}})

    async def _delete_orphans(self) -> None:
        """Delete blobs of tasks that were not created in the end."""
        until = await self._now() - NOTE_KEPT
        found = await self._context.blobs.uploaded_before(
            until, after=self._orphans_searched_to, limit=AT_A_TIME
        )
        owners = {owner for document in found if (owner := _owner(document)) is not None}
        if orphaned := await self._gone(owners):
            await self._context.blobs.delete_where(
                {"metadata.task_id": {"$in": orphaned}, "uploadDate": {"$lt": until}}
            )
        if found:
            self._orphans_searched_to = found[-1]["uploadDate"]


def _owner(file: Document) -> str | None:
    """Return the task that a blob belongs to; None for a file of another program, which is kept."""
    metadata = file.get("metadata")
    owner = metadata.get("task_id") if isinstance(metadata, dict) else None
    return owner if isinstance(owner, str) else None
