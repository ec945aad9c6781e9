"""The mutable records of tasks: one document each, changed by compare-and-set."""

import secrets
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import anyio

from flowkit._json.limits import FIRST_MOMENT, LAST_MOMENT
from flowkit.errors import RecordRefused, RecordTooLarge, StoreError, StoreUnavailable
from flowkit.protocols import Commit, TaskQuery, TaskRecord
from flowkit_mongo._archive import Archive
from flowkit_mongo._blobs import Outgoing
from flowkit_mongo._changes import GONE, State
from flowkit_mongo._context import Context, corrupt, none_missed
from flowkit_mongo._document_schemas import INDEX, TEXT, TEXT_ID
from flowkit_mongo._documents import (
    RECENT,
    blob_of,
    commit_change,
    pairs,
    task_document,
    task_record,
    unreadable_task,
)
from flowkit_mongo._driver import Document
from flowkit_mongo._indexes import NEWEST_FIRST

DUE_FIRST = [("wake_at", 1), ("_id", 1)]
LOOKS = 15


class Tasks:
    """The collection ``{namespace}_tasks``."""

    def __init__(self, context: Context, archive: Archive) -> None:
        self._context, self._archive = context, archive

    # ------------------------------------------------------------ creating

    async def create(self, records: Sequence[TaskRecord]) -> list[str]:
        for record in records:
            self._check_size(record)
        answers = [record.header.task_id for record in records]
        waiting = list(range(len(records)))
        for attempt in range(LOOKS):
            taken = await self._insert([records[number] for number in waiting])
            waiting = [waiting[place] for place in sorted(taken)]
            standing = await self._standing([records[number] for number in waiting])
            for number in waiting:
                answers[number] = standing.get(_identity(records[number]), answers[number])
            # What took the key may not be confirmed yet, or was deleted before we looked.
            waiting = [number for number in waiting if _identity(records[number]) not in standing]
            if not waiting:
                return answers
            await anyio.sleep(0.002 * 1.5**attempt)
        raise StoreUnavailable(
            f"another create of task {answers[waiting[0]]!r} or its idempotency key is not"
            " confirmed"
        )

    async def _insert(self, records: Sequence[TaskRecord]) -> set[int]:
        """Insert, and say which of these found their id or key taken. A repetition finds what the
        first try wrote, which is well.
        """
        context = self._context
        outgoing = [context.blobs.outgoing(record.header.task_id) for record in records]
        documents = [
            task_document(record, batch.write)
            for record, batch in zip(records, outgoing, strict=True)
        ]
        await context.blobs.upload(outgoing)
        taken = await context.calls.patiently(
            lambda: context.driver.insert(context.name("tasks"), documents)
        )
        if any(outgoing[number].blobs for number in taken):
            await self._discard_unused([outgoing[number] for number in taken])
        return taken

    async def _discard_unused(self, outgoing: Sequence[Outgoing]) -> None:
        """Delete the blobs of documents that were not inserted, save those that turn out to have
        been.
        """
        found = await self._context.find(
            "tasks", {"_id": {"$in": [batch.task_id for batch in outgoing]}}
        )
        pointed = {blob_of(value) for document in found for value in _values(document)}
        await self._context.blobs.delete(
            [
                blob.blob_id
                for batch in outgoing
                for blob in batch.blobs
                if blob.blob_id not in pointed
            ]
        )

    async def _standing(self, records: Sequence[TaskRecord]) -> dict[tuple[str, str | None], str]:
        """For each record, the id of the task that is stored in its place."""
        if not records:
            return {}
        ids = [record.header.task_id for record in records]
        keys = [
            record.header.idempotency_key
            for record in records
            if record.header.idempotency_key is not None
        ]
        there = {
            document["_id"]
            for document in await self._context.find("tasks", {"_id": {"$in": ids}}, {"_id": 1})
        }
        found = (
            await self._context.find(
                "tasks", {"idempotency_key": {"$in": keys}}, {"idempotency_key": 1}
            )
            if keys
            else []
        )
        for document in found:
            if not (TEXT.fits(document["_id"]) and TEXT.fits(document["idempotency_key"])):
                raise corrupt(
                    document,
                    "it has the idempotency key of a submission, and its id or its key is not text",
                )
        by_key = {document["idempotency_key"]: document["_id"] for document in found}
        standing = {}
        for record in records:
            task_id, key = _identity(record)
            if task_id in there:
                standing[task_id, key] = task_id
            elif key in by_key:
                standing[task_id, key] = by_key[key]
        return standing

    def _check_size(self, record: TaskRecord) -> None:
        size = len(record.spec) + sum(map(len, record.parts.values()))
        self._refuse_above_limit(f"task {record.header.task_id!r}", size)

    def _refuse_above_limit(self, what: str, size: int) -> None:
        limit = self._context.config.max_record_bytes
        if size > limit:
            raise RecordTooLarge(f"{what} is {size} bytes; at most {limit} are stored")

    # ------------------------------------------------------------ committing

    async def commit(self, commits: Sequence[Commit]) -> list[bool]:
        for commit in commits:
            parts = [*commit.put.items(), *((part.name, part.data) for part in commit.archive)]
            for name, data in parts:
                self._refuse_above_limit(f"part {name!r} of task {commit.task_id!r}", len(data))
        applied = [False] * len(commits)
        for turn in _turns(commits):
            for number, won in zip(
                turn, await self._commit_each([commits[number] for number in turn]), strict=True
            ):
                applied[number] = won
        return applied

    async def _commit_each(self, commits: Sequence[Commit]) -> list[bool]:
        """Commits of different tasks in one bulk write."""
        context = self._context
        await self._archive.put(
            [(commit.task_id, part) for commit in commits for part in commit.archive]
        )
        mark = secrets.token_hex(8) if len(commits) > 1 else None
        outgoing = [
            context.blobs.outgoing(commit.task_id, version=commit.expected_version + 1)
            for commit in commits
        ]
        changes = [
            commit_change(commit, batch.write, mark=mark)
            for commit, batch in zip(commits, outgoing, strict=True)
        ]
        await context.blobs.upload(outgoing)
        try:
            matched = await context.calls.once(
                lambda: context.driver.change(context.name("tasks"), changes)
            )
        except (RecordRefused, RecordTooLarge):
            # The commits of the others were applied.
            await self._tidy(outgoing, await self._winners(commits, mark))
            raise
        won = (
            [True] * len(commits) if matched == len(commits) else await self._winners(commits, mark)
        )
        await self._tidy(outgoing, won)
        return won

    async def _winners(self, commits: Sequence[Commit], mark: str | None) -> list[bool]:
        """Which of a bulk write's commits were applied: the server says only how many."""
        if mark is None:
            return [False]
        ids = [commit.task_id for commit in commits]
        found = await self._context.find(
            "tasks", {"_id": {"$in": ids}}, {"version": 1, "recent": 1}
        )
        documents = {document["_id"]: document for document in found}
        return [_was_applied(commit, documents.get(commit.task_id), mark) for commit in commits]

    async def _tidy(self, outgoing: Sequence[Outgoing], won: Sequence[bool]) -> None:
        """Delete the blobs of those that lost, and what the blobs of the others replaced."""
        for batch, applied in zip(outgoing, won, strict=True):
            if not batch.blobs:
                continue
            if applied:
                await self._context.blobs.replace(
                    str(batch.task_id), [blob.use for blob in batch.blobs], below=batch.version
                )
            else:
                await self._context.blobs.discard([batch])

    # ------------------------------------------------------------ reading

    async def load(self, task_ids: Collection[str]) -> dict[str, TaskRecord]:
        if not task_ids:
            return {}
        return await none_missed(task_ids, self._load)

    async def _load(self, task_ids: Collection[str], **how: Any) -> dict[str, TaskRecord]:
        return {
            record.header.task_id: record
            for record in await self._read({"_id": {"$in": list(task_ids)}}, **how)
        }

    async def _read(self, where: Document, **how: Any) -> list[TaskRecord]:
        return await self._context.read(
            "tasks", where, values=_values, decode=task_record, unreadable=unreadable_task, **how
        )

    async def states(self, task_ids: Collection[str]) -> Mapping[str, State]:
        return await none_missed(task_ids, self._states)

    async def _states(self, task_ids: Collection[str], **how: Any) -> dict[str, State]:
        fields = {"version": 1, "finished_at": 1}
        found = await self._context.find("tasks", {"_id": {"$in": list(task_ids)}}, fields, **how)
        return {document["_id"]: _state(document) for document in found}

    async def due(self, *, before: float, limit: int) -> list[str]:
        where = {"wake_at": {"$lte": before}, "_id": TEXT_ID}
        found = await self._context.find("tasks", where, {"_id": 1}, sort=DUE_FIRST, limit=limit)
        return [document["_id"] for document in found]

    async def list(self, query: TaskQuery) -> tuple[list[TaskRecord], str | None]:
        found = await self._read(_where(query), sort=list(NEWEST_FIRST), limit=query.limit + 1)
        page = found[: query.limit]
        return page, _page_token(page[-1]) if page and len(found) > query.limit else None


