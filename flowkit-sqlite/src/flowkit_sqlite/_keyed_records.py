"""Keyed records."""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, takewhile
from typing import Any

from flowkit.adapters import end_of_prefix
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit_sqlite._column_forms import NAMES, TEXT, fault, fitting
from flowkit_sqlite._context import LONGEST_FAULT, Context
from flowkit_sqlite._jobs import is_brief

MOST_READ_BRIEFLY = 10

SELECT = f"SELECT {NAMES['records']} FROM records WHERE namespace = ? AND kind = ?"
SELECT_ONE = f"{SELECT} AND key = ?"
SELECT_FROM = f"{SELECT} AND key >= ? ORDER BY key"
SELECT_AFTER = f"{SELECT} AND key > ? ORDER BY key"
SELECT_LAST = f"{SELECT} ORDER BY key DESC"
SELECT_BEFORE = f"{SELECT} AND key < ? ORDER BY key DESC"
SELECT_DUE = f"{SELECT} AND due_at <= ? ORDER BY due_at, key"
REVISION = "SELECT revision FROM records WHERE namespace = ? AND kind = ? AND key = ?"
INSERT = """
    INSERT INTO records (revision, data, due_at, task_id, namespace, kind, key)
    VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""
UPDATE = """
    UPDATE records SET revision = ?, data = ?, due_at = ?, task_id = ?
    WHERE namespace = ? AND kind = ? AND key = ? AND revision = ?
"""
DELETE = "DELETE FROM records WHERE namespace = ? AND kind = ? AND key = ?"
DELETE_REVISION = f"{DELETE} AND revision = ?"


class SqliteRecordStore:
    """The keyed records of a namespace."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def get(self, kind: str, keys: Collection[str]) -> dict[str, KeyedRecord]:
        namespace = self._context.namespace

        def job(connection: sqlite3.Connection) -> list[KeyedRecord]:
            rows = (
                connection.execute(SELECT_ONE, (namespace, kind, key)).fetchone() for key in keys
            )
            return list(_records(row for row in rows if row is not None))

        found = await self._context.read(job, brief=len(keys) <= MOST_READ_BRIEFLY)
        return {record.key: record for record in found}

    async def change(self, changes: Sequence[RecordChange]) -> list[bool]:
        rows = total = 0
        for change in changes:
            for record in change.put:
                size = len(record.data)
                self._context.check_size(size, "the {} record {!r}", record.kind, record.key)
                total += size
            rows += len(change.put) + len(change.delete)
        if not rows:
            return []
        return await self._context.write(
            partial(_apply, namespace=self._context.namespace, changes=changes),
            durable=any(change.durable for change in changes),
            brief=is_brief(rows, total),
        )

    async def scan(
        self, kind: str, *, prefix: str = "", after: str = "", limit: int = 100, last: bool = False
    ) -> list[KeyedRecord]:
        find = partial(_last, before=after) if last else partial(_first, after=after)
        values = (self._context.namespace, kind)
        return await self._read(partial(find, values=values, prefix=prefix), limit)

    async def due(self, kind: str, *, before: float, limit: int) -> list[KeyedRecord]:
        values = (self._context.namespace, kind, before)
        return await self._read(lambda connection: connection.execute(SELECT_DUE, values), limit)

    async def _read(
        self, find: Callable[[sqlite3.Connection], Iterable[Sequence[Any]]], limit: int
    ) -> list[KeyedRecord]:
        return await self._context.read(
            lambda connection: list(islice(_records(find(connection)), limit)),
            brief=limit <= MOST_READ_BRIEFLY,
        )


def _first(
    connection: sqlite3.Connection, *, values: tuple[str, str], prefix: str, after: str
) -> Iterator[Sequence[Any]]:
    """Yield the rows of the keys with a prefix, above a key."""
    text, key = (SELECT_AFTER, after) if after >= prefix else (SELECT_FROM, prefix)
    rows = connection.execute(text, (*values, key))
    return takewhile(lambda row: row[1].startswith(prefix), rows)


def _last(
    connection: sqlite3.Connection, *, values: tuple[str, str], prefix: str, before: str
) -> Iterator[Sequence[Any]]:
    """Yield the rows of the keys with a prefix, below a key if it is given, the last first."""
    ends = [end for end in (before, end_of_prefix(prefix)) if end]
    rows = (
        connection.execute(SELECT_BEFORE, (*values, min(ends)))
        if ends
        else connection.execute(SELECT_LAST, values)
    )
    return takewhile(lambda row: row[1].startswith(prefix), rows)


def _records(rows: Iterable[Sequence[Any]]) -> Iterator[KeyedRecord]:
    """Yield the records of rows; with a ``fault`` if they are damaged.

    A record with a damaged key is left out: no page can begin after it.
    """
    for row in rows:
        if (found := fault("records", row)) is None:
            kind, key, revision, data, due_at, task_id = row
            yield KeyedRecord(kind, key, data, revision, due_at, task_id)
        elif TEXT.fits(row[1]):
            columns = fitting("records", row) | {"data": b""}
            yield KeyedRecord(**columns, fault=found[:LONGEST_FAULT])


def _apply(
    connection: sqlite3.Connection, *, namespace: str, changes: Sequence[RecordChange]
) -> list[bool]:
    return [_apply_one(connection, namespace, change) for change in changes]


def _apply_one(connection: sqlite3.Connection, namespace: str, change: RecordChange) -> bool:
    rows: list[KeyedRecord | RecordDeletion] = [*change.delete, *change.put]
    # A change of one record needs no read before: its statement has the condition.
    if len(rows) > 1 and not all(_fits(connection, namespace, row) for row in rows):
        return False
    deleted = [_delete(connection, namespace, row) for row in change.delete]
    return all(deleted + [_put(connection, namespace, row, change.op_id) for row in change.put])


def _fits(
    connection: sqlite3.Connection, namespace: str, row: KeyedRecord | RecordDeletion
) -> bool:
    """Return whether the stored record has the revision that a row of a change names."""
    found = connection.execute(REVISION, (namespace, row.kind, row.key)).fetchone()
    if isinstance(row, KeyedRecord) and not row.revision:
        return found is None
    return found is not None and row.revision in (None, found[0])


def _delete(connection: sqlite3.Connection, namespace: str, row: RecordDeletion) -> bool:
    """Delete a record if it has the revision that is named, and return whether it had."""
    name = (namespace, row.kind, row.key)
    if row.revision is None:
        return connection.execute(DELETE, name).rowcount == 1
    return connection.execute(DELETE_REVISION, (*name, row.revision)).rowcount == 1


def _put(connection: sqlite3.Connection, namespace: str, row: KeyedRecord, revision: str) -> bool:
    """Put a record if the stored one has the revision that is named, and return whether it had."""
    values = (revision, row.data, row.due_at, row.task_id, namespace, row.kind, row.key)
    if row.revision:
        return connection.execute(UPDATE, (*values, row.revision)).rowcount == 1
    return connection.execute(INSERT, values).rowcount == 1
