"""Every statement of the store finds its rows by an index, in order."""

import dataclasses
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flowkit._records.letter_records import drop_letters, park_letters, read_letters
from flowkit._records.worker_sessions import WorkerSession, end_session, sessions_of
from flowkit.protocols import ArchivedPart, KeyedRecord, RecordChange, Stream, TaskQuery
from flowkit.task import DeadLetter
from flowkit_sqlite import SqliteConfig, SqliteStore
from flowkit_sqlite._task_queries import places_in_order
from tests.store_records import NOON, artifact, change, put_session, task

pytestmark = pytest.mark.anyio

STREAM = Stream("t", "n")
SHORT = ("SCAN purged", "SCAN CONSTANT ROW", "SCAN sqlite_schema", "SCAN (subquery-1)")
"""Scans of one row, and of the limited number of rows that are counted."""
STATEMENTS = ("SELECT", "INSERT", "UPDATE", "DELETE", "REPLACE")


async def use_everything(store: SqliteStore) -> None:
    labels = {"a": "1", "b": "2"}
    tags = ["waiting:approval", "parent:p"]
    header = {"labels": labels, "tags": frozenset(tags), "pipeline": "p"}
    await store.create([task("t", idempotency_key="k", wake_at=NOON, **header)])
    await store.create([task("other", idempotency_key="k")])
    await store.commit([change("t", archive=[ArchivedPart("a", 1, b"1")], drop=["state"])])
    await store.load(["t"])
    await store.due(before=NOON, limit=10)
    for query in (
        TaskQuery(),
        TaskQuery(statuses=["running", "queued"]),
        TaskQuery(pipeline="p"),
        TaskQuery(labels=labels, statuses=["running"], pipeline="p"),
        TaskQuery(tags=tags[:1]),
        TaskQuery(tags=tags, labels=labels, statuses=["running", "queued"], pipeline="p"),
        TaskQuery(created_after=NOON, created_before=NOON + 1),
        TaskQuery(tags=tags, created_after=NOON, created_before=NOON + 1),
    ):
        _, _ = await store.list_tasks(query)
        _, _ = await store.list_tasks(dataclasses.replace(query, after=f"{NOON}|u"))
    await store.read_archive("t", ["a"])
    await store.scan_archive("t", prefix="a")
    await store.scan_archive("t", prefix="", after="a")
    await store.artifacts.put([artifact(STREAM, uid) for uid in "ab"])
    await store.artifacts.read(STREAM)
    await store.artifacts.known(STREAM, ["a"])
    ((cursor, _), *_) = await store.artifacts.scan("t")
    await store.artifacts.scan("t", after=cursor)
    await put_session(store, WorkerSession("w", ["r"], 1, NOON))
    await sessions_of(store)
    await end_session(store, "w")
    await park_letters(store, [DeadLetter("batch-t-1", NOON, "batch", "code", "error", "t")])
    await read_letters(store)
    await read_letters(store, task_id="t")
    await read_letters(store, kind="batch")
    await read_letters(store, letter_ids=["batch-t-1"])
    await drop_letters(store, ["batch-t-1"])
    record = KeyedRecord("kind", "a", b"1", due_at=NOON, task_id="t")
    await store.records.change([RecordChange("op", [record, dataclasses.replace(record, key="b")])])
    for last in (False, True):
        await store.records.scan("kind", prefix="a", last=last)
        await store.records.scan("kind", prefix="a", after="a", last=last)
        await store.records.scan("kind", last=last)
    await store.records.due("kind", before=NOON, limit=2)
    await store.wait_for_change("t", 1)
    await store.commit([change("t", 2, finished_at=1.0)])
    await store.purge(finished_before=2.0)


async def statements_of(path: Path) -> set[str]:
    """Return the statements of all calls, with their values."""
    found: list[str] = []
    async with SqliteStore(f"sqlite:///{path}", config=SqliteConfig(readers=1)) as store:
        context = store._life.resource.context
        await context.write(lambda connection: connection.set_trace_callback(found.append))
        await context.read(lambda connection: connection.set_trace_callback(found.append))
        await use_everything(store)
    own = (text for text in found if " processes" not in text)
    return {text for text in own if text.lstrip().upper().startswith(STATEMENTS)}


async def test_no_statement_reads_a_whole_table(anyio_backend: str, path: Path) -> None:
    statements = await statements_of(path)
    assert len(statements) > 40
    with closing(sqlite3.connect(path)) as connection:
        for text in statements:
            steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {text}")]
            assert all(step in SHORT for step in steps if step.startswith("SCAN")), (text, steps)
            assert not any("TEMP B-TREE" in step for step in steps), (text, steps)


@pytest.mark.parametrize(
    ("others", "table"),
    [
        ({"tags": frozenset()}, "tags AS o"),
        ({"labels": {}}, "labels AS o INDEXED BY labels_by_value"),
        ({"status": "failed"}, "tasks AS t INDEXED BY tasks_by_status"),
        ({"pipeline": None}, "tasks AS t INDEXED BY tasks_by_pipeline"),
    ],
    ids=["tag", "label", "status", "pipeline"],
)
async def test_a_list_with_several_filters_searches_the_smallest_range(
    anyio_backend: str, path: Path, others: dict[str, Any], table: str
) -> None:
    query = TaskQuery(tags=["root"], labels={"a": "1"}, statuses=["queued"], pipeline="p")
    fields: dict[str, Any] = {
        "tags": frozenset(query.tags),
        "labels": query.labels,
        "status": "queued",
        "pipeline": "p",
    }
    async with SqliteStore(f"sqlite:///{path}") as store:
        await store.create([task("t", **fields)])
        await store.create([task(f"t{number}", **fields | others) for number in range(9)])
    statements: list[str] = []
    with closing(sqlite3.connect(path)) as connection:
        connection.set_trace_callback(statements.append)
        (found,) = places_in_order(connection, "flowkit", query, limit=50)
    assert found.task_id == "t"
    assert f"FROM {table} " in statements[-1]
