"""Tasks: their creation, and reads of them."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

from flowkit.adapters import page_cursor
from flowkit.protocols import TaskHeader, TaskQuery, TaskRecord
from flowkit_sqlite._column_forms import COLUMNS, NAMES, TEXT, fault, fitting
from flowkit_sqlite._context import LONGEST_FAULT, Context, corrupt, shown
from flowkit_sqlite._jobs import is_brief
from flowkit_sqlite._tags import change_tags, tags_of, tags_text
from flowkit_sqlite._task_queries import places_in_order

MOST_LOADED_BRIEFLY = 10

INSERT = """
    INSERT INTO tasks (id, namespace, task_id, version, op_id, status, created_at, pipeline,
                       idempotency_key, wake_at, finished_at, tags)
    VALUES (
        max(
            coalesce((SELECT max(id) FROM tasks), 0), coalesce((SELECT max(task) FROM purged), 0)
        ) + 1,
        ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
    ) ON CONFLICT DO NOTHING
"""
SPEC = ""
"""Name of the part that is the specification of a task."""
INSERT_PART = "INSERT INTO parts (task, name, data) VALUES (?, ?, ?)"
INSERT_LABEL = """
    INSERT INTO labels (task, name, value, namespace, created_at, task_id)
    VALUES (?, ?, ?, ?, ?, ?)
"""
HAS_ID = "SELECT 1 FROM tasks WHERE namespace = ? AND task_id = ?"
ID_OF_KEY = "SELECT task_id FROM tasks WHERE namespace = ? AND idempotency_key = ?"

SELECT = f"SELECT id, {NAMES['tasks']} FROM tasks"
SELECT_BY_ID = f"{SELECT} WHERE namespace = ? AND task_id = ?"
SELECT_BY_NUMBER = f"{SELECT} WHERE id = ?"
SELECT_PARTS = "SELECT name, data FROM parts WHERE task = ?"
SELECT_LABELS = "SELECT name, value FROM labels WHERE task = ?"
DUE = """
    SELECT task_id FROM tasks WHERE namespace = ? AND wake_at <= ?
    ORDER BY wake_at, task_id LIMIT ?
"""


class Tasks:
    """The tasks of a namespace."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def create(self, records: Sequence[TaskRecord]) -> list[str]:
        """Store new tasks and return the ids under which they exist."""
        total = 0
        for record in records:
            size = len(record.spec) + sum(map(len, record.parts.values()))
            self._context.check_size(size, "task {!r}", record.header.task_id)
            total += size
        namespace = self._context.namespace
        return await self._context.write(
            lambda connection: [_create(connection, namespace, record) for record in records],
            brief=is_brief(len(records), total),
        )

    async def load(self, task_ids: Collection[str]) -> dict[str, TaskRecord]:
        """Return the tasks that exist, by id."""
        return await self._context.read(
            partial(_load, namespace=self._context.namespace, task_ids=task_ids),
            brief=len(task_ids) <= MOST_LOADED_BRIEFLY,
        )

    async def due(self, *, before: float, limit: int) -> list[str]:
        """Return the ids of tasks whose wake-up time has come, the earliest first."""
        values = (self._context.namespace, before, limit)
        found = await self._context.read(
            lambda connection: connection.execute(DUE, values).fetchall(), brief=is_brief(limit)
        )
        return [task_id for (task_id,) in found if TEXT.fits(task_id)]

    async def list(self, query: TaskQuery) -> tuple[list[TaskRecord], str | None]:
        """Return a page of tasks, the newest first, and the cursor of the next page."""
        return await self._context.read(
            partial(_list, namespace=self._context.namespace, query=query)
        )


def _create(connection: sqlite3.Connection, namespace: str, record: TaskRecord) -> str:
    header = record.header
    task_id, created_at = header.task_id, header.created_at
    inserted = connection.execute(
        INSERT,
        (
            namespace,
            task_id,
            record.version,
            record.op_id,
            header.status,
            created_at,
            header.pipeline,
            header.idempotency_key,
            header.wake_at,
            header.finished_at,
            tags_text(header.tags),
        ),
    )
    if not inserted.rowcount:
        return _existing(connection, namespace, header)
    number = inserted.lastrowid
    parts = [(SPEC, record.spec), *record.parts.items()]
    connection.executemany(INSERT_PART, [(number, name, data) for name, data in parts])
    if header.labels:
        connection.executemany(
            INSERT_LABEL,
            [
                (number, name, value, namespace, created_at, task_id)
                for name, value in header.labels.items()
            ],
        )
    if header.tags and number is not None:
        change_tags(connection, number, None, header.tags)
    return task_id


