"""Concurrency keys of nodes, in the whole namespace."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from flowkit import CoordinatorConfig
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit.task import NodeStatus, TaskStatus, TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.hooked_store import HookedStore


def keyed(*names: str, key: str = "k", **concurrency: Any) -> dict[str, Any]:
    """Return a graph of nodes that share a key."""
    return {
        "nodes": [
            {"node_id": name, "type": "work", "concurrency": {"key": key, **concurrency}}
            for name in names
        ]
    }


class Ledger:
    """Record of the runs of a handler: how many at a time, and in which order they began."""

    def __init__(self, seconds: float = 10.0) -> None:
        self.now = 0
        self.most = 0
        self.order: list[str] = []
        self._seconds = seconds

    @property
    def handlers(self) -> Mapping[str, Any]:
        async def work(item: Any, ctx: RunContext) -> None:
            self.now += 1
            self.most = max(self.most, self.now)
            self.order.append(ctx.node_id)
            try:
                await ctx.clock.sleep(self._seconds)
            finally:
                self.now -= 1

        return {"work": handler("work")(work)}


DAY = 24 * 3600.0
KINDS = {"key_queue": "concurrency", "rate_queue": "rate_limit", "cache_queue": "cache"}


OF_EACH_KIND = pytest.mark.parametrize(
    "place",
    [
        {"concurrency": {"key": "k"}},
        {"rate_limit": {"key": "k", "limit": 1, "per_sec": 20}},
        {"cache": {"key": "k", "ttl_sec": 60}},
    ],
)


class DamagedStore(HookedStore):
    """Store that cannot read the damaged records, if there is a ``fault``."""

    def __init__(self, fault: str | None) -> None:
        super().__init__()
        self._fault = fault

    def seen(self, record: KeyedRecord) -> KeyedRecord:
        if record.data != b"damaged" or self._fault is None:
            return record
        return replace(record, data=b"", revision="?", fault=self._fault)


async def finish(cluster: Cluster, *task_ids: str) -> list[TaskView]:
    return [await cluster.client.wait(task_id, 10_000) for task_id in task_ids]


@pytest.mark.parametrize("limit", [1, 2])
async def test_at_most_limit_nodes_of_all_tasks_run_at_a_time(limit: int) -> None:
    ledger = Ledger()
    async with Cluster(coordinators=2, workers=2, handlers=[ledger.handlers["work"]]) as cluster:
        ids = [
            await cluster.client.create_task(graph=keyed("a", "b", limit=limit)) for _ in range(3)
        ]
        views = await finish(cluster, *ids)
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert (len(ledger.order), ledger.most) == (6, limit)
    assert not await cluster.store.records.scan("key")
    assert not await cluster.store.records.scan("key_queue")


async def test_places_are_given_by_priority_and_then_in_the_order_of_asking() -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        ids = []
        for name, priority in (("first", 0), ("second", 0), ("third", 0), ("urgent", 5)):
            ids.append(await cluster.client.create_task(graph=keyed(name), priority=priority))
            await cluster.clock.sleep(1)
        await finish(cluster, *ids)
    assert ledger.order == ["first", "urgent", "second", "third"]


@pytest.mark.parametrize(
    ("on_conflict", "status"), [("skip", NodeStatus.SKIPPED), ("fail", NodeStatus.FAILED)]
)
async def test_a_node_that_does_not_wait_for_its_key_is_skipped_or_fails(
    on_conflict: str, status: NodeStatus
) -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        holder = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        view = await cluster.run(keyed("b", on_conflict=on_conflict))
        sentence = await cluster.client.explain(view.id, "b")
        await finish(cluster, holder)
        again = await cluster.run(keyed("c", on_conflict=on_conflict))
    assert (view.nodes["b"].status, view.nodes["b"].reason_code) == (status, "key_busy")
    assert "key 'k'" in sentence
    assert again.nodes["c"].status is NodeStatus.FINISHED
    assert ledger.order == ["a", "c"]


async def test_a_node_that_waits_for_a_key_is_deferred_and_tells_who_holds_it() -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        holder = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        between = await cluster.client.create_task(graph=keyed("b"))
        await cluster.clock.sleep(1)
        last = await cluster.client.create_task(graph=keyed("c"))
        await cluster.clock.sleep(1)
        view = await cluster.client.get_task(last)
        sentence = await cluster.client.explain(last, "c")
        listed = await cluster.client.list_tasks(waiting="key")
        await finish(cluster, holder, between, last)
    assert (view.status, view.nodes["c"].status) == (TaskStatus.DEFERRED, NodeStatus.DEFERRED)
    assert (view.nodes["c"].waiting, view.nodes["c"].attempt) == ("key", 0)
    assert [item.id for item in listed.items] == [last, between]
    assert sentence == (
        f"'c' waits for key 'k' (limit 1), held by node 'a' of task {holder!r} since 2026-01-01"
        " 00:00:00 UTC; 1 is ahead."
    )


@pytest.mark.parametrize(
    ("kind", "place", "name"),
    [
        ("key", {"concurrency": {"key": "k"}}, "key 'k' (limit 1)"),
        ("rate", {"rate_limit": {"key": "k", "limit": 3, "per_sec": 9}}, "rate 'k' (3 in 9 s)"),
        ("cache", {"cache": {"key": "k", "ttl_sec": 60}}, "the result for its cache key"),
    ],
)
async def test_explain_names_a_damaged_record_and_the_node_goes_on_when_it_is_deleted(
    kind: str, place: Mapping[str, Any], name: str
) -> None:
    ledger = Ledger()
    flow = {"nodes": [{"node_id": "a", "type": "work", **place}]}
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        records = cluster.store.records
        await finish(cluster, await cluster.client.create_task(graph=flow))
        await cluster.clock.sleep(1)
        stored = await records.scan(kind)
        key = stored[0].key if stored else "k"
        if stored:
            assert await records.change([RecordChange("gone", delete=[RecordDeletion(kind, key)])])
        damaged = KeyedRecord(kind, key, b"x")
        assert await records.change([RecordChange("damage", [damaged])]) == [True]
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(60)
        said = await cluster.client.explain(task_id, "a")
        assert await records.change([RecordChange("repair", delete=[RecordDeletion(kind, key)])])
        (view,) = await finish(cluster, task_id)
    assert view.status is TaskStatus.FINISHED
    why = f"the record of {kind} {key!r} cannot be read: Invalid JSON: "
    assert said.startswith(f"'a' asks for {name}: {why}")
    assert said.endswith("; restore it from a backup, or delete it.")


@OF_EACH_KIND
async def test_nodes_in_a_queue_go_on_after_the_damaged_record_of_its_key_is_deleted(
    place: Mapping[str, Any],
) -> None:
    ledger = Ledger()
    (kind,) = (name.removesuffix("_queue") for name, of in KINDS.items() if of in place)
    config = CoordinatorConfig(scheduler_tick_sec=60, heartbeat_hard_sec=DAY, lease_ttl_sec=DAY)
    async with Cluster(handlers=[ledger.handlers["work"]], coordinator_config=config) as cluster:
        records = cluster.store.records
        ids = []
        for name in "abcd":
            flow = {"nodes": [{"node_id": name, "type": "work", **place}]}
            ids.append(await cluster.client.create_task(graph=flow))
            await cluster.clock.sleep(1)
        (record,) = await records.scan(kind)
        damaged = replace(record, data=b"x")
        assert await records.change([RecordChange("damage", [damaged])]) == [True]
        await cluster.clock.sleep(60)
        deletion = RecordDeletion(kind, record.key)
        assert await records.change([RecordChange("repair", delete=[deletion])]) == [True]
        views = [await cluster.client.wait(task_id, 700) for task_id in ids]
        await cluster.clock.sleep(100)
        assert not await records.scan(f"{kind}_queue")
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert (ledger.most, sorted(ledger.order)[:1]) == (1, ["a"])


@OF_EACH_KIND
@pytest.mark.parametrize("fault", [None, "its bytes are gone"])
async def test_damaged_records_in_a_queue_are_repaired_from_their_tasks(
    place: Mapping[str, Any], fault: str | None
) -> None:
    ledger, store = Ledger(), DamagedStore(fault)
    (kind,) = (name for name, of in KINDS.items() if of in place)
    async with Cluster(store=store, handlers=[ledger.handlers["work"]]) as cluster:
        ids = []
        for name in "abcdefg":
            flow = {"nodes": [{"node_id": name, "type": "work", **place}]}
            ids.append(await cluster.client.create_task(graph=flow))
            await cluster.clock.sleep(1)
        queued = await store.records.scan(kind)
        assert len(queued) == 6
        first = KeyedRecord(kind, f"{queued[0].key.partition('-')[0]}-0", b"", task_id="gone")
        for record in (first, *queued[:-1]):
            damaged = replace(record, data=b"damaged")
            assert await store.records.change([RecordChange(record.key, [damaged])]) == [True]
        views = await finish(cluster, *ids)
        await cluster.clock.sleep(100)
        assert not await store.records.scan(kind)
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert ledger.order == (["a"] if "cache" in place else [*"abcdefg"])


async def test_a_node_gives_its_key_back_between_two_attempts() -> None:
    order: list[str] = []

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        order.append(f"{ctx.node_id}{ctx.attempt}")
        await ctx.clock.sleep(5)
        if ctx.node_id == "a" and ctx.attempt == 1:
            raise RuntimeError("not yet")

    async with Cluster(handlers=[work]) as cluster:
        first = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=keyed("b"))
        views = await finish(cluster, first, second)
    assert order == ["a1", "b1", "a2"]
    assert {view.status for view in views} == {TaskStatus.FINISHED}


async def test_the_nodes_of_a_sub_flow_share_the_key_of_its_node() -> None:
    ledger = Ledger()
    inner = {"type": "subflow", "io": {"graph": keyed("x", "y")}, "node_id": "s"}
    outer = {
        "nodes": [{"node_id": "t", "type": "subflow", "io": {"graph": {"nodes": [inner]}}}],
    }
    outer["nodes"][0]["concurrency_key"] = "k"
    async with Cluster(coordinators=2, handlers=[ledger.handlers["work"]]) as cluster:
        ids = [await cluster.client.create_task(graph=outer) for _ in range(2)]
        views = await finish(cluster, *ids)
        await cluster.clock.sleep(1)
        left = await cluster.store.records.scan("key")
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert (len(ledger.order), ledger.most, left) == (4, 2, [])


@pytest.mark.parametrize("holds", [True, False])
async def test_a_task_that_a_client_cancels_gives_its_key_back_at_once(holds: bool) -> None:
    ledger = Ledger(1_000.0)
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=keyed("b"))
        await cluster.clock.sleep(1)
        await cluster.client.cancel(first if holds else second)
        await cluster.clock.sleep(15)
        third = await cluster.client.create_task(graph=keyed("c"))
        await cluster.client.cancel(second if holds else first)
        await cluster.clock.sleep(20)
        assert ledger.order == (["a", "b", "c"] if holds else ["a", "c"])
        await cluster.client.cancel(third)
        await finish(cluster, first, second, third)
        await cluster.clock.sleep(1)
        assert not await cluster.store.records.scan("key")
        assert not await cluster.store.records.scan("key_queue")


async def test_a_paused_task_takes_no_place_and_keeps_its_rank() -> None:
    ledger = Ledger()
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        paused = await cluster.client.create_task(graph=keyed("b"))
        await cluster.clock.sleep(1)
        third = await cluster.client.create_task(graph=keyed("c"))
        await cluster.clock.sleep(1)
        fourth = await cluster.client.create_task(graph=keyed("d"))
        await cluster.client.pause(paused)
        await cluster.clock.sleep(10)
        assert ledger.order == ["a", "c"]
        await cluster.client.resume(paused)
        await finish(cluster, first, paused, third, fourth)
    assert ledger.order == ["a", "c", "b", "d"]


async def test_nodes_that_wait_for_keys_leave_the_places_of_max_parallel_to_others() -> None:
    ledger = Ledger()
    graph = keyed("b", "c") | {"max_parallel": 1}
    graph["nodes"].append({"node_id": "free", "type": "work"})
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=graph)
        await finish(cluster, first, second)
    assert ledger.order[:2] == ["a", "free"]
    assert sorted(ledger.order[2:]) == ["b", "c"]
    assert ledger.most == 2


async def test_each_child_of_a_map_takes_a_place() -> None:
    ledger = Ledger()
    graph = keyed("m", limit=2)
    graph["nodes"][0]["map"] = {"over": list(range(5))}
    async with Cluster(handlers=[ledger.handlers["work"]]) as cluster:
        view = await cluster.run(graph)
    assert (view.status, len(ledger.order), ledger.most) == (TaskStatus.FINISHED, 5, 2)


async def test_nodes_of_one_task_get_their_places_in_the_order_of_the_graph() -> None:
    ledger = Ledger()
    names = [f"n{number}" for number in range(25)]
    async with Cluster(handlers=ledger.handlers) as cluster:
        assert (await cluster.run(keyed(*names))).status == TaskStatus.FINISHED
    assert ledger.order == names


async def test_nodes_without_a_key_start_while_many_of_the_task_wait_for_one() -> None:
    ledger = Ledger(3600)
    names = [f"n{number}" for number in range(1_600)]
    flow = keyed(*names)
    flow["nodes"] += [{"node_id": "free", "type": "quick"}]

    @handler("quick")
    async def quick(item: Any) -> None: ...

    async with Cluster(handlers=[ledger.handlers["work"], quick]) as cluster:
        client = cluster.client
        holder = await client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        task_id = await client.create_task(graph=flow)
        await cluster.clock.sleep(60)
        nodes = (await client.get_task(task_id)).nodes
        assert nodes["free"].status == NodeStatus.FINISHED
        assert (nodes["n0"].waiting, nodes["n1599"].waiting) == ("key", None)
        await client.cancel(holder)
        await cluster.clock.sleep(3 * 3600)
        assert ledger.order[:4] == ["a", "n0", "n1", "n2"]
        await client.cancel(task_id)
        assert (await client.wait(task_id)).status == TaskStatus.CANCELLED
