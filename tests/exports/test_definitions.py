"""Registered flows and schedules move from one store to another."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flowkit import Client, Schedule
from flowkit._codecs.store_codec import encoded
from flowkit._exports.definition_import import MOST_AT_ONCE
from flowkit._exports.export import Selection
from flowkit._exports.lines import HeaderLine
from flowkit._records.flow_records import VERSIONS
from flowkit._records.schedule_records import DEFINITION_KIND, KIND
from flowkit.errors import RecordTooLarge, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, Store
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore, ManualClock
from tests.builders import graph
from tests.exports.stores import (
    CODEC,
    ENCODED_HEADER,
    HEADER,
    Failing,
    contents,
    export_with_reports,
    exported,
    import_into,
)
from tests.hooked_store import HookedStore

pytestmark = pytest.mark.anyio
SOON = datetime(2026, 1, 1, tzinfo=UTC)
"""The clock of a cluster begins then."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def noop(number: int = 0) -> dict[str, Any]:
    return graph({"node_id": f"n{number}", "type": "coordinator_fn", "io": {"fn": "noop"}})


def client_of(store: Store) -> Client:
    return Client(db=None, store=store, bus=InMemoryBus())


async def put_flow(store: Store, name: str, *numbers: int) -> None:
    async with client_of(store) as client:
        for number in numbers:
            await client.put_flow(name, noop(number), description=f"about {number}")


async def put_schedule(store: Store, **fields: Any) -> None:
    async with client_of(store) as client:
        await client.put_schedule(Schedule("s", **{"graph": noop(), "every_sec": 60} | fields))


async def views(store: Store) -> list[Any]:
    async with client_of(store) as client:
        flows = [
            await client.get_flow(info.name, number)
            for info in await client.list_flows()
            for number in range(1, (info.version or 0) + 1)
        ]
        return [await client.list_flows(), flows, await client.list_schedules()]


# ---------------------------------------------------------------- flows


async def test_flows_keep_the_numbers_of_their_versions_and_schedules_their_state() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_flow(source, "f", 1, 2, 1)
    await put_flow(source, "f@0000000001", 7)
    await put_schedule(source)
    async with client_of(source) as client:
        await client.pause_schedule("s")
    data, out, _ = await export_with_reports(source)
    done, reports = await import_into(target, data)
    assert (out.flow_versions, out.schedules) == (4, 1)
    assert (done.flow_versions, done.schedules, done.skipped, reports) == (4, 1, 0, [])
    assert await contents(target) == await contents(source)
    assert await views(target) == await views(source)
    done, reports = await import_into(target, data)
    assert (done.flow_versions, done.schedules, done.skipped, reports) == (0, 0, 5, [])
    assert await contents(target) == await contents(source)


async def test_versions_that_a_flow_got_after_an_import_are_added_by_the_next() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_flow(source, "f", 1, 2)
    await import_into(target, await exported(source))
    await put_flow(source, "f", 3)
    done, reports = await import_into(target, await exported(source))
    assert (done.flow_versions, done.skipped, reports) == (1, 2, [])
    assert await contents(target) == await contents(source)
    await put_flow(target, "f", 4)
    assert (await import_into(target, await exported(source)))[0].skipped == 3
    assert (await views(target))[0][0].version == 4


async def test_a_flow_that_another_user_has_registered_with_the_same_graphs_is_the_same() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_flow(source, "f", 1, 2)
    await put_flow(target, "f", 1)
    done, reports = await import_into(target, await exported(source))
    assert (done.flow_versions, done.skipped, reports) == (1, 1, [])


@pytest.mark.parametrize("lines_at_once", [1, 1000])
async def test_a_flow_that_differs_is_named_and_gets_no_version(lines_at_once: int) -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_flow(source, "f", 1, 2, 3)
    await put_flow(source, "g", 1)
    await put_flow(target, "f", 1, 5)
    before = await contents(target)
    data = await exported(source)
    done, reports = await import_into(target, data, batch_lines=lines_at_once)
    line = 2 if lines_at_once > 1 else 3
    assert reports == [
        f"line {line}: flow 'f' is not imported: its version 2 has another graph in the store"
    ]
    assert (done.flow_versions, done.refused) == (1, 1)
    after = [one for one in (await contents(target))["definitions"] if not one.key.startswith("g")]
    assert after == before["definitions"]