def _state(document: Document) -> State:
    """Version and end of a task. One whose version is damaged counts as changed: whoever waits for
    it looks, and sees what is wrong.
    """
    version = document.get("version")
    return (
        (int(version), "finished_at" in document)
        if version is not None and INDEX.fits(version)
        else GONE
    )


def _identity(record: TaskRecord) -> tuple[str, str | None]:
    return record.header.task_id, record.header.idempotency_key


def _values(document: Document) -> list[object]:
    parts = document.get("parts")
    return [document.get("spec"), *(parts.values() if isinstance(parts, dict) else ())]


def _turns(commits: Sequence[Commit]) -> Iterator[list[int]]:
    """The commits' numbers in turns, in each of which no task occurs twice: a bulk write keeps no
    order.
    """
    waiting = list(range(len(commits)))
    while waiting:
        turn: dict[str, int] = {}
        for number in waiting:
            turn.setdefault(commits[number].task_id, number)
        chosen = set(turn.values())
        yield list(turn.values())
        waiting = [number for number in waiting if number not in chosen]


def _was_applied(commit: Commit, document: Document | None, mark: str) -> bool:
    if (
        document is None
        or not INDEX.fits(document.get("version"))
        or document["version"] <= commit.expected_version
    ):
        return False
    recent = document.get("recent")
    if isinstance(recent, list) and mark in recent:
        return True
    if document["version"] - commit.expected_version > RECENT:
        raise StoreUnavailable(
            f"task {commit.task_id!r} has moved on too far to tell whether operation"
            f" {commit.op_id!r} was applied"
        )
    return False


def _where(query: TaskQuery) -> Document:
    # A page ends where its last record is in the order: what has no place there would hide what
    # comes behind it.
    moments: Document = {"$gte": FIRST_MOMENT, "$lte": LAST_MOMENT, "$not": {"$type": "array"}}
    where: Document = {"_id": TEXT_ID, "created_at": moments}
    if query.statuses:
        where["status"] = {"$in": list(query.statuses)}
    if query.pipeline is not None:
        where["pipeline"] = query.pipeline
    if query.labels:
        where["labels"] = {"$all": pairs(query.labels)}
    if query.after is not None:
        created_at, task_id = _from_page_token(query.after)
        moments["$lte"] = created_at
        where["$or"] = [{"created_at": {"$lt": created_at}}, {"_id": {"$lt": task_id}}]
    return where


def _page_token(record: TaskRecord) -> str:
    return f"{record.header.created_at!r}|{record.header.task_id}"


def _from_page_token(token: str) -> tuple[float, str]:
    created_at, bar, task_id = token.partition("|")
    try:
        if bar:
            return float(created_at), task_id
    except ValueError:
        pass
    raise StoreError(f"{token!r} is not what a page before gave as next")
