"""Triggers on a cluster in virtual time."""

from collections.abc import Sequence
from typing import Any

import pytest

from flowkit import GraphError, Trigger, TriggerNotFound, TriggerRefused
from flowkit._records.trigger_records import EVENT_KIND, EndEvent, decode_trigger, event_of
from flowkit.errors import CorruptRecord, FlowNotFound, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, TaskRecord
from flowkit.task import TaskView, TriggerOrigin
from flowkit.worker import handler
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node

TICK_SEC = 24 * 3600
"""Pause of a coordinator's sweeps in a cluster. What must not wait for them comes at once."""


@handler("work")
async def work(item: Any) -> Any:
    if item == "fail":
        raise ValueError("bad input")
    return item


def flow(item: Any = None) -> dict[str, Any]:
    return graph(node("a", io={"input_inline": item}))


def on_end(trigger_id: str = "t", **fields: Any) -> Trigger:
    fields = {"graph": flow("${params.end}"), "params": {"end": "${event.value}"}, **fields}
    return Trigger(trigger_id, **{"source": "task:etl", **fields})


async def run(cluster: Cluster, item: Any = None, **options: Any) -> TaskView:
    """Run a task of the pipeline ``etl``, and the tasks that follow from its end."""
    task_id = await cluster.client.create_task(graph=flow(item), pipeline="etl", **options)
    view = await cluster.client.wait(task_id)
    await cluster.clock.sleep(60)
    return view


async def made(cluster: Cluster, trigger_id: str = "t") -> list[TaskView]:
    """Return the tasks of a trigger, the oldest first."""
    page = await cluster.client.list_tasks(limit=500)
    return [one for one in reversed(page.items) if one.trigger == trigger_id]


async def events(cluster: Cluster) -> Sequence[KeyedRecord]:
    return await cluster.store.records.scan(EVENT_KIND)


async def test_each_end_makes_one_task_with_the_end_in_its_params() -> None:
    async with Cluster(coordinators=3, handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end(labels={"by": "t"}, pipeline="after"))
        first, second = await run(cluster, 1), await run(cluster, "fail")
        await cluster.client.create_task(graph=flow(), pipeline="other")
        await cluster.clock.sleep(60)
        one, two = [await cluster.client.get_task(task.id) for task in await made(cluster)]
        assert not await events(cluster)
    assert one.result["a"] == {
        "id": first.id,
        "status": "finished",
        "result": {"a": 1},
        "error": None,
    }
    assert (one.labels, one.pipeline) == ({"by": "t"}, "after")
    assert (two.params["end"]["id"], two.params["end"]["status"]) == (second.id, "failed")
    assert "bad input" in two.params["end"]["error"]


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"source": 7}, "source: .* string"),
        ({"source": "task:"}, "source: it names no pipeline"),
        ({"flow": "f"}, "give exactly one of graph and flow"),
        ({"priority": "high"}, "priority"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_copy_of_a_trigger_is_checked_when_it_is_put(changed: Any, why: str) -> None:
    async with Cluster(coordinators=0, workers=0) as cluster:
        with pytest.raises(TriggerRefused, match=f"the trigger is not valid: .*{why}"):
            await cluster.client.put_trigger(on_end().model_copy(update=changed))


async def test_a_condition_that_is_false_makes_no_task() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end(when="event.value.status == 'failed'"))
        await run(cluster, 1)
        assert not await made(cluster)
        await run(cluster, "fail")
        assert len(await made(cluster)) == 1
        assert not await events(cluster)


async def test_an_end_that_a_client_stored_while_no_coordinator_ran_makes_its_task() -> None:
    async with Cluster(coordinators=0, handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end())
        task_id = await cluster.client.create_task(graph=flow(), pipeline="etl")
        await cluster.client.cancel(task_id)
        await cluster.add_coordinator()
        await cluster.clock.sleep(60)
        (one,) = await made(cluster)
    assert (one.params["end"]["id"], one.params["end"]["status"]) == (task_id, "cancelled")


async def test_the_end_of_a_retried_task_makes_another_task() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end())
        task = await run(cluster, "fail")
        await cluster.client.retry(task.id)
        await cluster.client.wait(task.id)
        await cluster.clock.sleep(60)
        assert [one.params["end"]["id"] for one in await made(cluster)] == [task.id, task.id]


async def test_the_ends_during_a_pause_are_kept_until_the_trigger_is_resumed() -> None:
    async with Cluster(coordinators=2, handlers=[work]) as cluster:
        client = cluster.client
        await client.put_trigger(on_end())
        await client.pause_trigger("t")
        tasks = [await run(cluster, number) for number in range(3)]
        await client.put_trigger(on_end(labels={"round": "2"}))
        (view,) = await client.list_triggers(behind=True)
        assert (view.paused, view.behind, await made(cluster)) == (True, 3, [])
        assert [one.due_at for one in await events(cluster)] == [None, None, None]
        await client.resume_trigger("t")
        await cluster.clock.sleep(2 * TICK_SEC)
        after = await made(cluster)
    assert {one.params["end"]["id"] for one in after} == {one.id for one in tasks}
    assert [one.labels for one in after] == 3 * [{"round": "2"}]