async def test_an_import_of_many_versions_may_be_interrupted_anywhere_and_the_flow_is_usable() -> (
    None
):
    source = InMemoryStore()
    await put_flow(source, "f", *range(2 * MOST_AT_ONCE + 1))
    data, expected = await exported(source), await contents(source)
    for calls in range(10):
        target = InMemoryStore()
        try:
            await import_into(Failing(target, calls), data)
        except StoreUnavailable:
            infos, flows, _ = await views(target)
            assert [one.version for one in infos] == ([MOST_AT_ONCE * calls] if calls else [])
            assert len(flows) == MOST_AT_ONCE * calls
            await import_into(target, data)
            assert await contents(target) == expected
        else:
            assert calls == 3
            return


# ---------------------------------------------------------------- schedules


async def test_an_imported_schedule_makes_no_task_of_a_time_that_it_has_handled() -> None:
    """Neither at first, nor after the same import is run again while it is at work."""
    source, target = InMemoryStore(), InMemoryStore()
    async with Cluster(store=source) as cluster:
        await cluster.client.put_schedule(
            Schedule("s", graph=noop(), every_sec=60, overlap="allow", catch_up="all")
        )
        await cluster.clock.sleep(200)
        made = [task.id for task in (await cluster.client.list_tasks()).items]
    data = await exported(source)
    await import_into(target, data)
    clock = ManualClock(SOON + timedelta(seconds=290))
    async with Cluster(store=target, clock=clock) as cluster:
        await cluster.clock.sleep(20)
        await import_into(target, data)
        await cluster.clock.sleep(60)
        after = [task.id for task in (await cluster.client.list_tasks()).items]
        view = await cluster.client.get_schedule("s")
    assert len(made) == 3
    assert sorted(after) == [f"s@2026-01-01T00:0{minute}:00Z" for minute in range(1, 7)]
    assert [event.task_id for event in view.history] == sorted(after)


async def test_a_schedule_that_differs_is_named() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_schedule(source)
    await put_schedule(target, every_sec=90)
    before = await contents(target)
    done, reports = await import_into(target, await exported(source))
    assert reports == [
        "line 2: schedule 's' is not imported: another schedule with this id is in the store"
    ]
    assert (done.schedules, done.refused) == (0, 1)
    assert await contents(target) == before


async def test_a_schedule_whose_stored_record_is_damaged_is_named_and_the_others_are_imported() -> (
    None
):
    source, target = InMemoryStore(), InMemoryStore()
    for store in (source, target):
        await put_schedule(store)
    async with client_of(source) as client:
        await client.put_schedule(Schedule("t", graph=noop(), every_sec=60))
    await damage(target, DEFINITION_KIND, "s")
    done, (report,) = await import_into(target, await exported(source))
    assert report.startswith("line 2: schedule 's' is not imported: the record of schedule 's' is")
    assert (done.schedules, done.refused) == (1, 1)


async def test_a_schedule_and_a_flow_that_are_too_large_for_the_store_are_named() -> None:
    class Small(HookedStore):
        async def before_change(self, change: RecordChange) -> None:
            if any(len(record.data) > 5_000 for record in change.put):
                raise RecordTooLarge("too large")

    source, target = InMemoryStore(), Small()
    large = graph({"node_id": "n", "type": "work", "io": {"input_inline": "x" * 10_000}})
    async with client_of(source) as client:
        await client.put_flow("f", large)
        await client.put_flow("g", noop())
        for schedule_id, document in (("s", large), ("t", noop()), ("u", noop())):
            await client.put_schedule(Schedule(schedule_id, graph=document, every_sec=60))
    done, reports = await import_into(target, await exported(source))
    assert (done.flow_versions, done.schedules, done.refused) == (1, 2, 2)
    assert [report.partition(" is not")[0] for report in reports] == [
        "line 2: flow 'f'",
        "line 4: schedule 's'",
    ]


class PutDuringAnExport(HookedStore):
    """A store where the schedule is put between the two reads of its definition in an export."""

    reads = 100

    async def before_read(self, kind: str) -> None:
        self.reads += kind == DEFINITION_KIND
        if kind == KIND and self.reads == 1:
            self.reads = 100
            await put_schedule(self, every_sec=90)


