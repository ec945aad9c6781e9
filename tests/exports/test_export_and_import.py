"""Ended tasks move from one store to another, with all that belongs to them."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowkit._codecs.store_codec import encoded
from flowkit._exports.export import Selection
from flowkit._records.letter_records import park_letters, read_letters
from flowkit._records.task_records import decode_task
from flowkit.errors import ConfigError, CorruptRecord, InvalidExport, StoreUnavailable, TaskNotFound
from flowkit.protocols import Stream
from flowkit.task import DeadLetter
from flowkit_testing import InMemoryStore
from tests.exports.stores import (
    CODEC,
    ENCODED_HEADER,
    Failing,
    add_ended,
    contents,
    export_with_reports,
    exported,
    import_into,
    opened,
)
from tests.store_records import NOON, artifact, change, task

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize(("source", "target"), [("sqlite", "memory"), ("memory", "sqlite")])
async def test_another_store_has_the_same_tasks_after_an_import(
    source: str, target: str, tmp_path: Path
) -> None:
    addresses = {
        "sqlite": f"sqlite:///{tmp_path / 'flowkit.db'}",
        "memory": f"memory://{tmp_path.name}",
    }
    async with opened(addresses[source]) as one, opened(addresses[target]) as other:
        await add_ended(one, "t1", pipeline="p", labels={"a": "b"}, idempotency_key="k")
        await add_ended(one, "t/2", artifacts=0, archived=0, created_at=NOON + 1)
        await park_letters(
            one, [DeadLetter("message-l", NOON, "message", "bad", "no", topic="x", key="\udcff")]
        )
        data = await exported(one)
        done, reports = await import_into(other, data)
        assert (done.tasks, done.artifacts, done.dead_letters, reports) == (2, 6, 3, [])
        assert await contents(other) == await contents(one)
        assert await exported(other) != b""


async def test_a_second_import_skips_what_is_there() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await add_ended(source, "t1")
    data = await exported(source)
    await import_into(target, data)
    before = await contents(target)
    done, reports = await import_into(target, data)
    assert (done.tasks, done.artifacts, done.skipped, reports) == (0, 0, 1, [])
    assert await contents(target) == before
    assert (await import_into(source, await exported(target)))[0].skipped == 1


@pytest.mark.parametrize("lines_at_once", [1, 4, 1000])
async def test_an_import_that_was_interrupted_anywhere_is_completed_by_the_next(
    lines_at_once: int,
) -> None:
    source = InMemoryStore()
    await add_ended(source, "t1")
    await add_ended(source, "t2")
    data, expected = await exported(source), await contents(source)
    for calls in range(1000):
        target = InMemoryStore()
        try:
            await import_into(Failing(target, calls), data, batch_lines=lines_at_once)
        except StoreUnavailable:
            for record in (await target.load(["t1", "t2"])).values():
                assert not record.parts or record.header.status == "finished"
            _, reports = await import_into(target, data)
            assert reports == []
            assert await contents(target) == expected
        else:
            assert calls >= 4
            return


async def test_a_task_whose_import_was_interrupted_says_so_and_is_not_due_or_deleted() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await add_ended(source, "t1")
    with pytest.raises(StoreUnavailable):
        await import_into(Failing(target, 1), await exported(source))
    record = (await target.load(["t1"]))["t1"]
    with pytest.raises(CorruptRecord, match="its import is not complete; run the same flowkit"):
        decode_task(record, to_look_at=True)
    assert await target.due(before=NOON * 2, limit=10) == []
    assert await target.purge(finished_before=NOON * 2) == 0


async def test_an_interrupted_import_of_an_earlier_state_is_replaced() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await add_ended(source, "t1")
    with pytest.raises(StoreUnavailable):  # the record, its archive and its artifacts are there
        await import_into(Failing(target, 3), await exported(source))
    await source.commit([change("t1", 2, op_id="later", status="failed", finished_at=NOON + 99)])
    done, reports = await import_into(target, await exported(source))
    assert (done.tasks, reports) == (1, [])
    assert await contents(target) == await contents(source)


async def test_a_task_that_differs_is_named_and_the_others_are_imported() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    for task_id in ("t1", "t2", "t3", "t4", "t5"):
        await add_ended(source, task_id, idempotency_key=f"key-{task_id}")
    data = await exported(source)
    await import_into(target, data)
    other = InMemoryStore()
    for task_id in ("t1", "t3"):
        await add_ended(other, task_id, idempotency_key=f"key-{task_id}")
    await other.commit([change("t1", 2, op_id="retried", status="running")])
    await other.create([task("x", idempotency_key="key-t2")])
    await add_ended(other, "t4", idempotency_key="key-t4", artifacts=2)
    await park_letters(other, [replace(LETTER, error="another")])
    before = await contents(other)
    done, reports = await import_into(other, data)
    assert (done.tasks, done.skipped, done.refused) == (1, 1, 4)
    numbers = {
        json.loads(line)["task_id"]: number
        for number, line in enumerate(data.splitlines(), 1)
        if line.startswith(b'{"type":"task"')
    }
    whys = {
        "t1": "its status is 'running' in the store and 'finished' in the export",
        "t2": "its idempotency key 'key-t2' belongs to task 'x'",
        "t4": "the artifacts of its node 'a' differ",
    }
    assert sorted(reports) == sorted(
        [
            "dead letter 'batch-t5-1' is not imported: another one with this id exists",
            *(
                f"line {numbers[task_id]}: task {task_id!r} is not imported: {why}"
                for task_id, why in whys.items()
            ),
        ]
    )
    after = await contents(other)
    assert [record for record in after["tasks"] if record.header.task_id != "t5"] == before["tasks"]


LETTER = DeadLetter("batch-t5-1", NOON, "batch", "bad", "no", task_id="t5")


# ---------------------------------------------------------------- selection


async def test_tasks_that_have_not_ended_are_left_out_and_counted() -> None:
    store, target = InMemoryStore(), InMemoryStore()
    await add_ended(store, "ended")
    await store.create([task("waits"), task("runs", status="running")])
    await park_letters(
        store, [DeadLetter("batch-runs-1", NOON, "batch", "bad", "no", task_id="runs")]
    )
    data, done, _ = await export_with_reports(store)
    assert (done.tasks, done.running) == (1, {"queued": 1, "running": 1})
    await import_into(target, data)
    assert list(await target.load(["ended", "waits", "runs"])) == ["ended"]
    assert [letter.letter_id for letter in await read_letters(target)] == ["batch-ended-1"]


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), {"t0", "t1", "t2"}),
        (Selection(task_ids=["t2", "t0"]), {"t0", "t2"}),
        (Selection(statuses=["failed"]), set()),
        (Selection(pipeline="p1"), {"t1"}),
        (Selection(labels={"number": "2"}), {"t2"}),
        (Selection(created_after=NOON), {"t1", "t2"}),
        (Selection(created_before=NOON + 2), {"t0", "t1"}),
        (Selection(created_after=NOON, created_before=NOON + 2), {"t1"}),
    ],
)
async def test_a_selection_exports_what_matches(selection: Selection, expected: set[str]) -> None:
    store, target = InMemoryStore(), InMemoryStore()
    for number in range(3):
        await add_ended(
            store,
            f"t{number}",
            pipeline=f"p{number}",
            labels={"number": str(number)},
            created_at=NOON + number,
        )
    await park_letters(store, [DeadLetter("message-alone", NOON, "message", "bad", "no")])
    await import_into(target, await exported(store, selection))
    assert set(await target.load(["t0", "t1", "t2"])) == expected
    letters = {letter.letter_id for letter in await read_letters(target)}
    assert ("message-alone" in letters) == (selection == Selection())


async def test_a_selected_task_that_does_not_exist_is_an_error() -> None:
    store = InMemoryStore()
    await add_ended(store, "t1")
    with pytest.raises(TaskNotFound, match="there is no task 't2'"):
        await exported(store, Selection(task_ids=["t1", "t2"]))


class Retrying(Failing):
    """A store where a task is retried while it is exported."""

    async def scan_archive(self, task_id: str, **options: Any) -> Any:
        await self._store.commit([change("t1", 2, op_id="retried")])
        return await self._store.scan_archive(task_id, **options)


async def test_a_task_that_changes_while_it_is_exported_is_left_out() -> None:
    store = InMemoryStore()
    await add_ended(store, "t1")
    data, done, reports = await export_with_reports(Retrying(store, 1000))
    assert (done.tasks, done.failed) == (0, 1)
    assert reports == ["task 't1' is not exported: it was retried or deleted meanwhile"]
    assert (await import_into(InMemoryStore(), data))[0].tasks == 0


async def test_a_task_with_many_artifacts_is_collected_in_a_file() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await add_ended(source, "t1", artifacts=900, archived=900)
    data, done, _ = await export_with_reports(source, memory_bytes=1000)
    assert (done.tasks, done.artifacts) == (1, 1800)
    await import_into(target, data)
    assert await contents(target) == await contents(source)


# ---------------------------------------------------------------- damage


async def test_a_file_that_ends_too_early_names_the_line_and_keeps_whole_tasks() -> None:
    source = InMemoryStore()
    await add_ended(source, "t1", artifacts=1, archived=1)
    await add_ended(source, "t2", artifacts=1, archived=1)
    data = await exported(source)
    lines = data.splitlines(keepends=True)
    for count in range(1, len(lines)):
        target = InMemoryStore()
        with pytest.raises(InvalidExport, match=f"line {count + 1}: the export is incomplete"):
            await import_into(target, b"".join(lines[:count]))
        _, reports = await import_into(target, data)
        assert reports == []
        assert await contents(target) == await contents(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda lines: lines[:-2] + lines[-1:], "line 12: 1 records of task 't1' are missing"),
        (
            lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]],
            "line 4: artifact 1 of node 'a' is missing before artifact 2",
        ),
        (lambda lines: lines + lines[:1], "line 14: the export continues after its end"),
        (lambda lines: lines[:1] + lines[-1:], "line 2: the export had 13 lines"),
        (lambda lines: lines[:1] + lines[2:], "line 2: the record does not belong to task ''"),
        (lambda lines: [*lines[:4], lines[4][:-9] + b"\n", *lines[5:]], "line 5: .*incomplete"),
    ],
)
async def test_lines_that_were_removed_or_moved_are_found(change: Any, message: str) -> None:
    source = InMemoryStore()
    await add_ended(source, "t1", artifacts=2, archived=1)
    lines = (await exported(source)).splitlines(keepends=True)
    with pytest.raises(InvalidExport, match=message):
        await import_into(InMemoryStore(), b"".join(change(lines)))


async def test_a_damaged_task_is_named_and_the_others_are_exported(tmp_path: Path) -> None:
    path = tmp_path / "flowkit.db"
    async with opened(f"sqlite:///{path}") as store:
        for task_id in ("t1", "t2", "t3", "t4"):
            await add_ended(store, task_id)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE archive SET rank = -5 WHERE task = 1 AND name = 'n0'")
        connection.execute("DELETE FROM artifacts WHERE owner = 2 AND position = 2")
        connection.execute("DELETE FROM parts WHERE task = 3 AND name = ''")
    async with opened(f"sqlite:///{path}") as store:
        data, done, reports = await export_with_reports(store)
    assert (done.tasks, done.failed) == (1, 3)
    assert [report.partition(" is not exported: ")[0] for report in reports] == [
        "task 't3'",
        "task 't2'",
        "task 't1'",
    ]
    assert (await import_into(InMemoryStore(), data))[0].tasks == 1


# ---------------------------------------------------------------- codecs


async def test_encoded_data_stays_encoded() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await add_ended(encoded(source, CODEC), "t1")
    data = await exported(source, header=ENCODED_HEADER)
    assert b'{\\"of\\":\\"t1\\"}' not in data
    await import_into(target, data, plugins=CODEC)
    assert await contents(target) == await contents(source)


async def test_an_import_encodes_data_that_was_not() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await add_ended(source, "t1")
    data = await exported(source)
    for skipped in (0, 1):
        done, _ = await import_into(target, data, plugins=CODEC)
        assert done.skipped == skipped
    assert (await target.load(["t1"]))["t1"].spec.startswith(b"R")
    assert await contents(encoded(target, CODEC)) == await contents(source)


async def test_encoded_data_needs_the_plugin() -> None:
    data = await exported(InMemoryStore(), header=ENCODED_HEADER)
    with pytest.raises(ConfigError, match="install that plugin"):
        await import_into(InMemoryStore(), data)


async def test_artifacts_keep_their_positions() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await add_ended(source, "t1", artifacts=0)
    stream = Stream("t1", "n", 0)
    for number in range(5):
        await source.artifacts.put([artifact(stream, f"u{number}", at=NOON - number)])
    await import_into(target, await exported(source))
    assert await target.artifacts.read(stream) == await source.artifacts.read(stream)
