"""Flow control of streams: ``io.max_ahead``."""

from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import NodeFailure
from flowkit.protocols import Message, Place
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import DAY, die, ended, graph, node

QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2, heartbeat_hard_sec=4, lease_ttl_sec=4, scheduler_tick_sec=2
)
LIVELY = WorkerConfig(hb_interval_sec=1, pull_poll_ms_default=200, cancel_grace_sec=2)


class Streams:
    """A producer ``p`` and a slow reader ``c``, and the most that the producer was ahead."""

    def __init__(self, seconds: float = 1.0, pause: float = 0.0) -> None:
        self.seconds, self.pause = seconds, pause
        self.produced = self.read = self.most = 0
        self.produced_at: list[float] = []

    def handlers(self) -> dict[str, Any]:
        @handler("p")
        async def produce(item: int, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
            for number in range(item):
                if self.pause:
                    await ctx.clock.sleep(self.pause)
                self.produced = max(self.produced, number + 1)
                self.produced_at.append(ctx.clock.monotonic())
                self.most = max(self.most, self.produced - self.read)
                yield {"n": number}

        return {"p": produce, "c": self.consume}

    async def consume(self, item: dict[str, int], ctx: RunContext) -> dict[str, int]:
        await ctx.clock.sleep(self.seconds)
        self.read = max(self.read, item["n"] + 1)
        return item


def reader(max_ahead: int | None, **fields: Any) -> dict[str, Any]:
    io = {"start_when": "first_batch"} | ({} if max_ahead is None else {"max_ahead": max_ahead})
    return node("c", "c", "p", **{"io": io} | fields)


def stream(count: int, max_ahead: int | None, **fields: Any) -> dict[str, Any]:
    return graph(node("p", "p", io={"input_inline": count}), reader(max_ahead, **fields))


@pytest.mark.parametrize("max_ahead", [1, 2, 10, 40])
async def test_a_producer_waits_for_a_reader_that_is_too_far_behind(
    flowkit_cluster: Cluster, max_ahead: int
) -> None:
    streams = Streams()
    view = await flowkit_cluster.run(
        stream(100, max_ahead), handlers=streams.handlers(), timeout=DAY
    )
    assert (view.status, streams.read) == ("finished", 100)
    assert streams.most == max_ahead


async def test_without_max_ahead_a_producer_is_a_thousand_batches_ahead(
    flowkit_cluster: Cluster,
) -> None:
    streams = Streams(0.01)
    view = await flowkit_cluster.run(stream(3000, None), handlers=streams.handlers(), timeout=DAY)
    assert view.status == "finished"
    assert streams.most == 1000


@pytest.mark.parametrize("shards", [None, 2])
async def test_a_producer_waits_for_a_reader_that_begins_soon(
    flowkit_cluster: Cluster, shards: int | None
) -> None:
    streams = Streams(0.01)
    await flowkit_cluster.add_worker({"p": streams.handlers()["p"]})
    io = {"start_when": "first_batch", "max_ahead": 10}
    document = stream(100, None, io=io if shards is None else io | {"shards": shards})
    task_id = await flowkit_cluster.client.create_task(graph=document)
    await flowkit_cluster.clock.sleep(1.5)
    assert streams.produced == 10
    await flowkit_cluster.add_worker({"c": streams.consume})
    before = flowkit_cluster.clock.monotonic()
    assert (await ended(flowkit_cluster, task_id)).status == "finished"
    assert flowkit_cluster.clock.monotonic() - before < 5
    assert streams.most <= 10 + (shards or 0)


async def test_a_reader_that_does_not_begin_holds_up_no_producer_for_long(
    flowkit_cluster: Cluster,
) -> None:
    streams = Streams()
    await flowkit_cluster.add_worker({"p": streams.handlers()["p"]})
    task_id = await flowkit_cluster.client.create_task(graph=stream(100, 1))
    await flowkit_cluster.clock.sleep(1.5)
    assert streams.produced == 1
    await flowkit_cluster.clock.sleep(1)
    assert streams.produced == 100
    await flowkit_cluster.add_worker({"c": streams.consume})
    assert (await ended(flowkit_cluster, task_id)).status == "finished"


PULL = "pull.from_artifacts"


@pytest.mark.parametrize(
    ("whole", "fields"),
    [
        pytest.param({}, {"depends_on": ["p", "late"]}, id="it waits for another node"),
        pytest.param({}, {"when": "params.x"}, id="it has a condition"),
        pytest.param({}, {"concurrency_key": "k"}, id="it needs a place of a key"),
        pytest.param(
            {}, {"rate_limit": {"key": "k", "limit": 1, "per_sec": 60}}, id="it has a rate"
        ),
        pytest.param({"max_parallel": 2}, {}, id="the graph limits what runs"),
        pytest.param(
            {},
            {
                "depends_on": ["p", "q"],
                "input_inline": {"input_adapter": PULL, "input_args": {"from_node": "q"}},
            },
            id="it reads another node",
        ),
    ],
)
async def test_a_reader_that_may_begin_late_holds_up_no_producer(
    flowkit_cluster: Cluster, whole: dict[str, Any], fields: dict[str, Any]
) -> None:
    streams = Streams()
    handlers = streams.handlers()
    await flowkit_cluster.add_worker({"p": handlers["p"]})
    reads = {"input_inline": fields.pop("input_inline")} if "input_inline" in fields else {}
    edges = [{"from": "p", "to": "c", "trigger": "on_batch"}]
    if "q" in fields.get("depends_on", ()):
        edges.append({"from": "q", "to": "c", "trigger": "on_batch"})
    document = graph(
        node("p", "p", io={"input_inline": 100}),
        node("q", "q"),
        node("late", "late"),
        node("c", "c", **{"depends_on": ["p"], "io": {"max_ahead": 1} | reads} | fields),
    )
    document |= {"edges": edges} | whole
    await flowkit_cluster.client.create_task(graph=document, params={"x": True})
    await flowkit_cluster.clock.sleep(1)
    assert streams.produced == 100


async def test_the_next_attempt_of_a_producer_is_not_too_far_ahead_either() -> None:
    streams = Streams(pause=0.01)
    async with Cluster(coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        await cluster.add_worker({"c": streams.consume})
        victim = await cluster.add_worker({"p": streams.handlers()["p"]})
        task_id = await cluster.client.create_task(graph=stream(60, 10))
        await cluster.clock.sleep(5)
        await die(cluster, victim)
        await cluster.add_worker({"p": streams.handlers()["p"]})
        view = await ended(cluster, task_id)
    assert (view.status, view.nodes["p"].attempt, streams.read) == ("finished", 2, 60)
    assert streams.most == 10


async def test_a_producer_goes_on_at_once_when_its_reader_fails(flowkit_cluster: Cluster) -> None:
    streams = Streams(pause=0.01)

    async def breaks(item: dict[str, int], ctx: RunContext) -> None:
        await ctx.clock.sleep(100)
        raise NodeFailure("no", permanent=True)

    document = stream(400, 10, optional=True)
    handlers = streams.handlers() | {"c": breaks}
    view = await flowkit_cluster.run(document, handlers=handlers, timeout=DAY)
    assert (view.nodes["p"].status, view.nodes["c"].status) == ("finished", "failed")
    gaps = [b - a for a, b in pairwise(streams.produced_at)]
    assert 90 < max(gaps) < 101
    assert sum(gap > 1 for gap in gaps) == 1


async def test_a_producer_goes_on_some_time_after_the_death_of_its_reader() -> None:
    streams = Streams(seconds=DAY, pause=0.01)
    async with Cluster(coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        await cluster.add_worker({"p": streams.handlers()["p"]})
        victim = await cluster.add_worker({"c": streams.consume})
        task_id = await cluster.client.create_task(graph=stream(100, 10))
        await cluster.clock.sleep(60)
        assert 10 <= streams.produced < 20
        await die(cluster, victim)
        await cluster.clock.sleep(15)
        assert streams.produced == 100
        streams.seconds = 0
        await cluster.add_worker({"c": streams.consume})
        view = await ended(cluster, task_id)
    assert (view.status, view.nodes["p"].attempt, view.nodes["c"].attempt) == ("finished", 1, 2)


async def test_the_next_attempt_of_a_producer_says_nothing_of_the_wait_of_the_last_one() -> None:
    streams = Streams(seconds=DAY, pause=0.1)
    async with Cluster(coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        await cluster.add_worker({"c": streams.consume})
        victim = await cluster.add_worker({"p": streams.handlers()["p"]})
        task_id = await cluster.client.create_task(graph=stream(100, 10))
        await cluster.clock.sleep(60)
        assert " and waits for 'c'" in await cluster.client.explain(task_id, "p")
        await die(cluster, victim)
        streams.pause = 100
        await cluster.add_worker({"p": streams.handlers()["p"]})
        await cluster.clock.sleep(60)
        view = await cluster.client.get_task(task_id)
        assert (view.nodes["p"].status, view.nodes["p"].attempt) == ("running", 2)
        assert " and waits " not in await cluster.client.explain(task_id, "p")


async def test_heartbeats_go_on_and_time_limits_count_while_a_producer_waits(
    flowkit_cluster: Cluster,
) -> None:
    for timeouts, outcome in (
        ({"heartbeat_sec": 20}, "finished"),
        ({"start_to_close_sec": 100}, "failed"),
    ):
        streams = Streams(seconds=60, pause=0.01)
        fields = {"timeouts": timeouts, "retry_policy": {"max": 0}}
        document = graph(node("p", "p", io={"input_inline": 20}, **fields), reader(4))
        view = await flowkit_cluster.run(document, handlers=streams.handlers(), timeout=DAY)
        assert view.nodes["p"].status == outcome, timeouts


async def test_a_producer_that_waits_is_cancelled_at_once(flowkit_cluster: Cluster) -> None:
    streams = Streams(seconds=DAY, pause=0.1)
    await flowkit_cluster.add_worker(streams.handlers())
    task_id = await flowkit_cluster.client.create_task(graph=stream(20, 4))
    await flowkit_cluster.clock.sleep(60)
    assert streams.produced < 20
    before = flowkit_cluster.clock.monotonic()
    await flowkit_cluster.client.cancel(task_id)
    view = await ended(flowkit_cluster, task_id)
    assert (view.status, view.nodes["p"].status) == ("cancelled", "cancelled")
    assert flowkit_cluster.clock.monotonic() - before < 60


async def test_explain_says_which_reader_a_producer_waits_for(flowkit_cluster: Cluster) -> None:
    streams = Streams(seconds=100, pause=0.1)
    client = flowkit_cluster.client
    await flowkit_cluster.add_worker(streams.handlers())
    task_id = await client.create_task(graph=stream(1500, None))
    await flowkit_cluster.clock.sleep(80)
    assert " and waits " not in await client.explain(task_id, "p")
    await flowkit_cluster.clock.sleep(60)
    said = await client.explain(task_id, "p")
    assert said.endswith(", and waits for 'c', 1,000 batches behind.")
    streams.seconds = 0
    await flowkit_cluster.clock.sleep(100)
    assert " and waits " not in await client.explain(task_id, "p")
    assert (await ended(flowkit_cluster, task_id)).status == "finished"


class Positions(InMemoryBus):
    """A bus that counts the positions of readers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        self.sent += sum(b"stream_read" in one.value for one in messages)
        return await super().publish(messages)


async def test_a_reader_that_waits_seldom_sends_its_position() -> None:
    streams, bus = Streams(0, pause=60), Positions()
    async with Cluster(bus=bus) as cluster:
        await cluster.add_worker(streams.handlers())
        await cluster.client.create_task(graph=stream(5, None))
        await cluster.clock.sleep(70)
        assert streams.read == 1
        before = bus.sent
        await cluster.clock.sleep(45)
        assert 14 <= bus.sent - before <= 16
        await cluster.clock.sleep(10)
        assert streams.read == 2


async def test_a_slow_end_holds_up_a_whole_chain(flowkit_cluster: Cluster) -> None:
    """A reader that waits for its own reader holds up its producer."""
    streams = Streams(pause=0.1)
    seen: list[int] = []

    class Passes(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            seen.append(streams.produced - streams.read)
            return BatchResult(True, {}, batch.payload["meta"])

    document = graph(
        node("p", "p", io={"input_inline": 60}),
        node("m", "m", "p", io={"start_when": "first_batch", "max_ahead": 5}),
        node("c", "c", "m", io={"start_when": "first_batch", "max_ahead": 5}),
    )
    handlers = streams.handlers() | {"m": Passes()}
    view = await flowkit_cluster.run(document, handlers=handlers, timeout=DAY)
    assert view.status == "finished"
    assert max(seen) <= 16


async def test_windows_larger_than_max_ahead_are_filled(flowkit_cluster: Cluster) -> None:
    sizes: list[int] = []

    async def collect(items: list[dict[str, int]]) -> None:
        sizes.append(len(items))

    io = {"start_when": "first_batch", "max_ahead": 3, "batching": {"size": 50}}
    handlers = Streams(pause=0.01).handlers() | {"c": collect}
    view = await flowkit_cluster.run(stream(100, 3, io=io), handlers=handlers, timeout=DAY)
    assert (view.status, sizes) == ("finished", [50, 50])


@pytest.mark.parametrize("parallel", [1, 4])
async def test_retries_and_parallel_batches_of_a_producer_wait_too(
    flowkit_cluster: Cluster, parallel: int
) -> None:
    streams = Streams()

    @handler("source")
    async def source(item: int) -> AsyncIterator[dict[str, int]]:
        for number in range(item):
            yield {"n": number}

    async def several(item: dict[str, int], ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        for _ in range(4):
            await ctx.clock.sleep(0.1)
            streams.produced += 1
            streams.most = max(streams.most, streams.produced - streams.read)
            yield {"n": streams.produced - 1}

    document = graph(
        node("s", "source", io={"input_inline": 20}),
        node("p", "p", "s", io={"start_when": "first_batch", "parallel": parallel}),
        reader(5),
    )
    handlers = {"source": source, "p": several, "c": streams.consume}
    view = await flowkit_cluster.run(document, handlers=handlers, timeout=DAY)
    assert (view.status, streams.read) == ("finished", 80)
    assert streams.most <= 5 + parallel + 2
