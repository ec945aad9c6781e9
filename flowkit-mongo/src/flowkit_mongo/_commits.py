"""Commits of tasks: compare-and-set of many tasks in one bulk write."""

import secrets
from collections.abc import Iterator, Sequence

from flowkit.errors import RecordRefused, RecordTooLarge, StoreUnavailable
from flowkit.protocols import Commit
from flowkit_mongo._archive import Archive
from flowkit_mongo._blobs import Outgoing
from flowkit_mongo._context import Context
from flowkit_mongo._database import Document
from flowkit_mongo._documents import RECENT, commit_change
from flowkit_mongo._value_forms import INDEX


class Commits:
    """Applies commits to the collection ``{namespace}_tasks``."""

    def __init__(self, context: Context, archive: Archive) -> None:
        self._context, self._archive = context, archive

    async def apply(self, commits: Sequence[Commit]) -> list[bool]:
        """Apply commits and return for each whether it was applied.

        Raises:
            StoreUnavailable: the outcome is unknown.
        """
        for commit in commits:
            parts = [*commit.put.items(), *((part.name, part.data) for part in commit.archive)]
            for name, data in parts:
                self._context.check_size(len(data), "part {!r} of task {!r}", name, commit.task_id)
        applied = [False] * len(commits)
        for turn in _turns(commits):
            outcomes = await self._apply_turn([commits[number] for number in turn])
            for number, outcome in zip(turn, outcomes, strict=True):
                applied[number] = outcome
        return applied

    async def _apply_turn(self, commits: Sequence[Commit]) -> list[bool]:
        """Apply commits of different tasks in one bulk write."""
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
                lambda: context.database.change(context.name("tasks"), changes)
            )
        except (RecordRefused, RecordTooLarge):
            # The other commits were applied.
            await self._delete_unused_blobs(outgoing, await self._applied(commits, mark))
            raise
        applied = (
            [True] * len(commits) if matched == len(commits) else await self._applied(commits, mark)
        )
        await self._delete_unused_blobs(outgoing, applied)
        return applied

    async def _applied(self, commits: Sequence[Commit], mark: str | None) -> list[bool]:
        """Find out which commits of a bulk write were applied: the server only counts them."""
        if mark is None:
            return [False]
        ids = [commit.task_id for commit in commits]
        found = await self._context.find(
            "tasks", {"_id": {"$in": ids}}, {"version": 1, "recent": 1}
        )
        documents = {document["_id"]: document for document in found}
        return [_was_applied(commit, documents.get(commit.task_id), mark) for commit in commits]

    async def _delete_unused_blobs(
        self, outgoing: Sequence[Outgoing], applied: Sequence[bool]
    ) -> None:
        """Delete the blobs of refused commits, and those that the applied ones replaced."""
        for batch, was_applied in zip(outgoing, applied, strict=True):
            if not batch.blobs:
                continue
            if was_applied:
                await self._context.blobs.replace(
                    batch.task_id, [blob.use for blob in batch.blobs], below=batch.version
                )
            else:
                await self._context.blobs.discard([batch])


def _turns(commits: Sequence[Commit]) -> Iterator[list[int]]:
    """Yield the commits' indexes in turns; no task occurs twice in a turn.

    A bulk write does not keep the order of its writes.
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
    """Return whether a commit was applied, by the mark of its bulk write.

    Raises:
        StoreUnavailable: later commits have removed the mark.
    """
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
            f"task {commit.task_id!r} was changed too often since to know whether operation"
            f" {commit.op_id!r} was applied"
        )
    return False
