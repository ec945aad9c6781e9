"""Search for damaged records: rows with values that FlowKit does not write."""

import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit.protocols import DamagedRecord
from flowkit_sqlite._column_forms import NAMES, TEXT, fault
from flowkit_sqlite._context import LONGEST_FAULT, shown

SEARCH_SEC = 5.0
"""Time limit of a search, which reads every row."""

OWN = "{table} AS r WHERE r.namespace = ?"
OF_TASK = "{table} AS r JOIN tasks AS t ON t.id = r.task WHERE t.namespace = ?"
OF_OWNER = "{table} AS r JOIN artifact_owners AS t ON t.id = r.owner WHERE t.namespace = ?"


@dataclass(frozen=True, slots=True)
class Place:
    """A table with damaged records: the source of its rows, their task and their id."""

    source: str
    task_id: str
    record_id: str


PLACES: Mapping[str, Place] = {
    "tasks": Place(OWN, "r.task_id", "r.task_id"),
    "parts": Place(OF_TASK, "t.task_id", "r.name"),
    "labels": Place(OF_TASK, "t.task_id", "r.name"),
    "archive": Place(OF_TASK, "t.task_id", "r.name"),
    "artifact_owners": Place(OWN, "r.task_id", "r.task_id"),
    "artifacts": Place(OF_OWNER, "t.task_id", "r.uid"),
    "records": Place(OWN, "r.task_id", "r.kind || ' ' || r.key"),
}


@dataclass(frozen=True, slots=True)
class Search:
    """The result of a search."""

    records: list[DamagedRecord]
    in_time: bool
    """False if the time limit ended the search before all rows were read."""


def damaged_records(connection: sqlite3.Connection, namespace: str, *, limit: int) -> Search:
    """Search for up to ``limit`` damaged records."""
    found: list[DamagedRecord] = []
    deadline = time.monotonic() + SEARCH_SEC
    for table, row in _rows(connection, namespace):
        if len(found) == limit or time.monotonic() >= deadline:
            return Search(found, in_time=len(found) == limit)
        task_id, record_id, *columns = row
        if (reason := fault(table, columns)) is not None:
            found.append(
                DamagedRecord(
                    table,
                    shown(str(record_id)),
                    reason[:LONGEST_FAULT],
                    task_id if TEXT.fits(task_id) else None,
                )
            )
    return Search(found, in_time=True)


def _rows(connection: sqlite3.Connection, namespace: str) -> Iterator[tuple[str, Sequence[Any]]]:
    """Yield the rows of all tables with the task and the id of each."""
    for table, place in PLACES.items():
        columns = ", ".join(f"r.{name}" for name in NAMES[table].split(", "))
        found = connection.execute(
            f"SELECT {place.task_id}, {place.record_id}, {columns}"
            f" FROM {place.source.format(table=table)}",
            (namespace,),
        )
        for row in found:
            yield table, row
