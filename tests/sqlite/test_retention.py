"""Ended tasks are deleted with all their rows, in small steps, and the file shrinks."""

import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from flowkit.protocols import ArchivedPart, KeyedRecord, RecordChange, Stream
from flowkit_sqlite import SqliteStore
from flowkit_sqlite import _retention as retention
from tests.conformance.sqlite_openers import open_store
from tests.store_records import artifact, change, task

pytestmark = pytest.mark.anyio

OWN = ("parts", "labels", "archive", "artifact_owners", "artifacts", "purged")
LARGE = b"x" * 100_000
AN_HOUR_SEC = retention.NOTE_KEPT_SEC + 60


@pytest.fixture
async def store(anyio_backend: str, path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(f"sqlite:///{path}") as store:
        yield store


def left(path: Path) -> dict[str, int]:
    """Return the number of rows of each table that has some."""
    with closing(sqlite3.connect(path)) as connection:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("tasks", *OWN)
        }
    return {table: count for table, count in counts.items() if count}


async def end_task(store: SqliteStore, task_id: str, *, artifacts: int = 3) -> None:
    """Store an ended task with all kinds of records."""
    await store.create([task(task_id, labels={"team": "a"}, spec=LARGE)])
    archived = [ArchivedPart(name, 1, LARGE) for name in "ab"]
    await store.commit([change(task_id, finished_at=1.0, archive=archived)])
    stream = Stream(task_id, "n")
    await store.artifacts.put([artifact(stream, f"{number}") for number in range(artifacts)])


async def purge_later(store: SqliteStore, sec: float) -> int:
    """Purge with a clock that is ahead."""
    context = store._life.resource.context
    later = retention.Retention(context, now=lambda: time.time() + sec)
    return await later.purge(finished_before=2.0, limit=10)


async def test_no_row_of_a_purged_task_stays(store: SqliteStore, path: Path) -> None:
    await store.create([task("stays")])
    kept = left(path)
    for name in "abc":
        await end_task(store, name)
    assert await store.purge(finished_before=2.0) == 3
    assert left(path) == {**kept, "purged": 3}
    assert await purge_later(store, AN_HOUR_SEC) == 0
    assert left(path) == kept


async def test_artifacts_that_a_late_worker_stored_are_deleted_within_two_hours(
    store: SqliteStore, path: Path
) -> None:
    late, second = (artifact(Stream("t", "n"), uid) for uid in ("late", "second"))
    await end_task(store, "t")
    assert await store.purge(finished_before=2.0) == 1
    await store.artifacts.put([late])
    assert await purge_later(store, 0.5 * AN_HOUR_SEC) == 0
    assert left(path) == {"artifact_owners": 1, "artifacts": 1, "purged": 1}
    assert await purge_later(store, AN_HOUR_SEC) == 0
    assert left(path) == {"purged": 1}
    await store.artifacts.put([second])
    await purge_later(store, 2.5 * AN_HOUR_SEC)
    assert left(path) == {"purged": 1}
    await purge_later(store, 4 * AN_HOUR_SEC)
    assert left(path) == {}


async def test_keyed_records_that_were_stored_late_are_deleted_unless_a_new_task_has_their_id(
    store: SqliteStore, path: Path
) -> None:
    for name in ("t", "u"):
        await end_task(store, name)
    assert await store.purge(finished_before=2.0) == 2
    late = [KeyedRecord("kind", name, b"1", task_id=name) for name in ("t", "u", "v")]
    await store.records.change([RecordChange("op", late)])
    await store.create([task("u")])
    await purge_later(store, 0.5 * AN_HOUR_SEC)
    assert len(await store.records.scan("kind")) == 3
    await purge_later(store, AN_HOUR_SEC)
    assert [each.key for each in await store.records.scan("kind")] == ["u", "v"]
    with closing(sqlite3.connect(path)) as connection:
        for text in (retention.DELETE_RECORDS, retention.DELETE_LATE_RECORDS):
            values = (1,) if "?1" in text else ("flowkit", 1)
            plan = connection.execute(f"EXPLAIN QUERY PLAN {text}", values).fetchall()
            assert any("INDEX records_by_task" in row[3] for row in plan), plan


async def test_tasks_with_many_keyed_records_are_purged_in_several_transactions(
    store: SqliteStore,
) -> None:
    for number in range(3):
        await store.create([task(f"t{number}", finished_at=1.0)])
        for start in range(0, retention.LARGEST_STEP + 1, 100):
            records = [
                KeyedRecord("kind", f"{number}/{start + more}", b"1", task_id=f"t{number}")
                for more in range(100)
            ]
            await store.records.change([RecordChange(f"{number} {start}", records)])
    hidden = [
        await store._life.resource.context.write(
            lambda connection: retention._hide(
                connection, context=store._life.resource.context, before=2.0, limit=10
            )
        )
        for _ in range(4)
    ]
    assert hidden == [1, 1, 1, 0]
    assert await store.records.scan("kind") == []


