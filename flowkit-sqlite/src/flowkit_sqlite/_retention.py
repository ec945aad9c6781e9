"""Retention of tasks: deletion of ended tasks with all their records.

A task may have millions of rows. If one transaction deleted them, no process could write meanwhile.
So the first transaction deletes the rows by which a task and its artifacts are found, and notes
their numbers in the table ``purged``. Then small transactions delete the other rows, with pauses
for other writers. If the process is killed, the next purge continues. At the end, the file is
shortened in the same way.

The note of a task stays for an hour after its rows are deleted. Then a purge deletes the artifacts
and the keyed records that were stored late in the meantime, unless a new task has the same id.
"""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from functools import partial

from flowkit.adapters import FIRST_MOMENT
from flowkit_sqlite._changes import notify_purge
from flowkit_sqlite._context import Context
from flowkit_sqlite._tags import change_tags

STEP_SEC = 0.01
"""Duration that a transaction of a purge should have."""
FIRST_STEP = 64
LARGEST_STEP = 4096
"""Rows or pages in one step."""
FREE_PAGES_KEPT, FREE_SHARE_KEPT = 256, 0.1
"""Free pages that stay in the file for new records: 1 MiB, or this share of a larger file."""

OVER = """
    SELECT t.id, t.task_id, t.tags, o.id FROM tasks AS t INDEXED BY tasks_by_end
    LEFT JOIN artifact_owners AS o ON o.namespace = t.namespace AND o.task_id = t.task_id
    WHERE t.namespace = ? AND t.finished_at >= ? AND t.finished_at < ? AND t.wake_at IS NULL
    ORDER BY t.finished_at LIMIT ?
"""
NOTE = """
    INSERT INTO purged (task, owner, namespace, task_id)
    SELECT id, ?2, namespace, CAST(task_id AS TEXT) FROM tasks WHERE id = ?1
"""
DELETE_TASK = "DELETE FROM tasks WHERE id = ?"
DELETE_OWNER = "DELETE FROM artifact_owners WHERE id = ?"
DELETE_RECORDS = """
    DELETE FROM records WHERE namespace = ? AND task_id = (SELECT task_id FROM tasks WHERE id = ?)
"""
NOTED = "SELECT task, owner FROM purged WHERE emptied_at IS NULL LIMIT 1"
NOTE_EMPTIED = "UPDATE purged SET owner = NULL, emptied_at = ?2 WHERE task = ?1"
NOTE_KEPT_SEC = 3600.0
OLD_NOTES = """
    SELECT p.task, o.id FROM purged AS p INDEXED BY purged_by_time
    LEFT JOIN artifact_owners AS o ON o.namespace = p.namespace AND o.task_id = p.task_id
        AND NOT EXISTS (
            SELECT 1 FROM tasks AS t WHERE t.namespace = p.namespace AND t.task_id = p.task_id
        )
    WHERE p.emptied_at < ? ORDER BY p.emptied_at LIMIT ?
"""
"""Old notes, with the owner of late artifacts."""
NOTE_LATE = "UPDATE purged SET owner = ?2, emptied_at = NULL WHERE task = ?1"
DELETE_NOTE = "DELETE FROM purged WHERE task = ?"
DELETE_LATE_RECORDS = """
    DELETE FROM records WHERE namespace = (SELECT namespace FROM purged WHERE task = ?1)
    AND task_id = (
        SELECT p.task_id FROM purged AS p WHERE p.task = ?1 AND NOT EXISTS (
            SELECT 1 FROM tasks AS t WHERE t.namespace = p.namespace AND t.task_id = p.task_id
        )
    )
"""

BY_TASK = tuple(
    f"""
    DELETE FROM {table} WHERE task = ?1 AND name IN
    (SELECT name FROM {table} WHERE task = ?1 LIMIT ?2)
    """
    for table in ("parts", "labels", "archive")
)
FIRST = "FROM artifacts WHERE owner = ?1 ORDER BY node_id, generation, position LIMIT"
BY_OWNER = f"""
    DELETE FROM artifacts WHERE owner = ?1 AND node_id = (SELECT node_id {FIRST} 1)
    AND generation = (SELECT generation {FIRST} 1) AND position IN (SELECT position {FIRST} ?2)
"""
"""Deletes artifacts of the owner's first stream."""


