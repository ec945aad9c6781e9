"""Generated damage: each column of a table with each kind of wrong value.

The tables are strict, so SQLite refuses most wrong values. Damage is therefore written while the
schema says nothing about the types of the columns.
"""

import re
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowkit_sqlite._column_forms import COLUMNS

NOT_UTF8 = "CAST(x'fffe' AS TEXT)"
LARGEST = 2**63 - 1

WRONG: Mapping[str, object] = {
    "null": None,
    "text": "x",
    "text-with-NUL": "a\0b",
    "not-UTF-8": NOT_UTF8,
    "number": 7,
    "negative": -1,
    "largest": LARGEST,
    "real": 2.5,
    "huge": 1e300,
    "infinity": float("inf"),
    "blob": b"\xff\xfe",
}


@dataclass(frozen=True, slots=True)
class Case:
    """A column of a table, and the kind of wrong value in it."""

    table: str
    column: str
    kind: str

    @property
    def name(self) -> str:
        return f"{self.table}-{self.column}-{self.kind}"


def cases(*tables: str, but: tuple[str, ...] = ()) -> dict[str, Case]:
    """Return a case for each column of tables and each wrong value, by name."""
    found = [
        Case(table, column, kind)
        for table in tables
        for column in COLUMNS[table]
        if column not in but
        for kind in WRONG
    ]
    return {case.name: case for case in found}


@contextmanager
def unchecked(path: Path) -> Iterator[sqlite3.Connection]:
    """Return a connection that writes any value to any column. The schema is as before at the
    end.
    """
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema = connection.execute(
            "SELECT name, sql FROM sqlite_schema WHERE sql LIKE '%STRICT%'"
        ).fetchall()
        _set_schema(connection, {name: _without_types(text) for name, text in schema})
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection
        connection.execute("COMMIT")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        _set_schema(connection, dict(schema))


def _without_types(text: str) -> str:
    text = re.sub(r"\)\s*STRICT,?", ")", text).replace("NOT NULL", "")
    return re.sub(r"\b(TEXT|REAL|BLOB|INTEGER(?! PRIMARY KEY))\b", "", text)


def _set_schema(connection: sqlite3.Connection, schema: Mapping[str, str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("PRAGMA writable_schema = ON")
    connection.executemany(
        "UPDATE sqlite_schema SET sql = ? WHERE name = ?",
        [(text, name) for name, text in schema.items()],
    )
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute(f"PRAGMA schema_version = {version + 1}")
    connection.execute("COMMIT")


def damage(connection: sqlite3.Connection, case: Case, where: str, *values: object) -> None:
    """Write the wrong value of a case into the rows that a condition selects.

    A key of a table without rowid is never NULL.
    """
    value = WRONG[case.kind]
    text, given = (NOT_UTF8, ()) if value == NOT_UTF8 else ("?", (value,))
    connection.execute(
        f"UPDATE OR IGNORE {case.table} SET {case.column} = {text} WHERE {where}", (*given, *values)
    )
