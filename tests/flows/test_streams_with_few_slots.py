"""Streams on workers with few slots: a run that waits for other runs gives up its slot."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest

from flowkit import WorkerConfig
from flowkit.errors import NodeFailure
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from tests.builders import graph, node

ONE_SLOT = WorkerConfig(max_concurrency=1)
B = WorkerConfig(max_concurrency=1, worker_id="b", hb_interval_sec=1, announce_interval_sec=1)
SOON = {"max": 3, "backoff_sec": 5}
"""A retry policy with a delay in which readers begin."""


class Work:
    """Handlers that count how many of them are at work at the same time."""

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.read: dict[str, list[int]] = {}
        self.read_at: dict[str, list[float]] = {}

    @contextmanager
    def busy(self) -> Any:
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            yield
        finally:
            self.now -= 1

    def handlers(self) -> dict[str, Any]:
        @handler("p")
        async def produce(item: int, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
            """Yield numbers. The first attempt fails after five."""
            for number in range(item):
                if number == 5 and ctx.attempt == 1:
                    raise NodeFailure("not at once")
                with self.busy():
                    await ctx.clock.sleep(self.seconds)
                yield {"n": number}

        @handler("twice")
        async def twice(item: dict[str, int], ctx: RunContext) -> AsyncIterator[dict[str, int]]:
            for sign in (1, -1):
                with self.busy():
                    await ctx.clock.sleep(self.seconds)
                yield {"n": sign * item["n"]}

        class Sums(Handler):
            async def process_batch(_, batch: Batch, ctx: RunContext) -> BatchResult:
                await self.consume(batch.payload["meta"], ctx)
                return BatchResult(success=True, artifacts_ref=batch.payload["meta"])

            async def finalize(_, ctx: RunContext) -> FinalizeResult:
                with self.busy():
                    await ctx.clock.sleep(self.seconds)
                return FinalizeResult(result=sum([one["n"] async for one in ctx.artifacts.read()]))

        return {
            "p": produce,
            "c": self.consume,
            "w": self.windows,
            "twice": twice,
            "sums": Sums,
            "long": self.long,
        }

    async def consume(self, item: dict[str, int], ctx: RunContext) -> dict[str, int]:
        with self.busy():
            await ctx.clock.sleep(self.seconds)
            self.note(item["n"], ctx)
        return item

    async def windows(self, items: list[dict[str, int]], ctx: RunContext) -> None:
        with self.busy():
            await ctx.clock.sleep(self.seconds)
            for item in items:
                self.note(item["n"], ctx)

    async def long(self, item: float, ctx: RunContext) -> None:
        with self.busy():
            await ctx.clock.sleep(item)

    def of(self, name: str) -> list[list[int]]:
        """Return the numbers that each node whose id begins with this name has read."""
        found: dict[str, list[int]] = {}
        for node_id, numbers in self.read.items():
            if node_id.startswith(name):
                found.setdefault(node_id.partition("[")[0], []).extend(numbers)
        return list(found.values())

    def note(self, number: int, ctx: RunContext) -> None:
        self.read.setdefault(ctx.node_id, []).append(number)
        self.read_at.setdefault(ctx.node_id, []).append(ctx.clock.monotonic())


def producer(count: int = 12, **fields: Any) -> dict[str, Any]:
    return node("p", "p", io={"input_inline": count}, **{"retry_policy": SOON} | fields)


def reader(node_id: str, role: str, parent: str, **io: Any) -> dict[str, Any]:
    return node(node_id, role, parent, io={"start_when": "first_batch"} | io)


@pytest.mark.parametrize(
    "readers",
    [
        pytest.param([reader("c", "c", "p")], id="a reader"),
        pytest.param([reader(f"c{n}", "c", "p") for n in range(3)], id="readers side by side"),
        pytest.param(
            [reader("m", "twice", "p"), reader("c", "sums", "m")], id="a chain of readers"
        ),
        pytest.param(
            [reader("m", "twice", "p", max_ahead=1), reader("c", "c", "m", max_ahead=1)],
            id="little room",
        ),
        pytest.param([reader("c", "c", "p", max_ahead=2, parallel=2)], id="batches side by side"),
        pytest.param(
            [reader("m", "twice", "p", parallel=3), reader("c", "c", "m", max_ahead=1, parallel=2)],
            id="a producer with batches side by side",
        ),
        pytest.param([reader("w", "w", "p", batching={"size": 5})], id="windows"),
        pytest.param(
            [reader("w", "w", "p", max_ahead=3, batching={"size": 5, "max_wait_sec": 1})],
            id="windows with a time",
        ),
        pytest.param(
            [reader("m", "sums", "p", shards=3), reader("c", "c", "m")], id="shards and a reader"
        ),
        pytest.param(
            [reader("m", "twice", "p", shards=2, max_ahead=2), reader("c", "sums", "m", shards=2)],
            id="shards of shards",
        ),
    ],
)
async def test_one_slot_is_enough(readers: list[dict[str, Any]]) -> None:
    work = Work()
    async with Cluster(worker_config=ONE_SLOT) as cluster:
        await cluster.add_worker(work.handlers())
        task_id = await cluster.client.create_task(graph=graph(producer(), *readers))
        view = await cluster.client.wait(task_id, timeout=600)
    assert view.status == "finished", view
    assert work.most == max(one["io"].get("parallel", 1) for one in readers)
    signs = (1, -1) if any(one["type"] == "twice" for one in readers) else (1,)
    numbers = sorted(sign * number for sign in signs for number in range(12))
    for reads in (work.of("c"), work.of("w")):
        assert all(sorted(some) == numbers for some in reads)


@asynccontextmanager
async def reader_that_waits(
    work: Work, number: int = 3, **fields: Any
) -> AsyncIterator[tuple[Cluster, str]]:
    """Run a task whose producer, on a worker of its own, yields a number every ten seconds. Its
    reader has begun, on a worker ``b`` with one slot, and waits.
    """

    @handler("slow")
    async def slow(item: int, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        for n in range(item):
            yield {"n": n}
            await ctx.clock.sleep(10)

    async with Cluster(worker_config=ONE_SLOT) as cluster:
        await cluster.add_worker([slow])
        await cluster.add_worker(work.handlers(), B)
        document = graph(
            node("p", "slow", io={"input_inline": number}), reader("c", "c", "p") | fields
        )
        task_id = await cluster.client.create_task(graph=document)
        await cluster.clock.sleep(5)
        assert work.of("c") == [[0]]
        yield cluster, task_id


async def occupied(cluster: Cluster, seconds: float, **options: Any) -> str:
    """Submit a task that holds a slot for some seconds."""
    document = graph(node("l", "long", io={"input_inline": seconds}))
    return await cluster.client.create_task(graph=document, **options)


async def test_a_reader_that_goes_on_gets_a_slot_before_what_has_not_started() -> None:
    work = Work()
    async with reader_that_waits(work) as (cluster, task_id):
        others = [await occupied(cluster, 30) for _ in range(3)]
        view = await cluster.client.wait(task_id, timeout=600)
        ends = [await cluster.client.wait(other, timeout=600) for other in others]
    first, second, third = sorted(end.nodes["l"].started_at for end in ends)
    assert view.status == "finished"
    assert work.most == 1
    assert first < view.nodes["c"].finished_at <= second < third
    assert (second - first).total_seconds() < 30.5, "the reader takes the slot for its two batches"


async def test_a_run_of_a_higher_priority_starts_before_a_reader_that_goes_on() -> None:
    work = Work()
    async with reader_that_waits(work) as (cluster, task_id):
        others = [await occupied(cluster, 30, priority=5) for _ in range(3)]
        view = await cluster.client.wait(task_id, timeout=600)
        ends = [await cluster.client.wait(other, timeout=600) for other in others]
    assert work.most == 1
    assert view.nodes["c"].finished_at > max(end.nodes["l"].started_at for end in ends)


@pytest.mark.parametrize("is_occupied", [False, True])
async def test_a_reader_without_a_slot_is_cancelled_at_once(is_occupied: bool) -> None:
    work = Work()
    async with reader_that_waits(work) as (cluster, task_id):
        if is_occupied:
            await occupied(cluster, 300)
            await cluster.clock.sleep(7)  # a batch has come: the reader waits for a slot
            assert work.of("c") == [[0]]
        await cluster.client.cancel(task_id)
        before = cluster.clock.monotonic()
        while (await cluster.client.get_task(task_id)).nodes["c"].status != "cancelled":
            await cluster.clock.sleep(0.1)
        assert cluster.clock.monotonic() - before < 1


async def test_a_worker_is_listed_with_its_runs_that_wait() -> None:
    work = Work()
    async with reader_that_waits(work) as (cluster, _):
        (view,) = [one for one in await cluster.client.workers() if one.id == "b"]
        assert (view.running, view.waiting, view.slots) == (0, 1, 1)
        await occupied(cluster, 300)
        await cluster.clock.sleep(7)  # a batch has come: the reader waits for a slot
        (view,) = [one for one in await cluster.client.workers() if one.id == "b"]
        assert (view.running, view.waiting, view.slots) == (1, 1, 1)


async def test_explain_says_whose_artifacts_a_reader_has_no_slot_for() -> None:
    async with reader_that_waits(Work()) as (cluster, task_id):
        said = await cluster.client.explain(task_id, "c")
        assert said.endswith(
            " is running on 'b'. When it waits for artifacts of 'p', it needs no slot."
        )
        assert " waits " not in await cluster.client.explain(task_id, "p")


async def test_a_reader_that_waits_for_a_slot_sends_heartbeats() -> None:
    work = Work()
    limits = {"timeouts": {"heartbeat_sec": 12}, "retry_policy": {"max": 0}}
    async with reader_that_waits(work, **limits) as (cluster, task_id):
        await occupied(cluster, 300)
        view = await cluster.client.wait(task_id, timeout=600)
    assert (view.status, view.nodes["c"].attempt) == ("finished", 1)
    assert work.of("c") == [[0, 1, 2]]


async def test_the_time_limit_of_a_reader_counts_while_it_has_no_slot() -> None:
    work = Work()
    limits = {"timeouts": {"start_to_close_sec": 60}, "retry_policy": {"max": 0}}
    async with reader_that_waits(work, **limits) as (cluster, task_id):
        await occupied(cluster, 300)
        view = await cluster.client.wait(task_id, timeout=100)
    assert (view.status, view.nodes["c"].reason_code) == ("failed", "start_to_close_timeout")


async def test_a_worker_that_stops_lets_a_reader_without_a_slot_end() -> None:
    work = Work()
    async with reader_that_waits(work) as (cluster, task_id):
        await cluster.stop_worker(cluster.workers[1], 60)
        view = await cluster.client.get_task(task_id)
    assert view.nodes["c"].status == "finished"
    assert (view.nodes["c"].attempt, view.nodes["c"].worker_id) == (1, "b")


@pytest.mark.parametrize("is_occupied", [False, True])
async def test_a_worker_that_stops_hands_a_reader_without_a_slot_back(is_occupied: bool) -> None:
    work = Work()
    async with reader_that_waits(work) as (cluster, task_id):
        if is_occupied:
            await occupied(cluster, 300)
            await cluster.clock.sleep(7)
        before = cluster.clock.monotonic()
        await cluster.stop_worker(cluster.workers[1], 0)
        assert cluster.clock.monotonic() - before < 1
        await cluster.add_worker(work.handlers())
        view = await cluster.client.wait(task_id, timeout=600)
    assert (view.status, view.nodes["c"].attempt) == ("finished", 1)
    assert work.of("c") == [[0, 1, 2]]


@pytest.mark.parametrize("parallel", [1, 2])
async def test_short_waits_keep_the_slot(parallel: int) -> None:
    """Neither a moment without a batch nor the end of all batches in process costs the slot."""
    work = Work(0.05)

    @handler("quick")
    async def quick(item: int, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        for n in range(item):
            yield {"n": n}
            if n % 10 == 0:
                await ctx.clock.sleep(0.08)

    async with Cluster(worker_config=ONE_SLOT) as cluster:
        await cluster.add_worker([quick])
        await cluster.add_worker(work.handlers(), B)
        document = graph(
            node("p", "quick", io={"input_inline": 40}), reader("c", "c", "p", parallel=parallel)
        )
        task_id = await cluster.client.create_task(graph=document)
        while not work.of("c"):
            await cluster.clock.sleep(0.01)
        other = await occupied(cluster, 30)
        view = await cluster.client.wait(task_id, timeout=600)
        end = await cluster.client.wait(other, timeout=600)
    assert end.nodes["l"].started_at >= view.nodes["c"].finished_at


async def test_a_producer_and_its_reader_hand_their_slot_over_without_a_pause() -> None:
    work = Work(0)
    async with Cluster(worker_config=ONE_SLOT) as cluster:
        await cluster.add_worker(work.handlers())
        before = cluster.clock.monotonic()
        view = await cluster.run(
            graph(
                producer(40, retry_policy={"max": 1, "backoff_sec": 0}),
                reader("c", "c", "p", max_ahead=1),
            )
        )
        took = cluster.clock.monotonic() - before
    assert view.status == "finished"
    assert took < 40 * 0.1


async def test_short_streams_do_not_wait_in_a_slot_that_they_share() -> None:
    """A reader finds at once that its producer has ended before it started."""
    work = Work(0)
    async with Cluster(worker_config=ONE_SLOT) as cluster:
        await cluster.add_worker(work.handlers())
        before = cluster.clock.monotonic()
        document = graph(producer(4), reader("c", "c", "p"))
        tasks = [await cluster.client.create_task(graph=document) for _ in range(20)]
        for task_id in tasks:
            assert (await cluster.client.wait(task_id, timeout=60)).status == "finished"
        assert cluster.clock.monotonic() - before < 20 * 0.05


async def test_a_reader_starts_in_the_slot_of_the_producer_that_waits_for_it() -> None:
    work = Work(seconds=0.01)
    async with Cluster(worker_config=ONE_SLOT) as cluster:
        await cluster.add_worker(work.handlers())
        before = cluster.clock.monotonic()
        view = await cluster.run(graph(producer(5), reader("c", "c", "p", max_ahead=2)))
        assert view.status == "finished"
        assert work.read_at["c"][0] - before < 1