async def test_a_new_task_with_the_id_of_a_purged_one_keeps_its_artifacts(
    store: SqliteStore, path: Path
) -> None:
    await end_task(store, "t")
    await store.purge(finished_before=2.0)
    await store.create([task("t")])
    await store.artifacts.put([artifact(Stream("t", "n"), "new")])
    await purge_later(store, AN_HOUR_SEC)
    assert left(path) == {"tasks": 1, "parts": 2, "artifact_owners": 1, "artifacts": 1}


async def test_a_task_of_another_namespace_with_the_same_id_keeps_its_artifacts(
    store: SqliteStore, path: Path
) -> None:
    await end_task(store, "t")
    async with open_store(f"sqlite:///{path}", namespace="other") as other:
        await end_task(other, "t")
        await store.purge(finished_before=2.0)
        await purge_later(store, AN_HOUR_SEC)
        assert set(await other.load(["t"])) == {"t"}
        assert len(await other.artifacts.read(Stream("t", "n"))) == 3


async def test_a_task_with_a_damaged_id_is_purged(store: SqliteStore, path: Path) -> None:
    await end_task(store, "t")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET task_id = CAST(x'ff' AS TEXT)")
        connection.execute("UPDATE artifact_owners SET task_id = CAST(x'ff' AS TEXT)")
    assert await store.purge(finished_before=2.0) == 1
    assert left(path) == {"purged": 1}
    await purge_later(store, AN_HOUR_SEC)
    assert left(path) == {}


async def test_a_purge_that_was_interrupted_is_continued(store: SqliteStore, path: Path) -> None:
    await end_task(store, "t", artifacts=500)
    context = store._life.resource.context
    await context.write(
        lambda connection: retention._hide(connection, context=context, before=2.0, limit=10)
    )
    assert await store.load(["t"]) == {}
    assert left(path)["artifacts"] == 500
    await store.create([task("t")])
    assert await store.artifacts.put([artifact(Stream("t", "n"), "0")]) == [True]
    assert await store.purge(finished_before=2.0) == 0
    assert set(await store.load(["t"])) == {"t"}
    assert len(await store.artifacts.read(Stream("t", "n"))) == 1
    assert left(path) == {
        "tasks": 1,
        "parts": 2,
        "artifact_owners": 1,
        "artifacts": 1,
        "purged": 1,
    }


async def test_a_purge_of_many_rows_lets_other_writers_in(store: SqliteStore, path: Path) -> None:
    tasks, artifacts = 200, 20_000
    await store.create([task(f"t{number}", finished_at=1.0) for number in range(tasks)])
    stream = Stream("t0", "n")
    await store.artifacts.put([artifact(stream, f"{number}") for number in range(artifacts)])
    await store.create([task("canary")])
    commits = 0

    async def purge() -> None:
        assert await store.purge(finished_before=2.0) == tasks
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(purge)
        while True:
            assert await store.commit([change("canary", 1 + commits)]) == [True]
            commits += 1
    # Each step deletes at most so many rows, and a commit comes between two steps.
    assert commits >= (artifacts + tasks) / retention.LARGEST_STEP
    assert left(path)["tasks"] == 1


async def test_the_file_shrinks_after_a_purge(store: SqliteStore, path: Path) -> None:
    for number in range(15):
        await end_task(store, f"t{number}")
    await store.create([task("stays", spec=LARGE)])
    before = size_of(path)
    await store.purge(finished_before=2.0)
    after = size_of(path)
    assert before > 40 * len(LARGE)
    assert after < before / 2
    assert (await store.load(["stays"]))["stays"].spec == LARGE


def size_of(path: Path) -> int:
    """Write the log back, and return the size of the file."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert connection.execute("PRAGMA quick_check").fetchall() == [("ok",)]
    return path.stat().st_size


def test_a_step_takes_about_as_long_as_it_should() -> None:
    step = retention._Step()
    for _ in range(50):
        step.took(step.size * 1e-4)
    assert step.size * 1e-4 == pytest.approx(retention.STEP_SEC, rel=0.05)
    step.took(10.0)
    assert step.size == 1
    for _ in range(50):
        step.took(1e-9)
    assert step.size == retention.LARGEST_STEP
