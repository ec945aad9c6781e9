"""Deleting tasks that are over, with all that belongs to them.

Several documents cannot be deleted at once, so the order matters: a note in ``{namespace}_purged``
comes first, then the task, then what belonged to it, and the note stays for an hour. Whoever purges
next deletes again what noted tasks left, be it because the first one crashed half-way or because a
late worker still stored an artifact. So nothing is left behind for ever, and a task that was made
to run again in the meantime keeps everything.
"""

from collections.abc import Awaitable, Callable, Collection
from datetime import datetime, timedelta

from flowkit._json.limits import FIRST_MOMENT
from flowkit.protocols import utc
from flowkit_mongo._archive import of_task
from flowkit_mongo._context import Context
from flowkit_mongo._document_schemas import TEXT_ID
from flowkit_mongo._driver import Document

NOTE_KEPT = timedelta(hours=1)
AT_A_TIME = 1000


class Purging:
    """Deletes what is over."""

    def __init__(
        self,
        context: Context,
        *,
        forget: Callable[[Collection[str]], None],
        now: Callable[[], Awaitable[float]] | None = None,
    ) -> None:
        self._context, self._forget = context, forget
        self._server_time = now or context.server_time
        self._swept_to: datetime | None = None

    async def purge(self, *, finished_before: float, limit: int) -> int:
        """Delete up to ``limit`` tasks that ended before then, and say how many."""
        await self._finish_earlier()
        await self._delete_orphans()
        # Damaged ids and times are let be: what belongs to an id that is null, say, is what belongs
        # to no task.
        over = {"finished_at": {"$gte": FIRST_MOMENT, "$lt": finished_before}, "_id": TEXT_ID}
        found = await self._context.find(
            "tasks", over, {"_id": 1}, sort=[("finished_at", 1)], limit=limit
        )
        task_ids = [document["_id"] for document in found]
        if not task_ids:
            return 0
        await self._note(task_ids)
        count = await self._context.delete("tasks", {**over, "_id": {"$in": task_ids}})
        await self._delete_what_belonged_to(await self._gone(task_ids))
        return count

    async def _now(self) -> datetime:
        """Return the time of the server: other processes, whose clocks may be wrong, read the
        notes.
        """
        return utc(await self._server_time())

    async def _note(self, task_ids: Collection[str]) -> None:
        now = await self._now()
        notes = [{"_id": task_id, "at": now} for task_id in task_ids]
        name = self._context.name("purged")
        await self._context.calls.patiently(lambda: self._context.driver.insert(name, notes))

    async def _gone(self, task_ids: Collection[str]) -> list[str]:
        """Those of these tasks that do not exist."""
        there = {
            document["_id"]
            for document in await self._context.find(
                "tasks", {"_id": {"$in": list(task_ids)}}, {"_id": 1}
            )
        }
        return [task_id for task_id in task_ids if task_id not in there]

    async def _delete_what_belonged_to(self, task_ids: Collection[str]) -> None:
        if not task_ids:
            return
        self._forget(set(task_ids))
        for task_id in task_ids:
            await self._context.delete("archive", of_task(task_id))
        await self._context.delete("artifacts", {"task_id": {"$in": list(task_ids)}})
        await self._context.blobs.delete_where({"metadata.task_id": {"$in": list(task_ids)}})

    async def _finish_earlier(self) -> None:
        """See to the tasks that were noted more than an hour ago."""
        old = {"at": {"$lt": await self._now() - NOTE_KEPT}, "_id": TEXT_ID}
        noted = [
            document["_id"]
            for document in await self._context.find(
                "purged", old, {"_id": 1}, sort=[("at", 1)], limit=AT_A_TIME
            )
        ]
        if noted:
            await self._delete_what_belonged_to(await self._gone(noted))
            await self._context.delete("purged", {**old, "_id": {"$in": noted}})

    async def _delete_orphans(self) -> None:
        """Delete blobs that were written for tasks which then were not created."""
        until = await self._now() - NOTE_KEPT
        found = await self._context.blobs.uploaded_before(
            until, after=self._swept_to, limit=AT_A_TIME
        )
        owners = {owner for document in found if (owner := _owner(document)) is not None}
        if orphaned := await self._gone(owners):
            await self._context.blobs.delete_where(
                {"metadata.task_id": {"$in": orphaned}, "uploadDate": {"$lt": until}}
            )
        if found:
            self._swept_to = found[-1]["uploadDate"]


def _owner(file: Document) -> str | None:
    """The task that a blob was written for. A file that somebody else put into the bucket has none,
    and is left alone.
    """
    metadata = file.get("metadata")
    owner = metadata.get("task_id") if isinstance(metadata, dict) else None
    return owner if isinstance(owner, str) else None
