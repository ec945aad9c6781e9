"""The search for tasks and keyed records that the store reads, and FlowKit cannot decode."""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowkit import Schedule, Trigger
from flowkit._json.limits import LAST_MOMENT
from flowkit._records.damaged_records import DECODERS, damaged_keyed_records, damaged_records
from flowkit._records.damaged_tasks import PAGE, SEARCH_SEC, damaged_tasks
from flowkit._records.task_records import decode_task
from flowkit.cli._record_checks import check_tasks
from flowkit.clock import SystemClock
from flowkit.errors import CorruptRecord
from flowkit.plugins import Plugins
from flowkit.protocols import (
    DamagedRecord,
    KeyedRecord,
    RecordChange,
    RecordStore,
    TaskQuery,
    TaskRecord,
    utc,
)
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore, ManualClock
from tests.builders import TWO, graph, node
from tests.damaged_keyed_records import check_all_are_named

DAMAGE: Mapping[str, Mapping[str, Any]] = {
    "spec": {"spec": b"x"},
    "parts": {"parts": {}},
    "bytes": {"fault": "its bytes are gone"},
}


class DamagedStore(InMemoryStore):
    """A store with damaged tasks, which finds a record of one of them itself."""

    damage: Mapping[str, Mapping[str, Any]] = {}

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        found = await super().load(task_ids)
        return {
            name: replace(record, **self.damage.get(name, {})) for name, record in found.items()
        }

    async def damaged_records(self, *, limit: int = 100) -> list[DamagedRecord]:
        return [DamagedRecord("table", "row", "no number", "bytes")][:limit]


async def test_tasks_that_cannot_be_decoded_are_listed_after_what_the_store_finds() -> None:
    store = DamagedStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        for name in ("whole", *DAMAGE):
            await cluster.client.create_task(graph=TWO, task_id=name)
            await cluster.clock.sleep(1)
        store.damage = DAMAGE
        found = await cluster.client.damaged_records()
        assert [(record.place, record.record_id, record.task_id) for record in found] == [
            ("table", "row", "bytes"),
            ("task", "parts", "parts"),
            ("task", "spec", "spec"),
        ]
        assert all(
            record.fault.startswith(f"the record of task {record.task_id!r} cannot be read: ")
            for record in found[1:]
        )
        assert await cluster.client.damaged_records(limit=2) == found[:2]


async def test_doctor_says_which_tasks_cannot_be_read(flowkit_clock: ManualClock) -> None:
    store = DamagedStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        await cluster.client.create_task(graph=TWO, task_id="whole")
        (result,) = await check_tasks(cluster.store, Plugins(discover=False), flowkit_clock)
        assert (result.ok, result.detail) == (True, "1 read, none is damaged")
        await cluster.client.create_task(graph=TWO, task_id="bytes")
        store.damage = DAMAGE
        (result,) = await check_tasks(cluster.store, Plugins(discover=False), flowkit_clock)
        assert (result.name, result.ok, result.detail) == (
            "tasks",
            False,
            "2 read, 1 damaged: the record of task 'bytes' cannot be read: its bytes are gone",
        )


async def test_the_search_ends_at_its_time_limit(flowkit_clock: ManualClock) -> None:
    class Slow(InMemoryStore):
        async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
            await flowkit_clock.sleep(SEARCH_SEC / 2)
            return await super().list_tasks(query)

    async with Cluster(store=Slow(), coordinators=0, clock=flowkit_clock) as cluster:
        for _ in range(2 * PAGE + 1):
            await cluster.client.create_task(graph=TWO)
        search = await damaged_tasks(cluster.store, limit=9, monotonic=flowkit_clock.monotonic)
        assert (search.read, search.in_time) == (2 * PAGE, False)
        assert (
            "read in 5 s"
            in (await check_tasks(cluster.store, Plugins(discover=False), flowkit_clock))[0].detail
        )