async def test_an_event_whose_end_did_not_happen_makes_no_task() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end())
        waits = graph({"node_id": "a", "type": "sleep", "io": {"for_sec": 5 * TICK_SEC}})
        task_id = await cluster.client.create_task(graph=waits, pipeline="etl")
        await cluster.clock.sleep(1)
        (stored,) = (await cluster.store.records.get("trigger", ["t"])).values()
        token = decode_trigger(stored).token
        change = [EndEvent("t", token, task_id, number).record(0.0) for number in (1, 2, 99)]
        await cluster.store.records.change([RecordChange("x", change)])
        await run(cluster, "other")
        assert [one.result["a"]["result"] for one in await full(cluster)] == [{"a": "other"}]
        await cluster.client.wait(task_id)
        await cluster.clock.sleep(60)
        assert len(await made(cluster)) == 2


async def full(cluster: Cluster) -> list[TaskView]:
    return [await cluster.client.get_task(one.id) for one in await made(cluster)]


class Forgetful(InMemoryStore):
    """Store that is away when the tasks of triggers are created, for some calls."""

    away = 3

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        if self.away and any(b'"trigger"' in record.spec for record in records):
            self.away -= 1
            raise StoreUnavailable("the store is away")
        return await super().create(records)


async def test_an_event_is_deleted_only_after_its_task_is_stored() -> None:
    async with Cluster(store=Forgetful(), handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end())
        await run(cluster, 1)
        assert len(await made(cluster)) == 1
        assert not await events(cluster)


async def test_an_event_that_cannot_be_used_is_a_dead_letter_and_the_next_one_goes_on() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_trigger(on_end(params={"end": "${event.value.result.a.n}"}))
        await run(cluster, "no number")
        await run(cluster, {"n": 1})
        assert [one.params for one in await made(cluster)] == [{"end": 1}]
        (letter,) = (await client.dead_letters(kind="trigger")).items
        assert (letter.trigger, letter.topic, letter.reason_code) == ("t", "task:etl", "refused")
        assert "/params/end" in letter.error
        (again,) = await client.retry_dead_letters([letter.letter_id])
        assert (again.done, "/params/end" in again.detail) == (False, True)
        await client.put_trigger(on_end(params={"end": "${event.value.result.a}"}))
        (again,) = await client.retry_dead_letters([letter.letter_id])
        assert again.done, again
        assert [one.params for one in await made(cluster)] == [{"end": 1}, {"end": "no number"}]
        assert not (await client.dead_letters()).items


async def test_the_letter_of_a_trigger_that_was_deleted_or_does_not_want_it_says_so() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_trigger(on_end(params={"end": "${1 / 0}"}))
        await run(cluster, 1)
        (letter,) = (await client.dead_letters()).items
        await client.delete_trigger("t")
        (again,) = await client.retry_dead_letters([letter.letter_id])
        assert (again.done, again.detail) == (False, "there is no trigger 't'")
        await client.put_trigger(on_end(when="false"))
        (again,) = await client.retry_dead_letters([letter.letter_id])
        assert (again.done, "its when is false" in again.detail) == (True, True)


async def test_a_trigger_on_the_ends_of_its_own_tasks_stops_after_32_tasks() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end(pipeline="etl", params={"end": 1}))
        await run(cluster, 1)
        assert len(await made(cluster)) == 32
        (letter,) = (await cluster.client.dead_letters()).items
    assert "32 tasks were made by triggers one after the other" in letter.error


async def test_the_chain_goes_on_through_sub_flows() -> None:
    nested = graph({"node_id": "n", "type": "subflow", "io": {"flow": "etl", "params": {}}})
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_flow("etl", flow(1))
        await cluster.client.put_trigger(on_end(graph=nested, params={}))
        await run(cluster, 1)
        assert len(await made(cluster)) == 32


async def test_a_task_of_another_origin_is_not_taken_for_that_of_an_event() -> None:
    async with Cluster(coordinators=0, handlers=[work]) as cluster:
        client = cluster.client
        await client.put_trigger(on_end())
        task_id = await client.create_task(graph=flow(), pipeline="etl")
        await client.cancel(task_id)
        event = event_of((await events(cluster))[0])
        taken = TriggerOrigin("t", event.cause).task_id()
        await client.create_task(graph=flow(), task_id=taken)
        await cluster.add_coordinator()
        await cluster.clock.sleep(60)
        assert not await made(cluster)
        (letter,) = (await client.dead_letters()).items
    assert letter.error.startswith("id_taken: ")


