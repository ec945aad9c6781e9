"""Batches of a node that are in process at the same time: ``io.parallel``."""

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.errors import NodeFailure
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from tests.builders import DAY, die, ended, graph, node

QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2, heartbeat_hard_sec=4, lease_ttl_sec=4, scheduler_tick_sec=2
)
LIVELY = WorkerConfig(hb_interval_sec=1, pull_poll_ms_default=200, cancel_grace_sec=2)


@handler("p")
async def numbers(item: int) -> AsyncIterator[dict[str, int]]:
    for number in range(item):
        yield {"n": number}


class Busy:
    """A function handler that takes some seconds for each number, and counts its calls."""

    def __init__(self, seconds: float = 0.3) -> None:
        self.seconds = seconds
        self.now = self.most = 0
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.free = anyio.Event()

    async def __call__(self, item: dict[str, int], ctx: RunContext) -> dict[str, int]:
        self.begun.append(item["n"])
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.work(item["n"], ctx)
        finally:
            self.now -= 1
        self.ended.append(item["n"])
        return item

    async def work(self, number: int, ctx: RunContext) -> None:
        await ctx.clock.sleep(self.seconds)


def reader(parallel: int | None, **fields: Any) -> dict[str, Any]:
    """Return the node ``c``, which reads ``p``."""
    io = {"start_when": "first_batch"} | ({} if parallel is None else {"parallel": parallel})
    return node("c", "c", "p", io=io, **fields)


def stream(count: int, parallel: int | None, **fields: Any) -> dict[str, Any]:
    return graph(node("p", "p", io={"input_inline": count}), reader(parallel, **fields))


async def stored(cluster: Cluster, task_id: str) -> list[int]:
    return [one.meta["n"] async for one in cluster.client.artifacts(task_id, "c")]


# ---------------------------------------------------------------- at the same time


async def test_up_to_n_batches_are_in_process_at_once(flowkit_cluster: Cluster) -> None:
    busy = Busy()
    before = flowkit_cluster.clock.monotonic()
    view = await flowkit_cluster.run(stream(20, 8), handlers={"p": numbers, "c": busy})
    assert (view.status, busy.most) == ("finished", 8)
    assert flowkit_cluster.clock.monotonic() - before < 1.0
    assert sorted(await stored(flowkit_cluster, view.id)) == list(range(20))
    assert len(busy.begun) == 20


async def test_without_parallel_batches_are_processed_in_order(flowkit_cluster: Cluster) -> None:
    busy = Busy()
    view = await flowkit_cluster.run(stream(5, None), handlers={"p": numbers, "c": busy})
    assert (busy.most, busy.ended) == (1, list(range(5)))
    assert await stored(flowkit_cluster, view.id) == list(range(5))


async def test_artifacts_are_stored_in_the_order_in_which_batches_end(
    flowkit_cluster: Cluster,
) -> None:
    class Uneven(Busy):
        async def work(self, number: int, ctx: RunContext) -> None:
            await ctx.clock.sleep(5 - number)

    view = await flowkit_cluster.run(stream(5, 5), handlers={"p": numbers, "c": Uneven()})
    assert await stored(flowkit_cluster, view.id) == [4, 3, 2, 1, 0]