async def test_keyed_records_that_cannot_be_decoded_are_named_by_doctor() -> None:
    async with InMemoryStore() as store:
        await check_all_are_named(store)


async def test_records_of_all_kinds_that_flowkit_writes_are_whole() -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("a line")
        raise RuntimeError("a letter")

    store = InMemoryStore()
    async with Cluster(store=store, handlers=[work]) as cluster:
        every = {"every_sec": 3_600, "graph": graph(node("a"))}
        await cluster.client.put_flow("f", graph(node("a")))
        await cluster.client.put_schedule(Schedule("s", **every))
        await cluster.client.put_trigger(Trigger("t", source="task:etl", flow="f"))
        await cluster.run(graph(node("a", concurrency_key="k")))
        search = await damaged_keyed_records(
            store, limit=9, monotonic=cluster.client.clock.monotonic
        )
    assert search.records == []
    assert search.read >= 7


NO_TIMES = (b"9999999999999.5", b"-9999999999999.5", b"1e999")
"""Numbers that no calendar has as seconds since 1970."""
STORED_TIME = re.compile(rb"(?<=[:,\[])1[78]\d{8}(?:\.\d+)?(?=[,\]}])")


def with_no_times(data: bytes) -> Iterator[bytes]:
    """Yield JSON in which one of the stored times, each in turn, is no time."""
    for found in STORED_TIME.finditer(data):
        for number in NO_TIMES:
            yield data[: found.start()] + number + data[found.end() :]


async def test_a_stored_time_that_no_calendar_has_is_damage_in_records_of_all_kinds() -> None:
    wait = anyio.Event()

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.log.info("a line")
        await wait.wait()
        raise RuntimeError("a letter")

    store = InMemoryStore()
    places = [
        {"concurrency_key": "k"},
        {"rate_limit": {"key": "r", "limit": 1, "per_sec": 600}},
        {"cache": {"key": "c", "ttl_sec": 60}},
    ]
    async with Cluster(store=store, handlers=[work]) as cluster:
        client, clock = cluster.client, cluster.clock
        await client.put_flow("f", TWO)
        await client.put_schedule(Schedule("s", every_sec=3_600, graph=TWO))
        await client.put_trigger(Trigger("t", source="task:etl", graph=TWO))
        tasks = [
            await client.create_task(graph=graph(node("a", **place)))
            for place in places
            for _ in range(2)
        ]
        await clock.sleep(5)
        written = [record for kind in DECODERS for record in await store.records.scan(kind)]
        stored = [*(await store.load(tasks)).values()]
        wait.set()
        await clock.sleep(5)
        written += await store.records.scan("letter")
    damaged: Counter[str] = Counter()
    for record in written:
        for data in with_no_times(record.data):
            with pytest.raises(CorruptRecord):
                DECODERS[record.kind](replace(record, data=data))
            damaged[record.kind] += 1
    timeless = {"schedule_definition", "trigger_event", "trigger_pipeline"}
    assert {*damaged} == DECODERS.keys() - timeless
    for task in stored:
        for name, part in task.parts.items():
            for data in with_no_times(part):
                with pytest.raises(CorruptRecord):
                    decode_task(replace(task, parts={**task.parts, name: data}))
                damaged[name[0]] += 1
    assert {"s", "n", "e"} <= {*damaged}


@pytest.mark.parametrize("kind", ["schedule", "schedule_definition"])
@pytest.mark.parametrize(
    ("data", "fault"), [(b"", "it is empty"), (b'{"v":2,"at":3}', 'it does not begin with {"v":1,')]
)
def test_a_schedule_without_its_version_says_what_is_wrong(
    kind: str, data: bytes, fault: str
) -> None:
    with pytest.raises(CorruptRecord, match=f"'s' is damaged: ValueError: {fault}; delete"):
        DECODERS[kind](KeyedRecord(kind, "s", data))


