"""Commits of tasks: compare-and-set of their versions."""

import sqlite3
from collections.abc import Sequence
from functools import partial
from itertools import compress

from flowkit.errors import RecordRefused
from flowkit.protocols import Commit
from flowkit_sqlite._archive import archive_parts
from flowkit_sqlite._changes import notify_commits
from flowkit_sqlite._context import Context
from flowkit_sqlite._jobs import is_brief
from flowkit_sqlite._tags import change_tags, tags_text

SELECT = """
    SELECT id, status, wake_at, finished_at, tags FROM tasks
    WHERE namespace = ? AND task_id = ? AND version = ?
"""
UPDATE = """
    UPDATE tasks SET version = version + 1, op_id = ?, status = ?, wake_at = ?, finished_at = ?,
        tags = ?
    WHERE id = ?
"""
UPDATE_VERSION = "UPDATE tasks SET version = version + 1, op_id = ? WHERE id = ?"
"""Most commits change nothing that is in an index."""
PUT_PART = "REPLACE INTO parts (task, name, data) VALUES (?, ?, ?)"
DROP_PART = "DELETE FROM parts WHERE task = ? AND name = ?"


class Commits:
    """Applies commits to the tasks of a namespace."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def apply(self, commits: Sequence[Commit]) -> list[bool]:
        """Apply commits and return for each whether it was applied."""
        check_size = self._context.check_size
        rows = total = 0
        for commit in commits:
            for name, data in commit.put.items():
                check_size(len(data), "part {!r} of task {!r}", name, commit.task_id)
                total += len(data)
            for part in commit.archive:
                check_size(len(part.data), "part {!r} of task {!r}", part.name, commit.task_id)
                total += len(part.data)
            rows += 1 + len(commit.put) + len(commit.archive)
        try:
            return await self._apply_together(commits, brief=is_brief(rows, total))
        except RecordRefused:
            if len(commits) == 1:
                raise
            return await self._apply_one_by_one(commits)

    async def _apply_together(
        self, commits: Sequence[Commit], *, brief: bool = False
    ) -> list[bool]:
        return await self._context.write(
            partial(_apply, context=self._context, commits=commits),
            durable=any(commit.durable for commit in commits),
            brief=brief,
        )

    async def _apply_one_by_one(self, commits: Sequence[Commit]) -> list[bool]:
        """Apply each commit apart from the others, because one of them is refused."""
        applied: list[bool] = []
        refusal: RecordRefused | None = None
        for commit in commits:
            try:
                applied += await self._apply_together([commit])
            except RecordRefused as error:
                refusal = error
        if refusal is not None:
            raise refusal
        return applied


def _apply(
    connection: sqlite3.Connection, *, context: Context, commits: Sequence[Commit]
) -> list[bool]:
    applied = [_apply_one(connection, context.namespace, commit) for commit in commits]
    notify_commits(context, list(compress(commits, applied)))
    return applied


def _apply_one(connection: sqlite3.Connection, namespace: str, commit: Commit) -> bool:
    found = connection.execute(
        SELECT, (namespace, commit.task_id, commit.expected_version)
    ).fetchone()
    if found is None:
        return False
    number, *indexed = found
    new = [commit.status, commit.wake_at, commit.finished_at, tags_text(commit.tags)]
    if indexed == new:
        connection.execute(UPDATE_VERSION, (commit.op_id, number))
    else:
        connection.execute(UPDATE, (commit.op_id, *new, number))
        if indexed[-1] != new[-1]:
            change_tags(connection, number, indexed[-1], commit.tags)
    if commit.drop:
        connection.executemany(DROP_PART, [(number, name) for name in commit.drop])
    if commit.put:
        rows = [(number, name, data) for name, data in commit.put.items()]
        connection.executemany(PUT_PART, rows)
    if commit.archive:
        archive_parts(connection, number, commit.archive)
    return True
