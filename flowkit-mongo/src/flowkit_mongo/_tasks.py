"""Tasks that change: one document each."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import anyio

from flowkit.adapters import page_cursor
from flowkit.errors import StoreUnavailable
from flowkit.protocols import TaskQuery, TaskRecord
from flowkit_mongo._blobs import Outgoing
from flowkit_mongo._changes import GONE, State
from flowkit_mongo._context import Context, corrupt, none_missed
from flowkit_mongo._database import Document
from flowkit_mongo._document_schemas import TEXT_ID
from flowkit_mongo._documents import blob_of, task_document, task_record, unreadable_task
from flowkit_mongo._indexes import NEWEST_FIRST, OLDEST_FIRST
from flowkit_mongo._task_queries import condition
from flowkit_mongo._value_forms import INDEX, TEXT

DUE_FIRST = [("wake_at", 1), ("_id", 1)]
TRIES = 15
PAUSE_SEC = 0.002
BACKOFF = 1.5


class Tasks:
    """The collection ``{namespace}_tasks``."""

    def __init__(self, context: Context) -> None:
        self._context = context

    # ------------------------------------------------------------ creation

    async def create(self, records: Sequence[TaskRecord]) -> list[str]:
        """Store new tasks and return the ids under which they exist."""
        for record in records:
            size = len(record.spec) + sum(map(len, record.parts.values()))
            self._context.check_size(size, "task {!r}", record.header.task_id)
        answers = [record.header.task_id for record in records]
        waiting = list(range(len(records)))
        for attempt in range(TRIES):
            taken = await self._insert([records[number] for number in waiting])
            waiting = [waiting[place] for place in sorted(taken)]
            existing = await self._existing([records[number] for number in waiting])
            for number in waiting:
                answers[number] = existing.get(_identity(records[number]), answers[number])
            # The others are retried: the task that has their key may not be confirmed yet, or was
            # deleted meanwhile.
            waiting = [number for number in waiting if _identity(records[number]) not in existing]
            if not waiting:
                return answers
            await anyio.sleep(PAUSE_SEC * BACKOFF**attempt)
        raise StoreUnavailable(
            f"another create of task {answers[waiting[0]]!r} or its idempotency key is not"
            " confirmed"
        )

    async def _insert(self, records: Sequence[TaskRecord]) -> set[int]:
        """Insert records and return the indexes of those whose id or key was taken.

        A repetition finds the documents of the first try, which are the right ones.
        """
        context = self._context
        outgoing = [context.blobs.outgoing(record.header.task_id) for record in records]
        documents = [
            task_document(record, batch.write)
            for record, batch in zip(records, outgoing, strict=True)
        ]
        await context.blobs.upload(outgoing)
        taken = await context.calls.patiently(
            lambda: context.database.insert(context.name("tasks"), documents)
        )
        if any(outgoing[number].blobs for number in taken):
            await self._delete_unused_blobs([outgoing[number] for number in taken])
        return taken

    async def _delete_unused_blobs(self, outgoing: Sequence[Outgoing]) -> None:
        """Delete these blobs, except those that a stored document points at."""
        found = await self._context.find(
            "tasks", {"_id": {"$in": [batch.task_id for batch in outgoing]}}
        )
        used = {blob_of(value) for document in found for value in _values(document)}
        await self._context.blobs.delete(
            [blob.blob_id for batch in outgoing for blob in batch.blobs if blob.blob_id not in used]
        )

    async def _existing(self, records: Sequence[TaskRecord]) -> dict[tuple[str, str | None], str]:
        """Return for each record the id of the stored task that has its id or key."""
        if not records:
            return {}
        ids = [record.header.task_id for record in records]
        keys = [
            record.header.idempotency_key
            for record in records
            if record.header.idempotency_key is not None
        ]
        stored_ids = {
            document["_id"]
            for document in await self._context.find("tasks", {"_id": {"$in": ids}}, {"_id": 1})
        }
        by_key = await self._by_key(keys) if keys else {}
        existing = {}
        for record in records:
            task_id, key = _identity(record)
            if task_id in stored_ids:
                existing[task_id, key] = task_id
            elif key is not None and key in by_key:
                existing[task_id, key] = by_key[key]
        return existing

    async def _by_key(self, keys: Sequence[str]) -> dict[str, str]:
        """Return the ids of the tasks with these idempotency keys, by key."""
        found = await self._context.find(
            "tasks", {"idempotency_key": {"$in": keys}}, {"idempotency_key": 1}
        )
        for document in found:
            if not (TEXT.fits(document["_id"]) and TEXT.fits(document["idempotency_key"])):
                raise corrupt(
                    document,
                    "it has the idempotency key of a submission, and its id or its key is not text",
                )
        return {document["idempotency_key"]: document["_id"] for document in found}

    # ------------------------------------------------------------ reading

    async def load(self, task_ids: Collection[str]) -> dict[str, TaskRecord]:
        """Return the tasks that exist, by id."""
        if not task_ids:
            return {}
        return await none_missed(task_ids, self._load)

    async def _load(self, task_ids: Collection[str], **options: Any) -> dict[str, TaskRecord]:
        return {
            record.header.task_id: record
            for record in await self._read({"_id": {"$in": list(task_ids)}}, **options)
        }

    async def _read(self, where: Document, **options: Any) -> list[TaskRecord]:
        return await self._context.read(
            "tasks",
            where,
            values=_values,
            decode=task_record,
            unreadable=unreadable_task,
            **options,
        )

    async def states(self, task_ids: Collection[str]) -> Mapping[str, State]:
        """Return the states of the tasks that exist, by id."""
        return await none_missed(task_ids, self._states)

    async def _states(self, task_ids: Collection[str], **options: Any) -> dict[str, State]:
        fields = {"version": 1, "finished_at": 1}
        where = {"_id": {"$in": list(task_ids)}}
        found = await self._context.find("tasks", where, fields, **options)
        return {document["_id"]: _state(document) for document in found}

    async def due(self, *, before: float, limit: int) -> list[str]:
        """Return the ids of tasks whose wake-up time has come, the earliest first."""
        where = {"wake_at": {"$lte": before}, "_id": TEXT_ID}
        found = await self._context.find("tasks", where, {"_id": 1}, sort=DUE_FIRST, limit=limit)
        return [document["_id"] for document in found]

    async def list(self, query: TaskQuery) -> tuple[list[TaskRecord], str | None]:
        """Return a page of tasks, and the cursor of the next page."""
        sort = OLDEST_FIRST if query.oldest_first else NEWEST_FIRST
        found = await self._read(condition(query), sort=list(sort), limit=query.limit + 1)
        page = found[: query.limit]
        if not page or len(found) <= query.limit:
            return page, None
        return page, page_cursor(page[-1].header.created_at, page[-1].header.task_id)


def _state(document: Document) -> State:
    """Return the state of a task.

    A damaged version counts as changed, so that waiters read the task and see the fault.
    """
    version = document.get("version")
    if version is None or not INDEX.fits(version):
        return GONE
    return State(int(version), "finished_at" in document)


def _identity(record: TaskRecord) -> tuple[str, str | None]:
    return record.header.task_id, record.header.idempotency_key


def _values(document: Document) -> list[object]:
    parts = document.get("parts")
    return [document.get("spec"), *(parts.values() if isinstance(parts, dict) else ())]