async def test_a_task_that_ended_before_the_trigger_was_put_makes_none() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await run(cluster, 1)
        await cluster.client.put_trigger(on_end())
        await run(cluster, 2)
        (one,) = await made(cluster)
    assert one.params["end"]["result"] == {"a": 2}


async def test_a_trigger_with_another_source_handles_the_ends_of_that_one_alone() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.put_trigger(on_end())
        await cluster.client.put_trigger(on_end("u"))
        await cluster.client.put_trigger(on_end(source="task:other"))
        await run(cluster, 1)
        assert (await made(cluster), len(await made(cluster, "u"))) == ([], 1)


async def test_a_deleted_trigger_makes_no_tasks_and_is_not_found() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_trigger(on_end())
        await client.pause_trigger("t")
        await run(cluster, 1)
        await client.delete_trigger("t")
        await run(cluster, 2)
        await client.put_trigger(on_end())
        await client.resume_trigger("t")
        await cluster.clock.sleep(2 * TICK_SEC)
        assert not await made(cluster)
        assert not await events(cluster)
        await client.delete_trigger("t")
        assert await client.list_triggers() == []
        for verb in (client.pause_trigger, client.resume_trigger, client.delete_trigger):
            with pytest.raises(TriggerNotFound, match="there is no trigger 't'"):
                await verb("t")
            with pytest.raises(ValueError, match="the id of a trigger is a text, not 7"):
                await verb(7)


async def test_what_no_task_could_be_made_with_is_found_when_the_trigger_is_put() -> None:
    typed = {
        **flow(),
        "params": {"type": "object", "properties": {"end": {"type": "integer"}}},
    }
    async with Cluster() as cluster:
        client = cluster.client
        for fields, why in [
            ({"params": {"end": "${event.valu}"}}, "/params/end.*did you mean 'value'"),
            ({"params": {"end": [{False: 1}]}}, r"params\.end\[0\] has the key False.*in quotes"),
            ({"when": "task.id == ''"}, "/when.*unknown name 'task'"),
            ({"graph": typed, "params": {"end": "x"}}, "params.*integer"),
            ({"graph": {"nodes": []}}, "nodes"),
        ]:
            with pytest.raises(GraphError, match=f"(?s){why}"):
                await client.put_trigger(on_end(**fields))
        with pytest.raises(FlowNotFound, match="no flow 'f'"):
            await client.put_trigger(on_end(graph=None, flow="f"))
        for source in ("nats://localhost/orders", "etl"):
            with pytest.raises(TriggerRefused, match="no installed package knows the source"):
                await client.put_trigger(on_end(source=source))
        with pytest.raises(TriggerRefused, match="is a flowkit.Trigger, not dict"):
            await client.put_trigger({"id": "t"})
        await client.put_trigger(on_end(graph=typed))
        for number in range(99):
            await client.put_trigger(on_end(f"t{number}"))
        with pytest.raises(TriggerRefused, match="pipeline 'etl' has 100 triggers"):
            await client.put_trigger(on_end("u"))


async def test_a_damaged_trigger_holds_up_no_other_and_keeps_its_events() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_trigger(on_end())
        await client.put_trigger(on_end("u"))
        (stored,) = (await cluster.store.records.get("trigger", ["t"])).values()
        bad = KeyedRecord("trigger", "t", b"{}", stored.revision)
        assert all(await cluster.store.records.change([RecordChange("x", [bad])]))
        await run(cluster, 1)
        assert (await made(cluster), len(await made(cluster, "u"))) == ([], 1)
        assert [one.key.split("\n")[0] for one in await events(cluster)] == ["t"]
        with pytest.raises(CorruptRecord, match="trigger 't' is damaged"):
            await client.pause_trigger("t")
        assert [one.id for one in await client.list_triggers()] == ["u"]
        await client.delete_trigger("t")
        await run(cluster, 2)
        assert not await events(cluster)


async def test_a_trigger_runs_a_flow_in_its_latest_version_or_in_a_pinned_one() -> None:
    async with Cluster(handlers=[work]) as cluster:
        client = cluster.client
        await client.put_flow("after", flow(1))
        await client.put_trigger(on_end("latest", graph=None, flow="after"))
        await client.put_trigger(on_end("pinned", graph=None, flow="after", version=1))
        await client.put_flow("after", flow(2))
        await run(cluster)
        views = [*await made(cluster, "latest"), *await made(cluster, "pinned")]
    assert [(one.flow, one.version, one.pipeline) for one in views] == [
        ("after", 2, "after"),
        ("after", 1, "after"),
    ]