class Listed(Handler):
    """A class handler whose batches all wait until ``count`` of them are in process."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.seen: list[tuple[str, str | None]] = []
        self.full = anyio.Event()

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        self.count -= 1
        if not self.count:
            self.full.set()
        await self.full.wait()
        ctx.log.info("done")
        self.seen.append((batch.batch_uid, ctx.batch_uid))
        return BatchResult(True, {"batches": 1})

    async def finalize(self, ctx: RunContext) -> None:
        assert (ctx.batch_uid, ctx.attempt) == (None, 1)


async def test_batches_of_a_list_and_their_log_lines_know_their_batch(
    flowkit_cluster: Cluster,
) -> None:
    listed = Listed(3)
    io = {"input_inline": list("abc"), "batching": {"size": 1}, "parallel": 3}
    view = await flowkit_cluster.run(graph(node("c", "c", io=io)), handlers={"c": listed})
    assert sorted(listed.seen) == [("0", "0"), ("1", "1"), ("2", "2")]
    assert view.nodes["c"].metrics == {"batches": 3}
    lines = [line async for line in flowkit_cluster.client.logs(view.id, "c")]
    assert sorted(str(line.batch_uid) for line in lines) == ["0", "1", "2"]


async def test_synchronous_functions_run_in_as_many_threads(flowkit_cluster: Cluster) -> None:
    together = threading.Barrier(3, timeout=20)

    def meet(item: dict[str, int]) -> None:
        together.wait()

    view = await flowkit_cluster.run(stream(3, 3), handlers={"p": numbers, "c": meet})
    assert view.status == "finished"


# ---------------------------------------------------------------- failures


async def test_a_failed_batch_is_tried_again_beside_the_others(flowkit_cluster: Cluster) -> None:
    tries: list[tuple[int, int]] = []

    class Once(Busy):
        async def work(self, number: int, ctx: RunContext) -> None:
            tries.append((number, ctx.attempt))
            if tries[-1] == (0, 1):
                await ctx.clock.sleep(1)  # the input has ended
                raise NodeFailure("not yet")
            await ctx.clock.sleep(10 if number == 1 else 1)
            assert ctx.attempt == (2 if number == 0 else 1)

    once = Once()
    fields = {"retry_policy": {"max": 1, "backoff_sec": 2}}
    view = await flowkit_cluster.run(stream(2, 2, **fields), handlers={"p": numbers, "c": once})
    assert (view.status, tries, once.ended) == ("finished", [(0, 1), (1, 1), (0, 2)], [0, 1])


class Picky(Busy):
    """Fails for good for one number; the others end when it has failed."""

    def __init__(self, bad: int, seconds: float = 1) -> None:
        super().__init__(seconds)
        self.bad = bad

    async def work(self, number: int, ctx: RunContext) -> None:
        if self.seconds:
            await ctx.clock.sleep(self.seconds if number == self.bad else 60)
        if number == self.bad:
            raise NodeFailure("no", permanent=True)


async def test_when_a_batch_is_given_up_those_in_process_end_and_no_other_begins(
    flowkit_cluster: Cluster,
) -> None:
    picky = Picky(1)
    view = await flowkit_cluster.run(stream(9, 3), handlers={"p": numbers, "c": picky})
    assert (view.nodes["c"].status, view.nodes["c"].attempt) == ("failed", 1)
    assert (picky.begun, picky.ended) == ([0, 1, 2], [0, 2])
    assert sorted(await stored(flowkit_cluster, view.id)) == [0, 2]
    (letter,) = (await flowkit_cluster.client.dead_letters()).items
    assert letter.data is not None
    assert b'"n":1' in letter.data


async def test_the_failure_of_the_last_batch_fails_the_node(flowkit_cluster: Cluster) -> None:
    for bad, seconds in ((0, 0), (1, 0), (0, 1), (1, 1), (1, 100)):
        picky = Picky(bad, seconds)
        view = await flowkit_cluster.run(stream(2, 2), handlers={"p": numbers, "c": picky})
        assert view.nodes["c"].status == "failed"


async def test_a_failure_ends_the_pause_before_the_retry_of_another_batch(
    flowkit_cluster: Cluster,
) -> None:
    async def work(item: dict[str, int], ctx: RunContext) -> None:
        await ctx.clock.sleep(item["n"])
        raise NodeFailure("no", permanent=item["n"] == 1)

    fields = {"retry_policy": {"max": 1, "backoff_sec": 3600, "max_backoff_sec": 3600}}
    before = flowkit_cluster.clock.monotonic()
    view = await flowkit_cluster.run(stream(2, 2, **fields), handlers={"p": numbers, "c": work})
    assert view.nodes["c"].status == "failed"
    assert flowkit_cluster.clock.monotonic() - before < 60


async def test_batches_that_are_given_up_are_skipped(flowkit_cluster: Cluster) -> None:
    view = await flowkit_cluster.run(
        stream(6, 4, on_batch_failure="skip"), handlers={"p": numbers, "c": Picky(1)}
    )
    assert (view.status, view.nodes["c"].skipped_batches) == ("finished", 1)
    assert sorted(await stored(flowkit_cluster, view.id)) == [0, 2, 3, 4, 5]


async def test_a_batch_whose_code_cancels_all_tasks_is_not_lost(flowkit_cluster: Cluster) -> None:
    """The task of a batch that has not begun is cancelled, too."""
    begun = Counter[int]()

    async def cancels(item: dict[str, int], ctx: RunContext) -> dict[str, int]:
        begun[item["n"]] += 1
        if item["n"] == 0 and begun[0] == 1:
            for task in asyncio.all_tasks():
                if task.get_name() == "flowkit batch":
                    task.cancel()
        await ctx.clock.sleep(1)
        return item

    fields = {"retry_policy": {"max": 3, "backoff_sec": 1}}
    view = await flowkit_cluster.run(stream(3, 3, **fields), handlers={"p": numbers, "c": cancels})
    assert view.status == "finished"
    assert sorted(await stored(flowkit_cluster, view.id)) == [0, 1, 2]


async def test_a_batch_that_hangs_is_found_by_its_missing_heartbeats(
    flowkit_cluster: Cluster,
) -> None:
    class Hangs(Busy):
        async def work(self, number: int, ctx: RunContext) -> None:
            await ctx.clock.sleep(DAY if number == 0 and len(self.begun) <= 2 else 1)

    hangs = Hangs()
    fields = {"timeouts": {"heartbeat_sec": 30}, "retry_policy": {"max": 1, "backoff_sec": 1}}
    view = await flowkit_cluster.run(
        stream(2, 2, **fields), handlers={"p": numbers, "c": hangs}, timeout=DAY
    )
    assert (view.status, view.nodes["c"].attempt) == ("finished", 2)
    assert (hangs.begun, hangs.ended) == ([0, 1, 0], [1, 0])


# ---------------------------------------------------------------- ends and later attempts


class Stuck(Busy):
    """Waits in the first two numbers until the run is cancelled or ``free`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = anyio.Event()
        self.tidied: list[int] = []

    async def work(self, number: int, ctx: RunContext) -> None:
        if self.free.is_set() or number > 1:
            return
        if self.now == 2:
            self.reached.set()
        try:
            await ctx.cancellable(self.free.wait())
        finally:
            await ctx.clock.sleep(1)
            self.tidied.append(number)


async def test_a_cancelled_node_lets_all_its_batches_clean_up(flowkit_cluster: Cluster) -> None:
    stuck = Stuck()
    await flowkit_cluster.add_worker({"p": numbers, "c": stuck})
    task_id = await flowkit_cluster.client.create_task(graph=stream(5, 2))
    await stuck.reached.wait()
    await flowkit_cluster.client.cancel(task_id)
    view = await ended(flowkit_cluster, task_id)
    assert (view.nodes["c"].status, stuck.begun, sorted(stuck.tidied)) == (
        "cancelled",
        [0, 1],
        [0, 1],
    )


async def test_batches_that_ignore_a_cancel_are_cut_off_once() -> None:
    reached, cut_off = anyio.Event(), list[int]()

    async def ignores(item: dict[str, int], ctx: RunContext) -> None:
        try:
            if item["n"] == 1:
                reached.set()
            await anyio.sleep_forever()
        finally:
            await ctx.clock.sleep(1)  # a second cancellation would end it
            cut_off.append(item["n"])

    async with Cluster(worker_config=LIVELY) as cluster:
        await cluster.add_worker({"p": numbers, "c": ignores})
        task_id = await cluster.client.create_task(graph=stream(5, 2))
        await reached.wait()
        await cluster.client.cancel(task_id)
        view = await ended(cluster, task_id)
        assert (view.nodes["c"].status, sorted(cut_off)) == ("cancelled", [0, 1])


@pytest.mark.parametrize("is_lost", [True, False])
async def test_another_worker_continues_with_the_batches_that_are_not_stored(
    is_lost: bool,
) -> None:
    class FirstIsStuck(Busy):
        async def work(self, number: int, ctx: RunContext) -> None:
            if number == 0 and not self.free.is_set():
                await ctx.cancellable(self.free.wait())

    later = FirstIsStuck()
    async with Cluster(coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        await cluster.add_worker({"p": numbers})
        first = await cluster.add_worker({"c": later})
        task_id = await cluster.client.create_task(graph=stream(4, 2))
        await cluster.clock.sleep(2)
        assert later.ended == [1, 2, 3]
        await (die(cluster, first) if is_lost else cluster.stop_worker(first, grace=0))
        later.free.set()
        await cluster.add_worker({"c": later})
        view = await ended(cluster, task_id)
        assert (view.status, view.nodes["c"].attempt) == ("finished", 2 if is_lost else 1)
        assert Counter(later.begun) == {0: 2, 1: 1, 2: 1, 3: 1}
        assert sorted(await stored(cluster, task_id)) == [0, 1, 2, 3]


async def test_tries_that_a_stopping_worker_cuts_off_do_not_count() -> None:
    tries: list[tuple[int, int]] = []
    under_way = anyio.Event()

    async def again(item: dict[str, int], ctx: RunContext) -> None:
        tries.append((item["n"], ctx.attempt))
        if ctx.attempt == 1:
            raise NodeFailure("not yet")
        if len(tries) == 4:
            under_way.set()
        if len(tries) <= 4:
            await ctx.cancellable(anyio.sleep_forever())

    fields = {"retry_policy": {"max": 1, "backoff_sec": 1, "jitter": 0}}
    async with Cluster(worker_config=LIVELY) as cluster:
        await cluster.add_worker({"p": numbers})
        first = await cluster.add_worker({"c": again})
        task_id = await cluster.client.create_task(graph=stream(2, 2, **fields))
        await under_way.wait()
        await cluster.stop_worker(first, grace=0)
        await cluster.add_worker({"c": again})
        view = await ended(cluster, task_id)
    assert (view.status, view.nodes["c"].attempt) == ("finished", 1)
    # The tries that were cut off are made again in the place of the first ones, and may fail again.
    assert Counter(tries) == {(0, 1): 2, (0, 2): 2, (1, 1): 2, (1, 2): 2}