class Retention:
    """Deletes ended tasks with all their records."""

    def __init__(self, context: Context, *, now: Callable[[], float] = time.time) -> None:
        self._context = context
        self._now = now

    async def purge(self, *, finished_before: float, limit: int) -> int:
        """Delete up to ``limit`` tasks that ended before a time and return their number."""
        step = _Step()
        deleted = 0
        while deleted < limit:
            most = min(step.size, limit - deleted)
            hide = partial(_hide, context=self._context, before=finished_before, limit=most)
            if not (count := await self._run(step, hide)):
                break
            deleted += count
        now = self._now()
        await self._repeat(partial(_review_notes, before=now - NOTE_KEPT_SEC))
        await self._repeat(partial(_delete_rows, now=now))
        await self._repeat(_shorten)
        return deleted

    async def _repeat(self, job: Callable[..., int]) -> None:
        """Run steps of a job until it finds nothing more to do."""
        step = _Step()
        while await self._run(step, lambda connection: job(connection, most=step.size)):
            pass

    async def _run(self, step: "_Step", job: Callable[[sqlite3.Connection], int]) -> int:
        def timed(connection: sqlite3.Connection) -> tuple[int, float]:
            began = time.monotonic()
            done = job(connection)
            return done, time.monotonic() - began

        done, took = await self._context.write(timed)
        step.took(took)
        # Other processes do not queue for the lock: they try again at intervals.
        await asyncio.sleep(took)
        return done


class _Step:
    """Size of the next step, so that it takes about :data:`STEP_SEC`."""

    def __init__(self) -> None:
        self.size = FIRST_STEP

    def took(self, seconds: float) -> None:
        """Adapt the size to the duration of the last step."""
        factor = min(2.0, STEP_SEC / max(seconds, 1e-6))
        self.size = max(1, min(LARGEST_STEP, int(self.size * factor)))


def _hide(connection: sqlite3.Connection, *, context: Context, before: float, limit: int) -> int:
    """Delete the rows by which ended tasks and their artifacts are found, and note their ids.

    The keyed records of a task are deleted with it. If they are many, fewer tasks are hidden.
    """
    # A task with a damaged time is kept.
    values = (context.namespace, FIRST_MOMENT, before, limit)
    found = connection.execute(OVER, values).fetchall()
    records = 0
    for count, (number, _, tags, owner) in enumerate(found, start=1):
        records += connection.execute(DELETE_RECORDS, (context.namespace, number)).rowcount
        change_tags(connection, number, tags, ())
        connection.execute(NOTE, (number, owner))
        connection.execute(DELETE_TASK, (number,))
        connection.execute(DELETE_OWNER, (owner,))
        if records > LARGEST_STEP:
            del found[count:]
    notify_purge(context, (task_id for _, task_id, *_ in found))
    return len(found)


def _review_notes(connection: sqlite3.Connection, *, most: int, before: float) -> int:
    """Delete old notes and late keyed records, except notes of tasks with late artifacts, which are
    hidden.

    Return the number of notes.
    """
    found = connection.execute(OLD_NOTES, (before, most)).fetchall()
    for number, owner in found:
        if owner is None:
            connection.execute(DELETE_LATE_RECORDS, (number,))
            connection.execute(DELETE_NOTE, (number,))
        else:
            connection.execute(NOTE_LATE, (number, owner))
            connection.execute(DELETE_OWNER, (owner,))
    return len(found)


def _delete_rows(connection: sqlite3.Connection, *, most: int, now: float) -> int:
    """Delete up to ``most`` rows of deleted tasks, and return the number of those deleted."""
    left = most
    while left > 0 and (noted := connection.execute(NOTED).fetchone()) is not None:
        task, owner = noted
        for text in BY_TASK:
            left -= connection.execute(text, (task, left)).rowcount
        while left > 0 and (deleted := connection.execute(BY_OWNER, (owner, left)).rowcount):
            left -= deleted
        if left > 0:
            connection.execute(NOTE_EMPTIED, (task, now))
            left -= 1
    return most - left


def _shorten(connection: sqlite3.Connection, *, most: int) -> int:
    """Give up to ``most`` free pages at the end of the file back, and return their number."""
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    surplus = min(most, free - max(FREE_PAGES_KEPT, int(pages * FREE_SHARE_KEPT)))
    for _ in range(surplus):
        # The sqlite3 module executes only one step of this statement, which frees one page.
        connection.execute("PRAGMA incremental_vacuum(1)")
    (still_free,) = connection.execute("PRAGMA freelist_count").fetchone()
    return int(free - still_free)
