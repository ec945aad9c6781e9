"""Rates of nodes, in the whole namespace."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from flowkit.config import CoordinatorConfig
from flowkit.task import NodeStatus, TaskStatus
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryBus
from flowkit_testing._cluster import UNHURRIED_COORDINATOR
from tests.keys.test_nodes_with_keys import finish


def rated(
    *names: str, key: str = "mail", limit: int = 2, per_sec: float = 60.0, **fields: Any
) -> dict[str, Any]:
    """Return a graph of nodes that share a rate."""
    rate = {"key": key, "limit": limit, "per_sec": per_sec}
    return {
        "nodes": [{"node_id": name, "type": "work", "rate_limit": rate, **fields} for name in names]
    }


class Begins:
    """Record of the attempts that began, by the clock of the machine."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.order: list[str] = []
        self.times: list[float] = []
        self._seconds = seconds

    @property
    def handlers(self) -> Mapping[str, Any]:
        async def work(item: Any, ctx: RunContext) -> int:
            self.order.append(ctx.node_id)
            self.times.append(ctx.clock.monotonic())
            await ctx.clock.sleep(self._seconds)
            return ctx.attempt

        return {"work": handler("work")(work)}

    def most_in(self, seconds: float) -> int:
        """Return the most attempts that began in a window of this length."""
        return most_in(self.times, seconds)


def most_in(times: Sequence[float], seconds: float) -> int:
    return max(sum(begin <= time < begin + seconds for time in times) for begin in times)


async def test_at_most_limit_attempts_of_all_tasks_begin_in_a_window() -> None:
    begins = Begins()
    async with Cluster(coordinators=2, workers=2, handlers=[begins.handlers["work"]]) as cluster:
        ids = [await cluster.client.create_task(graph=rated("a", "b")) for _ in range(3)]
        views = await finish(cluster, *ids)
        first, last = min(begins.times), max(begins.times)
        await cluster.clock.sleep(70)
        assert not await cluster.store.records.scan("rate")
        assert not await cluster.store.records.scan("rate_queue")
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert (len(begins.order), begins.most_in(60.0)) == (6, 2)
    assert 120.0 <= last - first < 121.0


async def test_a_place_of_a_rate_comes_back_without_delay() -> None:
    begins = Begins(seconds=10.0)
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        await cluster.run(rated(*"abcdef", limit=2, per_sec=1.0))
    assert begins.most_in(1.0) == 2
    assert max(begins.times) - min(begins.times) < 2.5


async def test_places_are_given_by_priority_and_then_in_the_order_of_asking() -> None:
    begins = Begins()
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        ids = []
        for name, priority in (("first", 0), ("second", 0), ("third", 0), ("urgent", 5)):
            graph = rated(name, limit=1)
            ids.append(await cluster.client.create_task(graph=graph, priority=priority))
            await cluster.clock.sleep(1)
        await finish(cluster, *ids)
    assert begins.order == ["first", "urgent", "second", "third"]


async def test_a_node_that_waits_for_a_rate_is_deferred_and_tells_how_long() -> None:
    begins = Begins()
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        ids = []
        for _ in range(3):
            ids.append(await cluster.client.create_task(graph=rated("a", limit=1)))
            await cluster.clock.sleep(5)
        view = await cluster.client.get_task(ids[2])
        sentence = await cluster.client.explain(ids[2], "a")
        listed = await cluster.client.list_tasks(waiting="rate")
        await finish(cluster, *ids)
    assert (view.status, view.nodes["a"].status) == (TaskStatus.DEFERRED, NodeStatus.DEFERRED)
    assert (view.nodes["a"].waiting, view.nodes["a"].attempt) == ("rate", 0)
    assert [item.id for item in listed.items] == [ids[2], ids[1]]
    assert sentence == ("'a' waits for rate 'mail' (1 in 60 s); 1 is ahead, about 0:01:45 is left.")


async def test_each_attempt_takes_a_place() -> None:
    times: list[float] = []

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        times.append(ctx.clock.monotonic())
        if ctx.attempt < 3:
            raise RuntimeError("not yet")

    retry = {"retry_policy": {"max": 2, "backoff_sec": 1}}
    async with Cluster(handlers=[work]) as cluster:
        view = await cluster.run(rated("a", limit=1, **retry))
    assert (view.status, view.nodes["a"].attempt) == (TaskStatus.FINISHED, 3)
    assert most_in(times, 60.0) == 1


async def test_a_command_that_no_worker_starts_in_time_is_withdrawn_and_costs_no_attempt() -> None:
    begins = Begins()
    async with Cluster(workers=0) as cluster:
        task_id = await cluster.client.create_task(graph=rated("a", limit=1))
        await cluster.clock.sleep(20)
        assert not begins.order
        await cluster.add_worker(begins.handlers)
        (view,) = await finish(cluster, task_id)
    assert (view.nodes["a"].attempt, view.nodes["a"].result, begins.order) == (1, 1, ["a"])


async def test_a_role_without_workers_leaves_the_rate_to_others() -> None:
    begins = Begins()
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        stuck = rated(*(f"s{number}" for number in range(5)), limit=1, type="unserved")
        stuck_id = await cluster.client.create_task(graph=stuck)
        await cluster.clock.sleep(1)
        view = await cluster.run(rated("a", limit=1))
        assert view.status is TaskStatus.FINISHED
        await cluster.client.cancel(stuck_id)
        await finish(cluster, stuck_id)


