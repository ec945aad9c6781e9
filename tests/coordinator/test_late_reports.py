"""A run exceeds no time limit because its reports were delayed by an outage."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import BusUnavailable
from flowkit.protocols import Message
from flowkit.task import TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryBus
from tests.coordinator.test_watching_through_outages import StoreWithOutages

CONFIG = CoordinatorConfig(heartbeat_soft_sec=10, heartbeat_hard_sec=20)


class BusWithOutages(InMemoryBus):
    """A bus that may accept no messages."""

    away = False

    async def publish(self, messages: Sequence[Message]) -> Any:
        if self.away:
            raise BusUnavailable("it is away")
        return await super().publish(messages)


Outage = Callable[[StoreWithOutages, BusWithOutages, bool], None]


def away(store: StoreWithOutages, bus: BusWithOutages, has_begun: bool) -> None:
    store.away = has_begun


def full(store: StoreWithOutages, bus: BusWithOutages, has_begun: bool) -> None:
    store.full = has_begun


def both_away(store: StoreWithOutages, bus: BusWithOutages, has_begun: bool) -> None:
    store.away = bus.away = has_begun


def both_full(store: StoreWithOutages, bus: BusWithOutages, has_begun: bool) -> None:
    """Begin or end an outage of an SQLite file that cannot be changed."""
    store.full = bus.away = has_begun


@handler("beat")
async def beat(seconds: int, ctx: RunContext) -> int:
    for _ in range(seconds):
        await ctx.clock.sleep(1)
        await ctx.heartbeat(None)
    return ctx.attempt


@handler("rest")
async def rest(seconds: int, ctx: RunContext) -> int:
    await ctx.clock.sleep(seconds)
    return ctx.attempt


def graph(role: str, seconds: int, **timeouts: float) -> dict[str, Any]:
    node = {"node_id": "n", "type": role, "io": {"input_inline": seconds}, "timeouts": timeouts}
    return {"nodes": [{**node, "retry_policy": {"max": 0}}]}


async def through(outage: Outage, seconds: int, flow: dict[str, Any]) -> tuple[TaskView, float]:
    """Run a flow through an outage, and return its end, and its time since the outage's end."""
    store, bus = StoreWithOutages(), BusWithOutages()
    async with Cluster(
        store=store,
        bus=bus,
        handlers=[beat, rest],
        coordinator_config=CONFIG,
        worker_config=WorkerConfig(),
    ) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(2)
        outage(store, bus, True)
        await cluster.clock.sleep(seconds)
        outage(store, bus, False)
        ended_at = cluster.clock.now()
        view = await cluster.client.wait(task_id, 300)
        return view, cluster.clock.now() - ended_at


each = pytest.mark.parametrize("outage", [away, full, both_away, both_full])


@each
@pytest.mark.parametrize("seconds", [4, 30, 100])
async def test_heartbeats_during_an_outage_count(outage: Outage, seconds: int) -> None:
    view, _ = await through(outage, seconds, graph("beat", 150, heartbeat_sec=3))
    assert (view.status, view.result) == ("finished", {"n": 1})


@each
async def test_a_run_that_ends_in_time_during_an_outage_succeeds(
    outage: Outage,
) -> None:
    view, _ = await through(outage, 60, graph("rest", 10, start_to_close_sec=15))
    assert (view.status, view.result) == ("finished", {"n": 1})


@each
async def test_a_run_that_is_too_long_fails_soon_after_an_outage(
    outage: Outage,
) -> None:
    view, after_sec = await through(outage, 60, graph("rest", 10_000, start_to_close_sec=15))
    assert view.nodes["n"].reason_code == "start_to_close_timeout"
    assert after_sec < 30


async def test_without_an_outage_a_limit_applies_at_its_time() -> None:
    async with Cluster(handlers=[rest], coordinator_config=CONFIG) as cluster:
        began = cluster.clock.now()
        view = await cluster.run(graph("rest", 10_000, start_to_close_sec=15))
        assert view.nodes["n"].reason_code == "start_to_close_timeout"
        assert cluster.clock.now() - began < 16


async def test_heartbeats_count_that_were_sent_while_no_coordinator_ran() -> None:
    async with Cluster(
        handlers=[beat, rest], coordinator_config=CONFIG, worker_config=WorkerConfig()
    ) as cluster:
        flow = graph("beat", 90, heartbeat_sec=3)
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(2)
        await cluster.coordinators.pop().stop()
        await cluster.clock.sleep(60)
        await cluster.add_coordinator(CONFIG)
        view = await cluster.client.wait(task_id, 300)
    assert (view.status, view.result) == ("finished", {"n": 1})


class UnreadBus(InMemoryBus):
    """A bus that says that some messages were not read."""

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        return {0: (0, 5)}


async def test_a_limit_applies_although_a_report_cannot_be_read_for_long() -> None:
    async with Cluster(
        bus=UnreadBus(), handlers=[rest], coordinator_config=CONFIG, worker_config=WorkerConfig()
    ) as cluster:
        began = cluster.clock.now()
        view = await cluster.run(graph("rest", 10_000, start_to_close_sec=15))
        took = cluster.clock.now() - began
    assert view.nodes["n"].reason_code == "start_to_close_timeout"
    assert 15 + CONFIG.heartbeat_hard_sec <= took < 60