async def test_a_schedule_that_is_put_while_it_is_exported_is_left_out() -> None:
    source = PutDuringAnExport()
    await put_schedule(source)
    source.reads = 0
    data, out, reports = await export_with_reports(source)
    assert reports == ["schedule 's' is not exported: it was put again meanwhile"]
    assert (out.schedules, out.failed) == (0, 1)
    assert (await import_into(InMemoryStore(), data))[0].schedules == 0


# ---------------------------------------------------------------- selection, damage, codecs


async def test_a_selection_of_tasks_exports_neither_flows_nor_schedules() -> None:
    store = InMemoryStore()
    await put_flow(store, "f", 1)
    await put_schedule(store)
    assert len((await exported(store, Selection(pipeline="p"))).splitlines()) == 2


async def test_damaged_flows_and_schedules_are_named_and_the_others_are_exported() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_flow(source, "f", 1, 2)
    await put_flow(source, "g", 1)
    await put_schedule(source)
    await damage(source, VERSIONS, "f@0000000001")
    await damage(source, DEFINITION_KIND, "s")
    data, out, reports = await export_with_reports(source)
    assert [report.partition(" is not exported: ")[0] for report in reports] == [
        "flow version 'f@0000000001'",
        "schedule 's'",
    ]
    assert (out.flow_versions, out.failed) == (2, 2)
    await import_into(target, data)
    async with client_of(target) as client:
        assert (await client.get_flow("f")).version == 2
    await put_flow(target, "f", 3)


@pytest.mark.parametrize("header", [HEADER, ENCODED_HEADER], ids=["plain", "encoded"])
@pytest.mark.parametrize("key", ["f", "f@1", "f@0000000000", "f@-000000001", "f@9999999999"])
async def test_a_record_with_the_key_of_no_version_is_named(header: HeaderLine, key: str) -> None:
    source = InMemoryStore()
    await put_flow(source, "f", 1)
    (record,) = (await source.records.get(VERSIONS, ["f@0000000001"])).values()
    copy = replace(record, key=key, revision="")
    assert await source.records.change([RecordChange("copied", [copy])]) == [True]
    _, out, reports = await export_with_reports(source, header=header)
    assert reports == [
        f"flow version {key!r} is not exported: {key!r} is not the key of a version of a flow"
    ]
    assert out.flow_versions == 1


async def test_an_export_from_a_backup_fills_a_gap_and_keeps_the_latest_version() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_flow(source, "f", 1, 2, 3)
    data = await exported(source)
    await damage(source, VERSIONS, "f@0000000001")
    await import_into(target, await exported(source))
    lines = data.splitlines(keepends=True)
    assert (await import_into(target, b"".join(lines)))[0].flow_versions == 1
    assert (await views(target))[0][0].version == 3


async def damage(store: Store, kind: str, key: str) -> None:
    record = (await store.records.get(kind, [key]))[key]
    broken = KeyedRecord(kind, key, b"{}", record.revision)
    assert await store.records.change([RecordChange("broken", [broken])]) == [True]


@pytest.mark.parametrize("lost", [0, 1])
async def test_a_record_of_another_definition_is_refused(lost: int) -> None:
    source, target = InMemoryStore(), InMemoryStore()
    await put_schedule(source)
    kind = (DEFINITION_KIND, KIND)[lost]
    old = (await source.records.get(kind, ["s"]))["s"]
    await put_schedule(source, every_sec=90)
    now = (await source.records.get(kind, ["s"]))["s"]
    mixed = replace(old, revision=now.revision)
    assert await source.records.change([RecordChange("mixed", [mixed])]) == [True]
    _, reports = await import_into(target, await exported(source))
    assert reports == [
        "line 2: schedule 's' is not imported: its state is that of another definition"
    ]
    assert (await contents(target))["definitions"] == []


async def test_flows_and_schedules_of_an_encoded_export_are_compared_by_their_contents() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    usual = encoded(source, CODEC)
    await put_flow(usual, "f", 1, 2)
    await put_schedule(usual)
    data = await exported(source, header=ENCODED_HEADER)
    assert b"about 1" not in data
    for skipped in (0, 3):
        done, reports = await import_into(target, data, plugins=CODEC)
        assert (done.skipped, reports) == (skipped, [])
    assert await contents(target) == await contents(source)
