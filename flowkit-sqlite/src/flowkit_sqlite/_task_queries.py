"""Lists of tasks by their age."""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

from flowkit.adapters import read_page_cursor
from flowkit.protocols import TaskQuery
from flowkit_sqlite._column_forms import TEXT

MOST_COUNTED = 10_000
"""Most rows of a range that are counted to find the smallest one, which takes below 1 ms."""
STATUSES = "tasks AS t INDEXED BY tasks_by_status WHERE t.namespace = ?"
STATUS_OF_TASK = "(SELECT status FROM tasks WHERE id = ?)"
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


class _Index(NamedTuple):
    """An index whose ranges have their tasks in the order of their age."""

    table: str
    where: str
    """Condition of a range."""
    order: str = "t"
    """Alias of the table."""
    join: str = ""
    """Join of the tasks, if the table is another one."""


BY_LABEL = _Index(
    "labels AS o INDEXED BY labels_by_value",
    "o.namespace = ? AND o.name = ? AND o.value = ?",
    "o",
    "CROSS JOIN tasks AS t ON t.id = o.task",
)
BY_TAG = _Index(
    "tags AS o",
    "o.namespace = ? AND o.tag = ?",
    "o",
    "CROSS JOIN tasks AS t ON t.id = o.task AND t.task_id = o.task_id",
)
BY_PIPELINE = _Index(
    "tasks AS t INDEXED BY tasks_by_pipeline", "t.namespace = ? AND t.pipeline = ?"
)
BY_STATUS = _Index("tasks AS t INDEXED BY tasks_by_status", "t.namespace = ? AND t.status = ?")
BY_STATUS_OF_TASK = BY_STATUS._replace(where=f"t.namespace = ? AND t.status IS {STATUS_OF_TASK}")


class _Range(NamedTuple):
    """A range of an index, with the values of its condition."""

    of: _Index
    values: tuple[str | int, ...]


def places_in_order(
    connection: sqlite3.Connection, namespace: str, query: TaskQuery, *, limit: int
) -> list[Place]:
    """Return the places of up to ``limit`` matching tasks in the order of the query.

    Raises:
        StoreError: the page cursor is invalid.
    """
    found: list[Place] = []
    way = "ASC" if query.oldest_first else "DESC"
    for chosen in _smallest(connection, _ways(connection, namespace, query)):
        index = chosen.of
        conditions = list(_conditions(chosen, namespace, query))
        text = (
            f"SELECT {index.order}.created_at, {index.order}.task_id, t.id"
            f" FROM {index.table} {index.join} WHERE {index.where}"
            + "".join(f" AND {condition}" for condition, _ in conditions)
            + f" ORDER BY {index.order}.created_at {way}, {index.order}.task_id {way}"
        )
        values = [*chosen.values, *(value for _, some in conditions for value in some)]
        places = map(Place._make, connection.execute(text, values))
        found += islice(filter(_is_in_order, places), limit)
    return sorted(found, reverse=not query.oldest_first)[:limit]


def _is_in_order(place: Place) -> bool:
    """Return whether a page can begin after a place. Tasks with a damaged place are left out."""
    return isinstance(place.created_at, float) and TEXT.fits(place.task_id)


def _ways(connection: sqlite3.Connection, namespace: str, query: TaskQuery) -> list[list[_Range]]:
    """Return the ways to find all matching tasks: each is the ranges that contain them. Several
    statuses are several ranges.
    """
    ways = [[_Range(BY_TAG, (namespace, tag))] for tag in query.tags]
    ways += [[_Range(BY_LABEL, (namespace, *label))] for label in query.labels.items()]
    if query.statuses:
        ways.append([_Range(BY_STATUS, (namespace, status)) for status in set(query.statuses)])
    if query.pipeline is not None:
        ways.append([_Range(BY_PIPELINE, (namespace, query.pipeline))])
    if not ways:
        tasks = _one_of_each_status(connection, namespace)
        ways.append([_Range(BY_STATUS_OF_TASK, (namespace, number)) for number in tasks])
    return ways


def _smallest(connection: sqlite3.Connection, ways: Sequence[list[_Range]]) -> list[_Range]:
    """Return the way with the fewest tasks: all of them may have to be compared with the query.
    Ranges above ``MOST_COUNTED`` count as equal.
    """
    if len(ways) == 1:
        return ways[0]
    return min(ways, key=lambda ranges: sum(_count(connection, one) for one in ranges))


def _count(connection: sqlite3.Connection, one: _Range) -> int:
    text = f"SELECT COUNT(*) FROM (SELECT 1 FROM {one.of.table} WHERE {one.of.where} LIMIT ?)"
    (found,) = connection.execute(text, (*one.values, MOST_COUNTED)).fetchone()
    return int(found)


def _one_of_each_status(connection: sqlite3.Connection, namespace: str) -> Iterator[int]:
    """Yield the number of one task of each status. Each costs one search of the index.

    A damaged status may be a value that a statement cannot be given, so the tasks represent them.
    """
    yield from (number for (number,) in connection.execute(WITH_NULL, (namespace, None)))
    found = connection.execute(WITH_FIRST_STATUS, (namespace,)).fetchone()
    while found is not None:
        yield found[0]
        found = connection.execute(WITH_NEXT_STATUS, (namespace, *found)).fetchone()


def _conditions(
    chosen: _Range, namespace: str, query: TaskQuery
) -> Iterator[tuple[str, tuple[str | float, ...]]]:
    """Yield the conditions that a range does not imply, each with its values."""
    index = chosen.of
    if query.statuses and index is not BY_STATUS:
        statuses = tuple(query.statuses)
        yield f"t.status IN ({', '.join('?' for _ in statuses)})", statuses
    if query.pipeline is not None and index is not BY_PIPELINE:
        yield "t.pipeline = ?", (query.pipeline,)
    for label in query.labels.items():
        if chosen != _Range(BY_LABEL, (namespace, *label)):
            yield HAS_LABEL, label
    for tag in query.tags:
        if chosen != _Range(BY_TAG, (namespace, tag)):
            yield HAS_TAG, (tag,)
    if query.created_after is not None:
        yield f"{index.order}.created_at > ?", (query.created_after,)
    if query.created_before is not None:
        yield f"{index.order}.created_at < ?", (query.created_before,)
    if query.after is not None:
        created_at, task_id = read_page_cursor(query.after)
        sign = ">" if query.oldest_first else "<"
        yield (
            f"({index.order}.created_at, {index.order}.task_id) {sign} (?, ?)",
            (created_at, task_id),
        )
