"""Lists of tasks by their age."""

import sqlite3
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from flowkit.adapters import read_page_cursor
from flowkit.protocols import TaskQuery
from flowkit_sqlite._column_forms import TEXT

BY_LABEL = (
    "labels AS o INDEXED BY labels_by_value CROSS JOIN tasks AS t ON t.id = o.task"
    " WHERE o.namespace = ? AND o.name = ? AND o.value = ?"
)
BY_TAG = (
    "tags AS o CROSS JOIN tasks AS t ON t.id = o.task AND t.task_id = o.task_id"
    " WHERE o.namespace = ? AND o.tag = ?"
)
STATUSES = "tasks AS t INDEXED BY tasks_by_status WHERE t.namespace = ?"
STATUS_OF_TASK = "(SELECT status FROM tasks WHERE id = ?)"
BY_STATUS = f"{STATUSES} AND t.status = ?"
BY_STATUS_OF_TASK = f"{STATUSES} AND t.status IS {STATUS_OF_TASK}"
BY_PIPELINE = "tasks AS t INDEXED BY tasks_by_pipeline WHERE t.namespace = ? AND t.pipeline = ?"
# SQLite does not look for NULL in a column that is NOT NULL, unless it is a parameter.
WITH_NULL, WITH_FIRST_STATUS, WITH_NEXT_STATUS = (
    f"SELECT t.id FROM {STATUSES} AND {condition} ORDER BY t.status LIMIT 1"
    for condition in ("t.status IS ?", "typeof(t.status) != 'null'", f"t.status > {STATUS_OF_TASK}")
)
HAS_LABEL = "EXISTS (SELECT 1 FROM labels WHERE task = t.id AND name = ? AND value = ?)"
HAS_TAG = """EXISTS (
    SELECT 1 FROM tags AS g WHERE g.namespace = t.namespace AND g.tag = ?
    AND g.created_at = t.created_at AND g.task_id = t.task_id
)"""


class Place(NamedTuple):
    """Place of a task in a list, and the number of its row."""

    created_at: float
    task_id: str
    number: int


class _Source(NamedTuple):
    """A range of an index, in which tasks are ordered by their age."""

    text: str
    values: tuple[str | int, ...]
    order: str = "t"
    """Alias of the table that has the index."""


def places_in_order(
    connection: sqlite3.Connection, namespace: str, query: TaskQuery, *, limit: int
) -> list[Place]:
    """Return the places of up to ``limit`` matching tasks in the order of the query.

    Raises:
        StoreError: the page cursor is invalid.
    """
    found: list[Place] = []
    way = "ASC" if query.oldest_first else "DESC"
    for source in _sources(connection, namespace, query):
        conditions = list(_conditions(source, query))
        text = (
            f"SELECT {source.order}.created_at, {source.order}.task_id, t.id FROM {source.text}"
            + "".join(f" AND {condition}" for condition, _ in conditions)
            + f" ORDER BY {source.order}.created_at {way}, {source.order}.task_id {way}"
        )
        values = [*source.values, *(value for _, some in conditions for value in some)]
        places = map(Place._make, connection.execute(text, values))
        found += islice(filter(_is_in_order, places), limit)
    return sorted(found, reverse=not query.oldest_first)[:limit]


def _is_in_order(place: Place) -> bool:
    """Return whether a page can begin after a place. Tasks with a damaged place are left out."""
    return isinstance(place.created_at, float) and TEXT.fits(place.task_id)


def _sources(connection: sqlite3.Connection, namespace: str, query: TaskQuery) -> list[_Source]:
    """Return the ranges that contain all matching tasks. Several statuses are several ranges."""
    if query.tags:
        return [_Source(BY_TAG, (namespace, query.tags[0]), "o")]
    if query.labels:
        name, value = next(iter(query.labels.items()))
        return [_Source(BY_LABEL, (namespace, name, value), "o")]
    if query.pipeline is not None and not query.statuses:
        return [_Source(BY_PIPELINE, (namespace, query.pipeline))]
    if query.statuses:
        return [_Source(BY_STATUS, (namespace, status)) for status in set(query.statuses)]
    tasks = _one_of_each_status(connection, namespace)
    return [_Source(BY_STATUS_OF_TASK, (namespace, number)) for number in tasks]


def _one_of_each_status(connection: sqlite3.Connection, namespace: str) -> Iterator[int]:
    """Yield the number of one task of each status. Each costs one search of the index.

    A damaged status may be a value that a statement cannot be given, so the tasks represent them.
    """
    yield from (number for (number,) in connection.execute(WITH_NULL, (namespace, None)))
    found = connection.execute(WITH_FIRST_STATUS, (namespace,)).fetchone()
    while found is not None:
        yield found[0]
        found = connection.execute(WITH_NEXT_STATUS, (namespace, *found)).fetchone()


def _conditions(source: _Source, query: TaskQuery) -> Iterator[tuple[str, tuple[str | float, ...]]]:
    """Yield the conditions that a source does not imply, each with its values."""
    if (query.tags or query.labels) and query.statuses:
        statuses = tuple(query.statuses)
        yield f"t.status IN ({', '.join('?' for _ in statuses)})", statuses
    if query.pipeline is not None and source.text is not BY_PIPELINE:
        yield "t.pipeline = ?", (query.pipeline,)
    for name, value in list(query.labels.items())[0 if query.tags else 1 :]:
        yield HAS_LABEL, (name, value)
    for tag in query.tags[1:]:
        yield HAS_TAG, (tag,)
    if query.created_after is not None:
        yield f"{source.order}.created_at > ?", (query.created_after,)
    if query.created_before is not None:
        yield f"{source.order}.created_at < ?", (query.created_before,)
    if query.after is not None:
        order = source.order
        created_at, task_id = read_page_cursor(query.after)
        sign = ">" if query.oldest_first else "<"
        yield f"({order}.created_at, {order}.task_id) {sign} (?, ?)", (created_at, task_id)