def _existing(connection: sqlite3.Connection, namespace: str, header: TaskHeader) -> str:
    """Return the id of the stored task that has the id or the idempotency key of a new one."""
    if connection.execute(HAS_ID, (namespace, header.task_id)).fetchone() is not None:
        return header.task_id
    (task_id,) = connection.execute(ID_OF_KEY, (namespace, header.idempotency_key)).fetchone()
    if not TEXT.fits(task_id):
        raise corrupt(
            f"the task {shown(task_id)!r}",
            "it has the idempotency key of a submission, and its id is not text",
        )
    return str(task_id)


def _load(
    connection: sqlite3.Connection, *, namespace: str, task_ids: Collection[str]
) -> dict[str, TaskRecord]:
    found = {}
    for task_id in task_ids:
        row = connection.execute(SELECT_BY_ID, (namespace, task_id)).fetchone()
        if row is not None:
            found[task_id] = _record(connection, row)
    return found


def _list(
    connection: sqlite3.Connection, *, namespace: str, query: TaskQuery
) -> tuple[list[TaskRecord], str | None]:
    found = places_in_order(connection, namespace, query, limit=query.limit + 1)
    page = found[: query.limit]
    records = [
        _record(connection, connection.execute(SELECT_BY_NUMBER, (place.number,)).fetchone())
        for place in page
    ]
    if not page or len(found) <= query.limit:
        return records, None
    return records, page_cursor(page[-1].created_at, page[-1].task_id)


def _record(connection: sqlite3.Connection, row: Sequence[Any]) -> TaskRecord:
    """Return the task of a row of :data:`SELECT`; one with a ``fault`` if it is damaged."""
    number, *columns = row
    parts = dict(connection.execute(SELECT_PARTS, (number,)).fetchall())
    labels = connection.execute(SELECT_LABELS, (number,)).fetchall()
    found = fault("tasks", columns) or _fault_below(parts, labels)
    if found is not None:
        return _damaged(columns, labels, found)
    task_id, version, op_id, status, created_at, pipeline, key, wake_at, finished_at, tags = columns
    header = TaskHeader(
        task_id,
        status,
        created_at,
        pipeline,
        dict(labels),
        key,
        wake_at,
        finished_at,
        tags_of(tags),
    )
    return TaskRecord(header, parts.pop(SPEC), parts, version, op_id)


def _fault_below(parts: Mapping[Any, Any], labels: Sequence[Sequence[Any]]) -> str | None:
    """Return the fault of a task's other rows, or None."""
    if SPEC not in parts:
        return "its specification in parts is missing"
    for part in parts.items():
        if (found := fault("parts", part)) is not None:
            return found
    for label in labels:
        if (found := fault("labels", label)) is not None:
            return found
    return None


def _damaged(columns: Sequence[Any], labels: Sequence[Sequence[Any]], found: str) -> TaskRecord:
    """Return a task with its ``fault`` and its undamaged header fields.

    So a damaged task does not fail a read of several tasks.
    """
    fields: dict[str, Any] = {"status": "queued", "created_at": 0.0}
    fields |= {name: None for name in COLUMNS["tasks"] if name not in fields}
    fields |= {"task_id": shown(str(columns[0])), "version": 0, "op_id": ""}
    fields |= fitting("tasks", columns)
    header = TaskHeader(
        task_id=fields["task_id"],
        status=fields["status"],
        created_at=fields["created_at"],
        pipeline=fields["pipeline"],
        labels={name: value for name, value in labels if fault("labels", (name, value)) is None},
        idempotency_key=fields["idempotency_key"],
        wake_at=fields["wake_at"],
        finished_at=fields["finished_at"],
        tags=tags_of(fields["tags"]),
    )
    return TaskRecord(
        header, b"", {}, fields["version"], fields["op_id"], fault=found[:LONGEST_FAULT]
    )
