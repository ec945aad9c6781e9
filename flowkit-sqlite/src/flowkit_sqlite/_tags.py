"""Tags of tasks: the column that holds them, and the rows by which tasks are found."""

import json
import sqlite3
from collections.abc import Collection
from typing import Any

from flowkit_sqlite._column_forms import TAGS

# The columns of a damaged task may have values that a statement cannot be given, or that the table
# refuses. Such a task is in no list.
INSERT = """
    REPLACE INTO tags (namespace, tag, created_at, task_id, task)
    SELECT namespace, ?, created_at, task_id, id FROM tasks
    WHERE id = ? AND typeof(created_at) = 'real' AND typeof(task_id) = 'text'
"""
DELETE = """
    DELETE FROM tags WHERE tag = ?1
    AND namespace = (SELECT namespace FROM tasks WHERE id = ?2)
    AND created_at = (SELECT created_at FROM tasks WHERE id = ?2)
    AND task_id = (SELECT task_id FROM tasks WHERE id = ?2)
"""


def tags_text(tags: Collection[str]) -> str | None:
    """Return the column of these tags. Equal tags have equal columns."""
    return json.dumps(sorted(tags), ensure_ascii=False) if tags else None


def tags_of(column: Any) -> frozenset[str]:
    """Return the tags of a column; none if it is damaged."""
    return frozenset(json.loads(column)) if TAGS.fits(column) else frozenset()


def change_tags(
    connection: sqlite3.Connection, number: int, before: Any, after: Collection[str]
) -> None:
    """Change the rows of the tags of a task. ``before`` is the column that they are in."""
    old = tags_of(before)
    for tag in old.difference(after):
        connection.execute(DELETE, (tag, number))
    for tag in set(after) - old:
        connection.execute(INSERT, (tag, number))
