"""Triggers with the source of a plugin, on a cluster in virtual time."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio
import pytest
from pydantic_core import to_json

from flowkit import CoordinatorConfig, Trigger, TriggerRefused
from flowkit._json.limits import LAST_MOMENT
from flowkit.cli._trigger_checks import check_triggers
from flowkit.client._trigger_lags import FRESH_SEC, PATIENCE_SEC
from flowkit.errors import StoreUnavailable
from flowkit.plugins import Plugins
from flowkit.protocols import RecordChange, TaskRecord
from flowkit.task import TaskView
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph
from tests.triggers.memory_source import MemorySource

LATER = 2e9
TICK_SEC = 24 * 3600
AT_ONCE = graph({"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}})


def on_record(trigger_id: str = "t", **fields: Any) -> Trigger:
    defaults = {"source": "mem://orders", "graph": AT_ONCE, "params": {"n": "${event.value.n}"}}
    return Trigger(trigger_id, **{**defaults, **fields})


@asynccontextmanager
async def running(source: MemorySource, **options: Any) -> AsyncIterator[Cluster]:
    async with Cluster(plugins=[source], **options) as cluster:
        yield cluster


async def settle(cluster: Cluster) -> None:
    """Wait until the coordinators have seen a change of a trigger, and made its tasks."""
    await cluster.clock.sleep(TICK_SEC + 60)


async def made(cluster: Cluster) -> list[TaskView]:
    page = await cluster.client.list_tasks(limit=500)
    views = [one for one in reversed(page.items) if one.trigger is not None]
    return [await cluster.client.get_task(one.id) for one in views]


async def numbers(cluster: Cluster) -> list[Any]:
    return [one.params["n"] for one in await made(cluster)]


def publish(source: MemorySource, *values: Any) -> None:
    for value in values:
        source.publish(to_json({"n": value}), timestamp=LATER)


async def test_each_record_makes_one_task_with_the_fields_of_the_event() -> None:
    source = MemorySource()
    fields = ("key", "headers", "topic", "partition", "offset", "timestamp")
    params = {name: f"${{event.{name}}}" for name in fields}
    async with running(source, coordinators=3) as cluster:
        trigger = on_record(params={**params, "n": "${event.value.n}"}, when="event.value.n > 1")
        await cluster.client.put_trigger(trigger)
        for number in range(250):
            source.publish(to_json({"n": number}), key=f"k{number}", timestamp=LATER)
        await settle(cluster)
        tasks = await made(cluster)
        assert sorted(one.params["n"] for one in tasks) == list(range(2, 250))
        (one,) = [task for task in tasks if task.params["n"] == 7]
        assert await source.behind(next(iter(source.groups)), since=0) == 0
    assert {name: one.params[name] for name in fields} == {
        "key": "k7",
        "headers": {"h": "x"},
        "topic": "orders",
        "partition": 0,
        "offset": 7,
        "timestamp": "2033-05-18T03:33:20Z",
    }
    assert (one.trigger, one.status) == ("t", "finished")


async def test_a_record_that_cannot_be_used_is_a_dead_letter_and_the_next_one_goes_on() -> None:
    source = MemorySource()
    async with running(source) as cluster:
        client = cluster.client
        await client.put_trigger(on_record())
        unusable = (b"no json", b"[1", b'{"n": 1e999}', b"\xff", b'{"m": 1}', b"")
        for value in (*unusable, b'{"n": %s}' % (b"9" * 400), b'{"n": 8}'):
            source.publish(value, timestamp=LATER)
        await settle(cluster)
        assert await numbers(cluster) == [8]
        letters = {one.uid: one for one in (await client.dead_letters(kind="trigger")).items}
        assert len(letters) == 7
        large = letters["orders/0/6/2000000000000"]
        assert large.error.endswith("a number in it is too large")
        first = letters["orders/0/0/2000000000000"]
        assert (first.trigger, first.topic) == ("t", "mem://orders")
        assert "its value is not JSON" in first.error
        assert b"no json" in first.data
        (again,) = await client.retry_dead_letters([first.letter_id])
        assert (again.done, "its value is not JSON" in again.detail) == (False, True)
        other = letters["orders/0/4/2000000000000"]
        assert "/params/n" in other.error
        await client.put_trigger(on_record(params={"n": "${event.value.m}"}))
        (again,) = await client.retry_dead_letters([other.letter_id])
        assert again.done, again
        assert await numbers(cluster) == [8, 1]


async def test_the_time_of_a_record_is_null_if_no_calendar_has_it() -> None:
    source = MemorySource()
    async with running(source) as cluster:
        await cluster.client.put_trigger(on_record(params={"n": "${event.timestamp}"}))
        for at in (LATER, LAST_MOMENT + 1, 2**63 / 1000):
            source.publish(b"", timestamp=at)
        await settle(cluster)
        assert Counter(await numbers(cluster)) == {"2033-05-18T03:33:20Z": 1, None: 2}


async def test_a_paused_trigger_makes_no_tasks_and_goes_on_where_it_was() -> None:
    source = MemorySource()
    async with running(source, coordinators=2) as cluster:
        client = cluster.client
        await client.put_trigger(on_record())
        publish(source, 1)
        await settle(cluster)
        await client.pause_trigger("t")
        publish(source, 2, 3)
        await settle(cluster)
        assert await numbers(cluster) == [1]
        (group,) = source.groups
        assert await source.behind(group, since=0) == 2
        await client.resume_trigger("t")
        await settle(cluster)
        assert sorted(await numbers(cluster)) == [1, 2, 3]
        assert list(source.groups) == [group]


async def test_a_deleted_trigger_has_no_readers_and_a_new_one_with_its_id_another_group() -> None:
    source = MemorySource()
    async with running(source, coordinators=2) as cluster:
        client = cluster.client
        await client.put_trigger(on_record())
        await settle(cluster)
        (first,) = source.groups
        assert source.groups[first].present == 2
        await client.delete_trigger("t")
        publish(source, 1)
        await settle(cluster)
        assert (source.groups[first].present, await numbers(cluster)) == (0, [])
        await client.put_trigger(on_record())
        await settle(cluster)
        assert len(source.groups) == 2
        assert first.startswith("flowkit.trigger.t.")


async def test_another_source_is_read_from_the_time_of_the_change() -> None:
    source = MemorySource()
    async with running(source) as cluster:
        client = cluster.client
        await client.put_trigger(on_record())
        await settle(cluster)
        await client.put_trigger(on_record(labels={"a": "b"}))
        await settle(cluster)
        (first,) = source.groups
        before = cluster.clock.now()
        await client.put_trigger(on_record(source="mem://payments"))
        source.publish(b'{"n": 1}', timestamp=before - 1)
        source.publish(b'{"n": 2}', timestamp=LATER)
        await settle(cluster)
        assert (len(source.groups), source.groups[first].present) == (2, 0)
        assert await numbers(cluster) == [2]
        await client.put_trigger(on_record(source="task:etl", params={}))
        await settle(cluster)
        assert [one.present for one in source.groups.values()] == [0, 0]


async def test_a_source_that_is_away_is_opened_again_and_holds_up_no_other_work(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = MemorySource()
    source.away = True
    async with running(source) as cluster:
        await cluster.client.put_trigger(on_record())
        publish(source, 1)
        await settle(cluster)
        await cluster.run(AT_ONCE)
        assert await numbers(cluster) == []
        source.away = False
        await settle(cluster)
        assert await numbers(cluster) == [1]
    assert "The source of trigger t cannot be read: the source is away" in caplog.text
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


class Forgetful(InMemoryStore):
    """Store that is away when the tasks of triggers are created, for some calls."""

    away = 3

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        if self.away and any(b'"trigger"' in record.spec for record in records):
            self.away -= 1
            raise StoreUnavailable("the store is away")
        return await super().create(records)


async def test_a_record_is_acknowledged_only_after_its_task_is_stored() -> None:
    source, store = MemorySource(), Forgetful()
    async with running(source, store=store) as cluster:
        await cluster.client.put_trigger(on_record())
        publish(source, 1)
        store.away = 10**6
        await settle(cluster)
        (group,) = source.groups
        assert (await source.behind(group, since=0), await numbers(cluster)) == (1, [])
        store.away = 0
        await settle(cluster)
        assert (await source.behind(group, since=0), await numbers(cluster)) == (0, [1])


async def test_a_record_whose_coordinator_leaves_before_it_acknowledges_makes_one_task() -> None:
    source = MemorySource()
    async with running(source) as cluster:
        await cluster.client.put_trigger(on_record())
        publish(source, 1, 2, 3)
        await settle(cluster)
        other = await cluster.add_coordinator()
        await settle(cluster)
        await other.stop()  # two of the records are delivered again
        await settle(cluster)
        assert sorted(await numbers(cluster)) == [1, 2, 3]


async def test_doctor_says_how_many_events_a_trigger_is_behind_and_which_source_is_away() -> None:
    source, cfg = MemorySource(), CoordinatorConfig()
    plugins = Plugins([source], discover=False)
    async with running(source, coordinators=0) as cluster:
        await cluster.client.put_trigger(on_record())
        await cluster.client.put_trigger(on_record("u", source="task:etl", params={}))
        publish(source, 1, 2)
        await cluster.add_coordinator()
        await settle(cluster)
        await cluster.client.pause_trigger("t")
        publish(source, 3)
        (found,) = await check_triggers(cluster.store, plugins, cfg)
        assert (found.name, found.ok) == ("trigger t", True)
        assert found.detail == "1 event behind, paused"
        (found,) = await check_triggers(cluster.store, plugins, cfg, max_behind=1)
        assert found.ok
        (found,) = await check_triggers(cluster.store, plugins, cfg, max_behind=0)
        assert (found.ok, found.remedy) == (False, "flowkit trigger resume t")
        await cluster.client.resume_trigger("t")
        (found,) = await check_triggers(cluster.store, plugins, cfg, max_behind=-1)
        assert (found.ok, "more coordinators" in found.remedy) == (False, True)
        source.away = True
        (found,) = await check_triggers(cluster.store, plugins, cfg)
        assert (found.ok, found.detail) == (False, "the source is away")
        (found,) = await check_triggers(cluster.store, Plugins(discover=False), cfg)
        assert (found.ok, "no installed package knows" in found.detail) == (False, True)
        (stored,) = (await cluster.store.records.get("trigger", ["t"])).values()
        await cluster.store.records.change([RecordChange("x", [replace(stored, data=b"{}")])])
        (found,) = await check_triggers(cluster.store, plugins, cfg)
        assert (found.ok, found.remedy) == (False, "flowkit trigger rm t")


async def test_a_damaged_trigger_is_not_read_and_holds_up_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    source = MemorySource()
    async with running(source) as cluster:
        await cluster.client.put_trigger(on_record())
        await cluster.client.put_trigger(on_record("u"))
        await settle(cluster)
        (stored,) = (await cluster.store.records.get("trigger", ["t"])).values()
        await cluster.store.records.change([RecordChange("x", [replace(stored, data=b"{}")])])
        publish(source, 1)
        await settle(cluster)
        assert [one.trigger for one in await made(cluster)] == ["u"]
        assert sorted(one.present for one in source.groups.values()) == [0, 1]
        await cluster.client.delete_trigger("t")
        await cluster.client.put_trigger(on_record())
        publish(source, 2)
        await settle(cluster)
        assert sorted(one.trigger or "" for one in await made(cluster)) == ["t", "t", "u", "u"]
    assert "A source cannot be read: the record of trigger 't' is damaged" in caplog.text


async def test_values_of_all_kinds_make_a_task_or_a_dead_letter() -> None:
    source = MemorySource()
    values = [b"1" * 400, b"9" * 5000, b"[" * 127 + b"]" * 127, b"[" * 190 + b"]" * 190]
    values += [b"[" * 100_000, rb'"\ud800"', rb'"\u0000"', b'{"": 1, "$x": 2, "a.b": 3}', b"null"]
    values += [b'"' + 300_000 * b"x" + b'"', b"NaN", b"\xef\xbb\xbf1", b" \n", b'"end"']
    async with running(source) as cluster:
        trigger = on_record(params={"n": "${event.value}", "key": "${event.key}"})
        await cluster.client.put_trigger(trigger)
        for value in values:
            source.publish(value, key="\udcff\x00", timestamp=LATER)
        await settle(cluster)
        tasks = await made(cluster)
        letters = (await cluster.client.dead_letters(kind="trigger")).items
    assert {one.params["key"] for one in tasks} == {"\\xff\x00"}
    assert (len(tasks), len(letters)) == (5, 9)
    assert "end" in [one.params["n"] for one in tasks]


async def test_a_source_that_no_plugin_knows_or_a_plugin_refuses_is_refused_when_it_is_put() -> (
    None
):
    async with running(MemorySource()) as cluster:
        for wrong, why in [
            ("etl", "no installed package knows the source 'etl'"),
            (
                "other://user:secret@host/x",
                "no installed package knows the source 'other://host/x'",
            ),
            ("mem://wrong", "plugin .*: 'mem://wrong' is wrong; write mem://name"),
        ]:
            with pytest.raises(TriggerRefused, match=why):
                await cluster.client.put_trigger(on_record(source=wrong))


async def test_the_list_says_how_many_events_wait_for_each_trigger() -> None:
    source = MemorySource()
    async with running(source, coordinators=0) as cluster:
        client = cluster.client
        await client.put_trigger(on_record())
        await client.put_trigger(on_record("u", source="task:etl", params={}))
        publish(source, 1, 2)
        assert [one.behind for one in await client.list_triggers()] == [None, None]
        assert [one.behind for one in await client.list_triggers(behind=True)] == [2, 0]
        await cluster.add_coordinator()
        await settle(cluster)
        await cluster.clock.sleep(FRESH_SEC)
        assert [one.behind for one in await client.list_triggers(behind=True)] == [0, 0]


async def test_a_source_that_is_away_has_no_lag_and_is_asked_again_later() -> None:
    source = MemorySource()
    async with running(source, coordinators=0) as cluster:
        await cluster.client.put_trigger(on_record())
        publish(source, 1)
        source.away = True
        assert (await cluster.client.list_triggers(behind=True))[0].behind is None
        source.away = False
        assert (await cluster.client.list_triggers(behind=True))[0].behind is None
        await cluster.clock.sleep(FRESH_SEC)
        assert (await cluster.client.list_triggers(behind=True))[0].behind == 1


async def test_a_source_that_does_not_answer_holds_up_the_list_for_two_seconds() -> None:
    class Silent(MemorySource):
        async def behind(self, group: str, *, since: float) -> int:
            await anyio.sleep_forever()
            return 0

    async with running(Silent(), coordinators=0) as cluster:
        await cluster.client.put_trigger(on_record())
        before = cluster.clock.now()
        assert (await cluster.client.list_triggers(behind=True))[0].behind is None
        assert cluster.clock.now() - before == PATIENCE_SEC
