"""Triggers move from one store to another, with the ends of tasks that they have not handled."""

from dataclasses import replace
from typing import Any

import pytest

from flowkit import Client, Trigger
from flowkit._codecs.store_codec import encoded
from flowkit._exports.export import Selection
from flowkit._records.trigger_records import EVENT_KIND, KIND
from flowkit.errors import RecordTooLarge, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, Store
from flowkit_testing import Cluster, InMemoryBus, InMemoryStore
from tests.builders import graph
from tests.exports.stores import (
    CODEC,
    ENCODED_HEADER,
    Failing,
    contents,
    export_with_reports,
    exported,
    import_into,
)
from tests.hooked_store import HookedStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


NOOP = graph({"node_id": "n", "type": "coordinator_fn", "io": {"fn": "noop"}})


def on_end(trigger_id: str = "t", **fields: Any) -> Trigger:
    return Trigger(trigger_id, **{"source": "task:etl", "graph": NOOP} | fields)


def client_of(store: Store) -> Client:
    return Client(db=None, store=store, bus=InMemoryBus())


async def source_with_events(count: int, *, paused: bool = False) -> InMemoryStore:
    """Return a store with a trigger that has one task, and more ends that are not handled."""
    store = InMemoryStore()
    async with Cluster(store=store) as cluster:
        client = cluster.client
        await client.put_trigger(on_end())
        await ends(cluster, 1)
        await client.pause_trigger("t")
        await ends(cluster, count)
    if not paused:
        await resume(store)
    return store


async def resume(store: Store) -> None:
    """Resume the trigger at the time when each cluster begins."""
    async with Cluster(store=store, coordinators=0) as cluster:
        await cluster.client.resume_trigger("t")


async def ends(cluster: Cluster, count: int) -> None:
    for _ in range(count):
        await cluster.run(NOOP, pipeline="etl")
    await cluster.clock.sleep(60)


async def made(store: Store) -> list[str]:
    """Run a coordinator on a store, and return the ids of the tasks that the trigger has made."""
    async with Cluster(store=store) as cluster:
        await cluster.clock.sleep(60)
        page = await cluster.client.list_tasks(limit=500)
        return sorted(one.id for one in page.items if one.trigger == "t")


async def events(store: Store) -> list[KeyedRecord]:
    return list(await store.records.scan(EVENT_KIND))


async def test_an_imported_trigger_makes_one_task_for_each_end_that_was_not_handled() -> None:
    """Neither at first, nor after the same import is run again, is there another."""
    source, target = await source_with_events(3), InMemoryStore()
    data, out, _ = await export_with_reports(source)
    done, reports = await import_into(target, data)
    assert (out.triggers, out.trigger_events) == (1, 3)
    assert (done.triggers, done.trigger_events, reports) == (1, 3, [])
    tasks = await made(target)
    assert len(tasks) == 4
    assert tasks == await made(source)
    done, reports = await import_into(target, data)
    assert (done.triggers, done.trigger_events, reports) == (0, 0, [])
    assert not await events(target)
    assert await made(target) == tasks


async def test_an_imported_trigger_is_paused_as_it_was_and_gets_new_ends() -> None:
    source, target = await source_with_events(2, paused=True), InMemoryStore()
    await import_into(target, await exported(source))
    assert await contents(target) == await contents(source)
    async with Cluster(store=target) as cluster:
        await ends(cluster, 1)
        assert (await cluster.client.list_triggers())[0].paused
        assert len(await events(target)) == 3
    await resume(target)
    assert len(await made(target)) == 4


async def test_an_import_of_a_trigger_may_be_interrupted_anywhere_and_the_next_completes_it() -> (
    None
):
    source = await source_with_events(3)
    data, expected = await exported(source), await made(source)
    for calls in range(100):
        target = InMemoryStore()
        try:
            await import_into(Failing(target, calls), data, batch_lines=4)
        except StoreUnavailable:
            await made(target)  # a coordinator is at work meanwhile
            await import_into(target, data)
            assert await made(target) == expected
        else:
            assert calls > 5
            return


