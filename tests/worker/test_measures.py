"""Measures that plugins observe."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from flowkit import Schedule
from flowkit._dead_letters.unusable_messages import Parking
from flowkit.measures import MEASURES, Measure
from flowkit.plugins import Plugins
from flowkit.protocols import Commit, Delivery, Message
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster, InMemoryStore, ManualClock
from tests.builders import ONE, TWO, graph, node, pages, plugin, pull, work

PULL = "pull.from_artifacts"


class Seen:
    """Plugin that keeps all measures."""

    def __init__(self) -> None:
        self.measures: list[Measure] = []

    def flowkit_measured(self, measures: Sequence[Measure]) -> None:
        self.measures += measures

    def of(self, name: str, **labels: str) -> list[float]:
        return [
            one.value
            for one in self.measures
            if one.name == name and labels.items() <= one.labels.items()
        ]


async def test_the_statuses_of_a_task_and_its_nodes_are_counted() -> None:
    seen = Seen()
    async with Cluster(handlers=[work], plugins=[seen]) as cluster:
        task_id = await cluster.client.create_task(graph=TWO, pipeline="shop")
        await cluster.client.wait(task_id)
    changes = {
        (one.labels["pipeline"], one.labels["status"])
        for one in seen.measures
        if one.name == "task_changes"
    }
    assert changes == {("shop", "queued"), ("shop", "running"), ("shop", "finished")}
    assert sum(seen.of("node_changes", role="work", status="finished")) == 2
    assert seen.of("node_changes", status="queued") == []
    assert len(seen.of("task_sec", status="finished")) == 1


async def test_each_measure_has_a_known_name_and_the_labels_of_its_name() -> None:
    seen = Seen()
    async with Cluster(handlers=[work], plugins=[seen]) as cluster:
        await cluster.run(TWO)
    assert {"commit_sec", "commits", "attempt_sec"} <= {one.name for one in seen.measures}
    for one in seen.measures:
        assert set(one.labels) == set(MEASURES[one.name].labels), one
        for label, values in MEASURES[one.name].values.items():
            assert one.labels[label] in values


async def test_the_time_of_an_attempt_and_of_its_wait_for_a_worker_are_measured() -> None:
    seen = Seen()

    @handler("work")
    async def slow(item: Any, ctx: RunContext) -> None:
        await ctx.clock.sleep(5)
        if ctx.attempt == 1:
            raise OSError("once")

    flow = graph(node("a", retry_policy={"max": 1}))
    async with Cluster(handlers=[slow], plugins=[seen]) as cluster:
        assert (await cluster.run(flow)).status == "finished"
    (failed,) = seen.of("attempt_sec", role="work", outcome="failed")
    (succeeded,) = seen.of("attempt_sec", role="work", outcome="succeeded")
    assert 5 <= failed < 6
    assert 5 <= succeeded < 6
    assert len(seen.of("queue_sec", role="work")) == 2


async def test_a_change_counts_when_it_is_committed_and_not_when_it_is_refused() -> None:
    seen = Seen()

    class Refusing(InMemoryStore):
        refused = 0

        async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
            if self.refused < 2:
                self.refused += 1
                return [False for _ in commits]
            return await super().commit(commits)

    async with Cluster(handlers=[work], plugins=[seen], store=Refusing()) as cluster:
        assert (await cluster.run(ONE)).status == "finished"
    assert sum(seen.of("commits", outcome="refused")) == 2
    assert sum(seen.of("node_changes", status="finished")) == 1
    assert sum(seen.of("task_changes", status="finished")) == 1


async def test_a_node_that_a_pause_holds_back_counts_as_paused() -> None:
    seen, began, free = Seen(), asyncio.Event(), asyncio.Event()

    @handler("first")
    async def first(item: Any) -> None:
        began.set()
        await free.wait()

    async with Cluster(handlers=[first, work], plugins=[seen]) as cluster:
        flow = graph(node("a", "first"), node("b", "work", "a"))
        task_id = await cluster.client.create_task(graph=flow)
        await began.wait()
        await cluster.client.pause(task_id)
        free.set()
        async for event in cluster.client.watch(task_id):
            if event.node_id == "a" and event.status == "finished":
                await cluster.client.resume(task_id)
    assert seen.of("node_changes", status="paused", role="work") == [1]
    assert seen.of("node_changes", status="finished", role="work") == [1]


async def test_the_lag_of_a_stream_is_measured_while_its_producer_runs() -> None:
    seen, read = Seen(), asyncio.Event()

    @handler("produce")
    async def produce(item: Any) -> AsyncIterator[dict[str, int]]:
        yield {"number": 1}
        await read.wait()

    @handler("consume")
    async def consume(item: Any) -> None:
        read.set()

    flow = graph(node("a", "produce"), pull("b", "consume", "a"))
    async with Cluster(handlers=[produce, consume], plugins=[seen]) as cluster:
        await cluster.run(flow)
    (lag_sec,) = seen.of("stream_lag_sec", role="consume")
    assert 0 <= lag_sec < 60


async def test_the_artifacts_of_a_node_that_has_ended_have_no_lag() -> None:
    seen = Seen()

    @handler("consume")
    async def consume(item: Any) -> None:
        pass

    reads = node("b", "consume", "a", io={"input_inline": {"input_adapter": PULL}})
    async with Cluster(handlers=[pages, consume], plugins=[seen]) as cluster:
        flow = graph(node("a", "pages", io={"input_inline": 2}), reads)
        assert (await cluster.run(flow)).status == "finished"
    assert seen.of("stream_lag_sec") == []


async def test_a_message_that_cannot_be_used_is_counted_once_it_is_kept() -> None:
    seen, delivery = Seen(), Delivery(Message("t", b"\xff"), 0, 0)
    async with ManualClock().auto() as clock:
        parking = Parking(store=InMemoryStore(), clock=clock, plugins=Plugins([seen]))
        await parking.keep([(delivery, "no")])
    assert seen.of("dead_letters", kind="message") == [1]


async def test_dead_letters_are_counted_by_their_kind() -> None:
    seen = Seen()

    @handler("work")
    async def fail(item: Any) -> None:
        raise ValueError("wrong")

    class Picky(Handler):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            for uid in ("good", "bad"):
                yield Batch(uid, {})

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=batch.batch_uid == "good", permanent=True)

    flow = graph(node("a"), node("b", "picky", on_batch_failure="skip"), on_node_failure="continue")
    async with Cluster(handlers={"work": fail, "picky": Picky}, plugins=[seen]) as cluster:
        await cluster.run(flow)
    assert seen.of("dead_letters", kind="node") == [1]
    assert seen.of("dead_letters", kind="batch") == [1]


async def test_a_task_of_a_schedule_is_measured_with_its_lateness() -> None:
    seen = Seen()
    async with Cluster(handlers=[work], plugins=[seen]) as cluster:
        await cluster.client.put_schedule(Schedule("hourly", every_sec=3600, graph=ONE))
        await cluster.clock.sleep(3700)
        await cluster.client.delete_schedule("hourly")
    assert seen.of("schedule_late_sec")
    assert all(0 <= late < 60 for late in seen.of("schedule_late_sec"))


async def test_a_plugin_that_fails_to_observe_measures_stops_no_work() -> None:
    def leave(measures: Any) -> None:
        raise asyncio.CancelledError

    async with Cluster(
        handlers=[work], plugins=[plugin("leaver", flowkit_measured=leave)]
    ) as cluster:
        assert (await cluster.run(TWO)).status == "finished"