async def test_an_interval_that_is_not_finite_is_damage() -> None:
    store = InMemoryStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        for every_sec in (3_600, 60):
            await cluster.client.put_schedule(Schedule("s", every_sec=every_sec, graph=TWO))
            await cluster.clock.sleep(7_200)
        (record,) = await store.records.scan("schedule")
        assert b'"every_sec":3600.0' in record.data
        endless = record.data.replace(b'"every_sec":3600.0', b'"every_sec":1e999')
        with pytest.raises(CorruptRecord, match="every_sec: Input should be"):
            DECODERS["schedule"](replace(record, data=endless))


async def test_records_with_the_last_time_of_the_calendar_can_be_shown() -> None:
    store = InMemoryStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        await cluster.client.put_schedule(Schedule("s", every_sec=3_600, graph=TWO))
        (record,) = await store.records.scan("schedule")
        last = replace(record, data=STORED_TIME.sub(b"%.1f" % LAST_MOMENT, record.data))
        assert await store.records.change([RecordChange("last", [last])]) == [True]
        shown = await cluster.client.get_schedule("s")
        assert (shown.created_at, shown.next_at) == (utc(LAST_MOMENT), None)


async def test_a_graph_that_cannot_be_read_is_named() -> None:
    store = InMemoryStore()
    async with Cluster(store=store, coordinators=0) as cluster:
        await cluster.client.put_flow("f", TWO)
        await cluster.client.put_schedule(Schedule("s", every_sec=60, graph=TWO))
        await cluster.client.put_trigger(Trigger("t", source="task:etl", graph=TWO))
        keys = {"flow_version": "f@0000000001", "schedule_definition": "s", "trigger": "t"}
        for kind, key in keys.items():
            record = (await store.records.get(kind, [key]))[key]
            cut = replace(record, data=record.data[:-1])
            assert await store.records.change([RecordChange(f"cut-{kind}", [cut])]) == [True]
        search = await damaged_keyed_records(store, limit=9, monotonic=SystemClock().monotonic)
    assert {record.place: record.record_id for record in search.records} == keys
    assert all("the graph of" in record.fault for record in search.records)


def test_each_kind_of_record_that_the_reference_lists_is_searched() -> None:
    page = Path(__file__).parents[2] / "docs/reference/store-layout.md"
    text = page.read_text(encoding="utf-8")
    table = text.partition("### Keyed records")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(DECODERS)


async def test_what_the_store_finds_is_named_once() -> None:
    async with DamagedStore() as store:
        store.records = _OneDamaged(store.records)  # type: ignore[assignment]
        (found,) = await damaged_records(store, limit=9, monotonic=SystemClock().monotonic)
        assert (found.place, found.record_id) == ("table", "row")
        search = await damaged_keyed_records(store, limit=9, monotonic=SystemClock().monotonic)
        assert [record.fault for record in search.records] == [
            "the record of flow 'f' cannot be read: no number"
        ]


class _OneDamaged:
    """Records with a flow that the store cannot decode."""

    def __init__(self, records: RecordStore) -> None:
        self._records = records

    def __getattr__(self, name: str) -> Any:
        return getattr(self._records, name)

    async def scan(self, kind: str, **options: Any) -> Sequence[KeyedRecord]:
        if kind == "flow" and not options.get("after"):
            return [KeyedRecord("flow", "f", b"", fault="no number")]
        return await self._records.scan(kind, **options)


async def test_the_search_for_keyed_records_ends_at_its_time_limit(
    flowkit_clock: ManualClock,
) -> None:
    async with InMemoryStore() as store:
        keyed = [KeyedRecord("log", f"x{number:03}", b"x") for number in range(2 * PAGE + 1)]
        await store.records.change([RecordChange(f"c{one.key}", [one]) for one in keyed])
        times = iter([0.0, SEARCH_SEC / 2, SEARCH_SEC])
        search = await damaged_keyed_records(store, limit=99, monotonic=lambda: next(times))
    assert (search.read, len(search.records), search.in_time) == (2 * PAGE, 2 * PAGE, False)