@pytest.mark.parametrize("fields", [{"source": "task:other"}, {"labels": {"a": "b"}}])
async def test_a_trigger_that_differs_is_named_and_stays(fields: dict[str, Any]) -> None:
    source, target = await source_with_events(2), InMemoryStore()
    async with client_of(target) as client:
        await client.put_trigger(on_end(**fields))
    done, (report,) = await import_into(target, await exported(source))
    assert report.endswith(
        ": trigger 't' is not imported: another trigger with this id is in the store"
    )
    assert (done.triggers, done.trigger_events, done.refused) == (0, 0, 1)
    assert len(await made(target)) == 1


async def test_the_same_trigger_that_was_put_independently_gets_no_ends_of_the_old_one() -> None:
    source, target = await source_with_events(2), InMemoryStore()
    async with client_of(target) as client:
        await client.put_trigger(on_end())
    done, reports = await import_into(target, await exported(source))
    assert (done.triggers, done.trigger_events, reports) == (0, 0, [])
    assert len(await made(target)) == 1


async def test_the_end_of_a_task_that_could_not_be_imported_is_named() -> None:
    source, target = await source_with_events(1), InMemoryStore()
    async with client_of(source) as client:
        task_id = (await client.list_tasks(pipeline="etl", limit=1)).items[0].id
    async with Cluster(store=target) as cluster:
        await cluster.client.create_task(
            graph=graph({"node_id": "n", "type": "work"}), task_id=task_id
        )
        _, (_, report) = await import_into(target, await exported(source))
    assert report.endswith(
        f"the end of task {task_id!r} for trigger 't' is not imported: the task is not in the store"
    )


async def test_triggers_beyond_the_limit_of_a_pipeline_and_too_large_ones_are_named() -> None:
    class Small(HookedStore):
        async def before_change(self, change: RecordChange) -> None:
            if any(record.kind == KIND and len(record.data) > 5_000 for record in change.put):
                raise RecordTooLarge("too large")

    source, target = InMemoryStore(), Small()
    async with client_of(source) as client, client_of(target) as other:
        await client.put_trigger(on_end("a"))
        await client.put_trigger(
            on_end(
                "b",
                labels={"large": "x" * 900} | {f"l{number}": "x" * 900 for number in range(6)},
                source="task:b",
            )
        )
        await client.put_trigger(on_end("c", source="task:c"))
        for number in range(100):
            await other.put_trigger(on_end(f"n{number}"))
    done, reports = await import_into(target, await exported(source))
    assert reports == [
        "line 2: trigger 'a' is not imported: pipeline 'etl' has 100 triggers already",
        "line 3: trigger 'b' is not imported: too large",
    ]
    assert (done.triggers, done.refused) == (1, 2)


async def test_a_damaged_trigger_is_named_and_the_others_are_exported() -> None:
    source = InMemoryStore()
    async with client_of(source) as client:
        for name in "ab":
            await client.put_trigger(on_end(name))
    record = (await source.records.get(KIND, ["a"]))["a"]
    broken = replace(record, data=b"{}")
    assert await source.records.change([RecordChange("broken", [broken])]) == [True]
    _, out, (report,) = await export_with_reports(source)
    assert report.startswith("trigger 'a' is not exported: the record of trigger 'a' is damaged")
    assert (out.triggers, out.failed) == (1, 1)


async def test_a_selection_of_tasks_exports_no_triggers() -> None:
    _, out, _ = await export_with_reports(await source_with_events(1), Selection(pipeline="etl"))
    assert (out.tasks, out.triggers, out.trigger_events) == (2, 0, 0)


async def test_triggers_of_an_encoded_export_are_compared_by_their_contents() -> None:
    source, target = InMemoryStore(), InMemoryStore()
    async with client_of(encoded(source, CODEC)) as client:
        await client.put_trigger(on_end(labels={"colour": "red"}))
    data = await exported(source, header=ENCODED_HEADER)
    assert b"colour" not in data
    for skipped in (0, 1):
        done, reports = await import_into(target, data, plugins=CODEC)
        assert (done.skipped, reports) == (skipped, [])
    assert await contents(target) == await contents(source)
