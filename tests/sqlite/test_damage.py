"""A damaged row affects no other: it is set aside and shown with its fault."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from flowkit.errors import CorruptRecord, RecordRefused
from flowkit.protocols import (
    ArchivedPart,
    KeyedRecord,
    RecordChange,
    RecordDeletion,
    Stream,
    TaskQuery,
)
from flowkit_sqlite import SqliteStore
from tests.conformance.sqlite_openers import open_store
from tests.damaged_keyed_records import check_all_are_named
from tests.sqlite.damage import LARGEST, Case, cases, damage, unchecked
from tests.store_records import NOON, artifact, change, task

pytestmark = pytest.mark.anyio

CANARIES = [f"canary-{number}" for number in range(3)]
OWN_TASK = "task = (SELECT id FROM tasks WHERE task_id = ?)"
WHERE = {
    "tasks": "task_id = ?",
    "parts": f"name = 'state' AND {OWN_TASK}",
    "labels": OWN_TASK,
}
TEXTS = {"text", "text-with-NUL"}
NUMBERS = {"number", "negative", "real"}
WITHOUT_ORDER = {"null", *TEXTS, "not-UTF-8", "blob"}
"""Kinds of values by which tasks cannot be ordered in time."""


@pytest.fixture
async def store(anyio_backend: str, path: Path) -> AsyncIterator[SqliteStore]:
    async with open_store(f"sqlite:///{path}") as store:
        yield store


async def faults(store: SqliteStore, *tables: str) -> dict[str, str]:
    """Return the faults that ``dlq ls`` shows of some tables, by the id of the record."""
    found = await store.damaged_records(limit=10_000)
    return {record.record_id: record.fault for record in found if record.place in tables}


def check_fault_is_named(case: Case, text: str) -> None:
    assert case.table in text
    assert case.column in text or "missing" in text


# ---------------------------------------------------------------- tasks

SEEMS_RIGHT = {
    *((column, kind) for column in ("op_id", "status", "name", "value") for kind in TEXTS),
    *((column, kind) for column in ("pipeline", "idempotency_key") for kind in {*TEXTS, "null"}),
    *((column, kind) for column in ("created_at", "wake_at", "finished_at") for kind in NUMBERS),
    *((column, "null") for column in ("wake_at", "finished_at", "name", "tags")),
    ("data", "blob"),
    ("version", "number"),
}
"""Wrong values that the store cannot distinguish from right ones."""


async def damaged_tasks(store: SqliteStore, path: Path) -> dict[str, Case]:
    """Store tasks with one damaged column each, and canaries."""
    found = cases("tasks", "parts", "labels", but=("task_id",))
    whole = {"pipeline": "p", "labels": {"team": "a"}, "wake_at": NOON, "finished_at": NOON}
    whole["tags"] = frozenset({"tag"})
    await store.create([task(name, idempotency_key=name, **whole) for name in [*found, *CANARIES]])
    with unchecked(path) as connection:
        for name, case in found.items():
            damage(connection, case, WHERE[case.table], name)
    return found


async def test_a_damaged_task_is_read_as_such_and_hinders_no_other(
    store: SqliteStore, path: Path
) -> None:
    found = await damaged_tasks(store, path)
    loaded = await store.load([*found, *CANARIES])
    assert set(loaded) == {*found, *CANARIES}
    whole = {name for name in found if loaded[name].fault is None}
    assert whole == {
        name for name, case in found.items() if (case.column, case.kind) in SEEMS_RIGHT
    }
    for name in {*found} - whole:
        record = loaded[name]
        check_fault_is_named(found[name], record.fault)
        assert (record.header.task_id, record.spec, record.parts) == (name, b"", {})
        assert isinstance(record.version, int)
    assert {loaded[name].spec for name in CANARIES} == {b"{}"}

    listed: list[str] = []
    after = None
    while not listed or after is not None:
        page, after = await store.list_tasks(TaskQuery(limit=20, after=after))
        listed += [record.header.task_id for record in page]
    assert len(listed) == len(set(listed))
    without_place = {f"tasks-created_at-{kind}" for kind in WITHOUT_ORDER}
    assert {*listed} == {*found, *CANARIES} - without_place
    assert {*CANARIES} <= {*await store.due(before=NOON, limit=10_000)}

    shown = {record.task_id for record in await store.damaged_records(limit=10_000)}
    assert shown == {*found} - whole
    (line,) = [result for result in await store.check() if result.name == "sqlite records"]
    assert not line.ok


async def test_a_task_without_a_specification_is_damaged(store: SqliteStore, path: Path) -> None:
    await store.create([task("t"), task("whole")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DELETE FROM parts WHERE name = '' AND task = 1")
    loaded = await store.load(["t", "whole"])
    assert "specification" in loaded["t"].fault
    assert loaded["whole"].fault is None


async def test_a_task_whose_id_is_not_text_hides_no_other(store: SqliteStore, path: Path) -> None:
    await store.create([task(name, wake_at=NOON) for name in ["a", "b", *CANARIES]])
    with closing(sqlite3.connect(path)) as connection, connection:
        for name in "ab":
            connection.execute(
                f"UPDATE tasks SET task_id = CAST(x'63{ord(name):x}ff' AS TEXT) WHERE task_id = ?",
                (name,),
            )
    page, after = await store.list_tasks(TaskQuery(limit=2))
    rest, end = await store.list_tasks(TaskQuery(limit=2, after=after))
    assert {record.header.task_id for record in [*page, *rest]} == {*CANARIES}
    assert end is None
    assert set(await store.due(before=NOON, limit=10)) == {*CANARIES}
    assert set(await faults(store, "tasks")) == {r"ca\xff", r"cb\xff"}


async def test_the_commits_of_others_in_the_same_call_go_through(
    store: SqliteStore, path: Path
) -> None:
    found = await damaged_tasks(store, path)
    loaded = await store.load(found)
    commits = [change(name, loaded[name].version) for name in found]
    with pytest.raises(RecordRefused):
        await store.commit([change(CANARIES[0]), *commits, *map(change, CANARIES[1:])])
    now = await store.load([*found, *CANARIES])
    assert {now[name].version for name in CANARIES} == {2}
    # A commit replaces the damaged values that it writes. The others keep their fault.
    for name in found:
        assert now[name].version in (2, 8) or now[name].fault is not None


async def test_a_change_that_cannot_be_stored_is_refused_and_the_others_are_applied(
    store: SqliteStore, path: Path
) -> None:
    await store.create([task(name) for name in ["like", *CANARIES]])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET version = ? WHERE task_id = 'like'", (LARGEST,))
    bad = [change("like", LARGEST), replace(change("canary-0"), put={"\ud800": b"1"})]
    with pytest.raises(RecordRefused):
        await store.commit([change("canary-1"), *bad, change("canary-2")])
    loaded = await store.load(CANARIES)
    assert [loaded[name].version for name in CANARIES] == [1, 2, 2]
    assert loaded["canary-0"].parts == {"state": b"0"}


async def test_waiters_for_a_task_whose_version_is_damaged_are_woken(
    store: SqliteStore, path: Path
) -> None:
    await store.create([task("t"), task("canary")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET version = -1 WHERE task_id = 't'")
    with anyio.fail_after(30):
        await store.wait_for_change("t", 7)
        async with anyio.create_task_group() as group:
            group.start_soon(store.wait_for_change, "canary", 1)
            await store.commit([change("canary")])


async def test_an_idempotency_key_of_a_task_with_a_damaged_id_is_reported(
    store: SqliteStore, path: Path
) -> None:
    await store.create([task("t", idempotency_key="k")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET task_id = CAST(x'ff' AS TEXT)")
    with pytest.raises(CorruptRecord, match="idempotency key"):
        await store.create([task("new", idempotency_key="k")])
    assert await store.create([task("new", idempotency_key="other")]) == ["new"]


# ---------------------------------------------------------------- archive and artifacts


async def test_a_damaged_part_of_the_archive_fails_the_reads_that_need_it_alone(
    store: SqliteStore, path: Path
) -> None:
    found = cases("archive", but=("name",))
    await store.create([task(name) for name in [*found, *CANARIES]])
    parts = [ArchivedPart(name, 3, b"1") for name in ("a1", "a2", "a3")]
    await store.commit([change(name, archive=parts) for name in [*found, *CANARIES]])
    with unchecked(path) as connection:
        for name, case in found.items():
            damage(connection, case, f"name = 'a2' AND {OWN_TASK}", name)
    damaged = {
        name
        for name, case in found.items()
        if (case.column, case.kind) not in {("rank", "number"), ("data", "blob")}
    }
    for name in damaged:
        assert await store.scan_archive(name, prefix="a") == [("a1", b"1")]
        with pytest.raises(CorruptRecord) as raised:
            await store.scan_archive(name, prefix="a", after="a1")
        check_fault_is_named(found[name], str(raised.value))
        with pytest.raises(CorruptRecord):
            await store.read_archive(name, ["a1", "a2"])
        assert await store.read_archive(name, ["a1", "a3"]) == {"a1": b"1", "a3": b"1"}
    for name in [*CANARIES, *({*found} - damaged)]:
        assert len(await store.scan_archive(name, prefix="a")) == 3
    assert {record.task_id for record in await store.damaged_records(limit=1000)} == damaged


@pytest.mark.parametrize("rank", [2, -1, LARGEST])
async def test_a_part_that_is_archived_again_takes_the_place_of_one_whose_rank_is_damaged(
    store: SqliteStore, path: Path, rank: int
) -> None:
    await store.create([task("t")])
    await store.commit([change("t", archive=[ArchivedPart("a", 3, b"old")])])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE archive SET rank = ?", (rank,))
    await store.commit([change("t", 2, archive=[ArchivedPart("a", 4, b"new")])])
    assert await store.read_archive("t", ["a"]) == {"a": b"new"}


async def test_a_damaged_artifact_fails_its_stream_alone(store: SqliteStore, path: Path) -> None:
    found = cases("artifacts", but=("node_id", "generation", "position"))
    await store.artifacts.put(
        [artifact(Stream(name, "n"), uid) for name in [*found, *CANARIES] for uid in "abc"]
    )
    with unchecked(path) as connection:
        for name, case in found.items():
            where = "uid = 'b' AND owner = (SELECT id FROM artifact_owners WHERE task_id = ?)"
            damage(connection, case, where, name)
    for name, case in found.items():
        own = Stream(name, "n")
        try:
            read = await store.artifacts.read(own)
            if len(read) == 1:
                await store.artifacts.read(own, after=1)
        except CorruptRecord as error:
            check_fault_is_named(case, str(error))
            if case.name != "artifacts-created_at-null":  # a record without a time has no place
                with pytest.raises(CorruptRecord):
                    await scan_all(store, name)
        else:
            assert [record.position for record in read] == [1, 2, 3]
        assert {"a", "c"} <= await store.artifacts.known(own, "abc")
    for name in CANARIES:
        whole = Stream(name, "n")
        assert len(await store.artifacts.read(whole)) == len(await store.artifacts.scan(name)) == 3
        assert await store.artifacts.put([artifact(whole, "c"), artifact(whole, "d")]) == [
            False,
            True,
        ]
    shown = {record.task_id for record in await store.damaged_records(limit=1000)}
    assert not shown & {*CANARIES}
    assert len(shown) > len(found) / 2


async def scan_all(store: SqliteStore, task_id: str) -> None:
    cursor = None
    while page := await store.artifacts.scan(task_id, after=cursor):
        cursor = page[-1][0]


@pytest.mark.parametrize("position", [0, -1, LARGEST])
async def test_nothing_goes_behind_an_artifact_whose_position_is_damaged(
    store: SqliteStore, path: Path, position: int
) -> None:
    damaged, whole = Stream("t", "n"), Stream("u", "n")
    await store.artifacts.put(
        [artifact(stream, uid) for stream in (damaged, whole) for uid in "ab"]
    )
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE artifacts SET position = ? WHERE uid = 'b' AND owner = 1", (position,)
        )
    with pytest.raises(CorruptRecord, match="position"):
        await store.artifacts.put([artifact(damaged, "c"), artifact(damaged, "d")])
    assert await store.artifacts.put([artifact(whole, "c")]) == [True]


# ---------------------------------------------------------------- keyed records, retention


async def test_a_damaged_keyed_record_is_read_with_its_fault_and_can_be_deleted(
    store: SqliteStore, path: Path
) -> None:
    found = cases("records", but=("kind", "key"))
    whole = KeyedRecord("kind", "", b"data", due_at=NOON, task_id="t")
    records = [replace(whole, key=name) for name in [*found, *CANARIES]]
    await store.records.change([RecordChange(f"op {each.key}", [each]) for each in records])
    with unchecked(path) as connection:
        for name, case in found.items():
            damage(connection, case, "key = ?", name)
    read = {each.key: each for each in await store.records.scan("kind", limit=1000)}
    assert set(read) == {*found, *CANARIES}
    for name in CANARIES:
        assert read[name] == replace(whole, key=name, revision=f"op {name}")
    damaged = {name for name in found if read[name].fault is not None}
    for name in damaged:
        check_fault_is_named(found[name], read[name].fault)
        assert read[name].data == b""
    assert set(await faults(store, "records")) == {f"kind {name}" for name in damaged}
    assert len(damaged) > len(found) * 0.5
    assert {*CANARIES} <= {
        each.key for each in await store.records.due("kind", before=NOON, limit=1000)
    }
    deletions = [
        RecordChange(f"delete {name}", delete=[RecordDeletion("kind", name)]) for name in found
    ]
    assert await store.records.change(deletions) == [True] * len(found)


async def test_a_keyed_record_whose_key_is_not_text_hides_no_other(
    store: SqliteStore, path: Path
) -> None:
    records = [KeyedRecord("kind", key, b"1", due_at=NOON) for key in ("a", "b", "c")]
    await store.records.change([RecordChange("op", records)])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE records SET key = CAST(x'62ff' AS TEXT) WHERE key = 'b'")
    assert [each.key for each in await store.records.scan("kind")] == ["a", "c"]
    assert [each.key for each in await store.records.scan("kind", last=True)] == ["c", "a"]
    due = await store.records.due("kind", before=NOON, limit=2)
    assert [each.key for each in due] == ["a", "c"]


async def test_a_task_with_a_damaged_end_is_not_purged(store: SqliteStore, path: Path) -> None:
    await store.create([task(name, finished_at=1.0) for name in ("over", "damaged")])
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE tasks SET finished_at = -1e300 WHERE task_id = 'damaged'")
    assert await store.purge(finished_before=NOON) == 1
    assert set(await store.load(["over", "damaged"])) == {"damaged"}


async def test_keyed_records_that_cannot_be_decoded_are_named_by_doctor(store: SqliteStore) -> None:
    await check_all_are_named(store)
