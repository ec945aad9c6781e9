"""Archived parts of tasks, which no longer change."""

import sqlite3
from collections.abc import Collection, Sequence
from itertools import islice, takewhile
from typing import Any

from flowkit.protocols import ArchivedPart
from flowkit_sqlite._column_forms import NAMES, fault
from flowkit_sqlite._context import Context, before_damage, corrupt, shown

MOST_READ_BRIEFLY = 10

# A rank that FlowKit cannot have written is not above any other.
PUT = """
    INSERT INTO archive (task, name, rank, data) VALUES (?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET rank = excluded.rank, data = excluded.data
    WHERE excluded.rank > rank OR rank NOT BETWEEN 0 AND 9007199254740992
"""
NUMBER = "SELECT id FROM tasks WHERE namespace = ? AND task_id = ?"
READ = f"SELECT {NAMES['archive']} FROM archive WHERE task = ({NUMBER}) AND name = ?"
SCAN = f"SELECT {NAMES['archive']} FROM archive WHERE task = ({NUMBER})"
SCAN_FROM, SCAN_AFTER = (f"{SCAN} AND name {sign} ? ORDER BY name" for sign in (">=", ">"))


def archive_parts(
    connection: sqlite3.Connection, number: int, parts: Sequence[ArchivedPart]
) -> None:
    """Store parts of the task with this number, unless parts of a higher rank are stored."""
    connection.executemany(PUT, [(number, part.name, part.rank, part.data) for part in parts])


class Archive:
    """The archived parts of a namespace's tasks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def read(self, task_id: str, names: Collection[str]) -> dict[str, bytes]:
        """Return the data of these parts, by name.

        Raises:
            CorruptRecord: one of them cannot be decoded.
        """
        namespace = self._context.namespace

        def job(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            rows = (
                connection.execute(READ, (namespace, task_id, name)).fetchone() for name in names
            )
            return [_part(task_id, row) for row in rows if row is not None]

        return dict(await self._context.read(job, brief=len(names) <= MOST_READ_BRIEFLY))

    async def scan(
        self, task_id: str, *, prefix: str, after: str, limit: int
    ) -> list[tuple[str, bytes]]:
        """Return the parts whose names have a prefix, in order."""
        namespace = self._context.namespace

        def job(connection: sqlite3.Connection) -> list[tuple[str, bytes]]:
            text, first = (SCAN_AFTER, after) if after >= prefix else (SCAN_FROM, prefix)
            found = connection.execute(text, (namespace, task_id, first))
            rows = takewhile(lambda row: row[0].startswith(prefix), islice(found, limit))
            return before_damage(_part(task_id, row) for row in rows)

        return await self._context.read(job)


def _part(task_id: str, row: Sequence[Any]) -> tuple[str, bytes]:
    found = fault("archive", row)
    if found is not None:
        raise corrupt(f"the archived part {shown(str(row[0]))!r} of task {task_id!r}", found)
    name, _, data = row
    return name, data