async def test_a_node_with_a_key_and_a_rate_takes_the_key_first() -> None:
    begins = Begins(seconds=100.0)
    both = {"concurrency_key": "k"}
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(graph=rated("a", **both))
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=rated("b", **both))
        await cluster.clock.sleep(1)
        view = await cluster.client.get_task(second)
        assert view.nodes["b"].waiting == "key"
        third = await cluster.client.create_task(graph=rated("c"))
        views = await finish(cluster, first, second, third)
    assert begins.order == ["a", "c", "b"]
    assert {view.status for view in views} == {TaskStatus.FINISHED}


async def test_a_paused_task_uses_no_place_and_keeps_its_rank() -> None:
    begins = Begins()
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        first = await cluster.client.create_task(graph=rated("a", limit=1))
        await cluster.clock.sleep(1)
        paused = await cluster.client.create_task(graph=rated("b", limit=1))
        await cluster.clock.sleep(1)
        third = await cluster.client.create_task(graph=rated("c", limit=1))
        await cluster.clock.sleep(1)
        fourth = await cluster.client.create_task(graph=rated("d", limit=1))
        await cluster.client.pause(paused)
        await cluster.clock.sleep(65)
        assert begins.order == ["a", "c"]
        await cluster.client.resume(paused)
        await finish(cluster, first, paused, third, fourth)
    assert begins.order == ["a", "c", "b", "d"]


@pytest.mark.parametrize("waits", [True, False])
async def test_a_cancelled_node_leaves_its_place_to_the_next(waits: bool) -> None:
    begins = Begins(seconds=1_000.0)
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        ids = []
        for _ in range(3):
            ids.append(await cluster.client.create_task(graph=rated("a", limit=1)))
            await cluster.clock.sleep(1)
        await cluster.client.cancel(ids[1 if waits else 0])
        await cluster.clock.sleep(61 if waits else 121)
        assert len(begins.order) == (2 if waits else 3)
        for task_id in ids:
            await cluster.client.cancel(task_id)
        await finish(cluster, *ids)
    assert begins.most_in(60.0) == 1


async def test_each_child_of_a_map_takes_a_place() -> None:
    begins = Begins()
    graph = rated("m", map={"over": list(range(5))})
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        view = await cluster.run(graph)
    assert (view.status, len(begins.order)) == (TaskStatus.FINISHED, 5)
    assert begins.most_in(60.0) == 2


async def test_another_coordinator_takes_over_the_queue_of_one_that_stops() -> None:
    begins = Begins()
    work, config = [begins.handlers["work"]], CoordinatorConfig(scheduler_tick_sec=5)
    async with Cluster(coordinators=2, handlers=work, coordinator_config=config) as cluster:
        ids = [await cluster.client.create_task(graph=rated("a", limit=1)) for _ in range(4)]
        await cluster.clock.sleep(10)
        await cluster.coordinators[0].stop()
        views = await finish(cluster, *ids)
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert (len(begins.order), begins.most_in(60.0)) == (4, 1)


async def test_a_coordinator_that_starts_waits_for_one_window_at_most() -> None:
    begins = Begins()
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        task_id = await cluster.client.create_task(graph=rated("a", "b", limit=1, per_sec=10.0))
        await cluster.clock.sleep(5)
        await cluster.coordinators[0].stop()
        stopped_at = cluster.clock.monotonic()
        await cluster.add_coordinator()
        (view,) = await finish(cluster, task_id)
    assert (view.status, begins.most_in(10.0)) == (TaskStatus.FINISHED, 1)
    assert begins.times[1] - stopped_at <= 10.1


@pytest.mark.parametrize("stopped", [0, 1])
async def test_another_coordinator_gives_the_places_that_become_free(stopped: int) -> None:
    begins = Begins()
    async with Cluster(
        coordinators=2,
        handlers=[begins.handlers["work"]],
        bus=InMemoryBus(partitions=1),  # One coordinator handles the task, and times its rate.
        coordinator_config=UNHURRIED_COORDINATOR.model_copy(update={"scheduler_tick_sec": 2.0}),
    ) as cluster:
        graph = rated("a", "b", limit=1, per_sec=10.0)
        task_id = await cluster.client.create_task(graph=graph)
        await cluster.clock.sleep(5)
        await cluster.coordinators[stopped].stop()
        (view,) = await finish(cluster, task_id)
    first, second = begins.times
    assert view.status is TaskStatus.FINISHED
    assert 10 <= second - first <= 10 + 2 + 10.1


async def test_the_name_of_a_rate_may_be_computed() -> None:
    begins = Begins()
    graph = rated("m", key="${'to-' + item}", limit=1, map={"over": ["a", "b", "a"]})
    async with Cluster(handlers=[begins.handlers["work"]]) as cluster:
        view = await cluster.run(graph)
        failed = await cluster.run(rated("a", key="${vars.none}"))
    first, second, third = sorted(begins.times)
    assert view.status is TaskStatus.FINISHED
    assert (second - first < 1, third - first >= 60) == (True, True)
    assert failed.nodes["a"].reason_code == "bad_expression"
    assert (failed.nodes["a"].error or "").startswith("/rate_limit/key: 'vars.none' cannot be")
