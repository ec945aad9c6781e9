"""Windows: ``io.batching`` over the artifacts that a node pulls."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest

from flowkit import CoordinatorConfig, TaskView, WorkerConfig
from flowkit.errors import NodeFailure
from flowkit.protocols import ArtifactRecord, Stream
from flowkit.worker import Batch, BatchResult, Handler, RunContext, Worker, handler
from flowkit_testing import Cluster
from tests.builders import DAY, die, graph, node
from tests.counting_store import CountingStore

QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2, heartbeat_hard_sec=4, lease_ttl_sec=4, scheduler_tick_sec=2
)
LIVELY = WorkerConfig(hb_interval_sec=1, pull_poll_ms_default=200, cancel_grace_sec=2)
PULL = {"input_inline": {"input_adapter": "pull.from_artifacts"}}
STREAM = {"start_when": "first_batch"}


def reader(*parents: str, **fields: Any) -> dict[str, Any]:
    """Return the node ``c``, which reads its parents with windows."""
    io = fields.pop("io", STREAM)
    batching = {name: fields.pop(name) for name in ("size", "max_wait_sec") if name in fields}
    return node("c", "c", *parents, io={**io, "batching": batching}, **fields)


def at_times(*seconds: float) -> Callable[..., AsyncIterator[dict[str, int]]]:
    """Return a producer that yields one artifact at each of these seconds after its start."""

    @handler("p")
    async def produce(item: Any, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        began = ctx.clock.monotonic()
        for number, second in enumerate(seconds):
            await ctx.clock.sleep(began + second - ctx.clock.monotonic())
            yield {"n": number}

    return produce


class Windows:
    """A function handler that records the numbers in its windows, and when they come."""

    def __init__(self) -> None:
        self.seen: list[list[int]] = []
        self.times: list[float] = []

    async def __call__(self, items: list[dict[str, int]], ctx: RunContext) -> dict[str, list[int]]:
        self.seen.append([item["n"] for item in items])
        self.times.append(ctx.clock.monotonic())
        return {"numbers": self.seen[-1]}


async def numbers(item: Any) -> AsyncIterator[dict[str, int]]:
    for number in range(item):
        yield {"n": number}


async def fails(item: Any) -> None:
    raise ValueError("no")


def counted(count: int, node_id: str = "p") -> dict[str, Any]:
    return node(node_id, "p", io={"input_inline": count})


async def windows_of(cluster: Cluster, view: TaskView, node_id: str = "c") -> list[list[int]]:
    return [one.meta["numbers"] async for one in cluster.client.artifacts(view.id, node_id)]


# ---------------------------------------------------------------- bounds


@pytest.mark.parametrize("io", [STREAM, PULL, STREAM | PULL], ids=["stream", "pull", "both"])
async def test_a_window_has_size_artifacts_and_the_last_one_the_rest(
    flowkit_cluster: Cluster, io: dict[str, Any]
) -> None:
    windows = Windows()
    document = graph(counted(250), reader("p", io=io, size=64))
    view = await flowkit_cluster.run(document, handlers={"p": numbers, "c": windows})
    assert [len(window) for window in windows.seen] == [64, 64, 64, 58]
    assert [n for window in windows.seen for n in window] == list(range(250))
    assert await windows_of(flowkit_cluster, view) == windows.seen
    assert view.nodes["c"].result is None


async def test_an_edge_that_streams_is_enough(flowkit_cluster: Cluster) -> None:
    windows = Windows()
    document = graph(
        counted(3),
        node("c", "c", io={"batching": {"size": 2}}),
        edges=[{"from": "p", "to": "c", "trigger": "on_batch"}],
    )
    await flowkit_cluster.run(document, handlers={"p": numbers, "c": windows})
    assert windows.seen == [[0, 1], [2]]


async def test_a_window_ends_some_time_after_its_first_artifact(flowkit_cluster: Cluster) -> None:
    windows = Windows()
    document = graph(node("p", "p"), reader("p", size=3, max_wait_sec=10))
    # Two in time, three that are enough, one alone, and one that the end of the stream closes.
    produce = at_times(0, 9, 20, 21, 22, 40, 100)
    await flowkit_cluster.run(document, handlers={"p": produce, "c": windows})
    assert windows.seen == [[0, 1], [2, 3, 4], [5], [6]]
    first, second, third, fourth = [time - windows.times[0] for time in windows.times]
    assert first == 0
    assert second == pytest.approx(22 - 10, abs=0.5)
    assert third == pytest.approx(40, abs=0.5)
    assert fourth == pytest.approx(90, abs=0.5)


async def test_without_a_time_a_window_waits_until_it_is_full(flowkit_cluster: Cluster) -> None:
    windows = Windows()
    document = graph(node("p", "p"), reader("p", size=2))
    produce = at_times(0, DAY, 2 * DAY)
    await flowkit_cluster.run(document, handlers={"p": produce, "c": windows}, timeout=9 * DAY)
    assert windows.seen == [[0, 1], [2]]


async def test_the_time_of_a_window_begins_after_the_window_before(
    flowkit_cluster: Cluster,
) -> None:
    """A busy reader would otherwise process many small windows."""
    seen: list[int] = []

    async def slowly(items: list[Any], ctx: RunContext) -> None:
        seen.append(len(items))
        await ctx.clock.sleep(60)

    document = graph(node("p", "p"), reader("p", size=100, max_wait_sec=5))
    produce = at_times(*range(120))
    await flowkit_cluster.run(document, handlers={"p": produce, "c": slowly}, timeout=DAY)
    assert len(seen) == 3
    assert sum(seen) == 120


async def test_the_rest_of_a_page_waits_for_more_after_the_full_windows(
    flowkit_cluster: Cluster,
) -> None:
    seen: list[int] = []

    async def slowly(items: list[Any], ctx: RunContext) -> None:
        seen.append(len(items))
        await ctx.clock.sleep(60)

    document = graph(node("p", "p"), reader("p", size=3, max_wait_sec=5))
    produce = at_times(0, 0, 0, 0, 62, 80)
    await flowkit_cluster.run(document, handlers={"p": produce, "c": slowly}, timeout=DAY)
    assert seen == [3, 2, 1]


async def test_a_window_of_several_parents_has_the_artifacts_of_each_in_order(
    flowkit_cluster: Cluster,
) -> None:
    async def thousands(item: Any) -> AsyncIterator[dict[str, int]]:
        for number in range(item):
            yield {"n": 1000 + number}

    windows = Windows()
    document = graph(
        counted(130),
        node("q", "q", io={"input_inline": 120}),
        reader("p", "q", size=130),
    )
    await flowkit_cluster.run(document, handlers={"p": numbers, "q": thousands, "c": windows})
    assert [len(window) for window in windows.seen] == [130, 120]
    for window in windows.seen:
        parts = [[n for n in window if (n < 1000) is first] for first in (True, False)]
        assert window in (parts[0] + parts[1], parts[1] + parts[0])
        assert all(part == sorted(part) for part in parts)
    everything = [n for window in windows.seen for n in window]
    assert sorted(everything) == [*range(130), *range(1000, 1120)]


async def test_a_stream_without_artifacts_has_no_window(flowkit_cluster: Cluster) -> None:
    windows = Windows()
    document = graph(counted(0), reader("p", size=2, max_wait_sec=1))
    view = await flowkit_cluster.run(document, handlers={"p": numbers, "c": windows})
    assert (windows.seen, view.nodes["c"].status) == ([], "finished")


async def test_a_window_that_ends_in_time_costs_no_load_of_the_task() -> None:
    loads: list[int] = []
    for seconds in ([0], range(0, 600, 6)):
        store = CountingStore()
        async with Cluster(store=store) as cluster:
            document = graph(node("p", "p"), reader("p", size=9, max_wait_sec=3))
            handlers = {"p": at_times(*seconds), "c": Windows()}
            await cluster.run(document, handlers=handlers, timeout=DAY)
        loads.append(store.loads.total())
    assert loads[1] - loads[0] < 12


async def test_windows_of_windows(flowkit_cluster: Cluster) -> None:
    first, second = Windows(), list[int]()

    async def again(items: list[dict[str, list[int]]]) -> None:
        second.append(sum(len(item["numbers"]) for item in items))

    outer = node("d", "d", "c", io={**STREAM, "batching": {"size": 2}})
    document = graph(counted(10), reader("p", size=2), outer)
    await flowkit_cluster.run(document, handlers={"p": numbers, "c": first, "d": again})
    assert (len(first.seen), second) == (5, [4, 4, 2])


async def test_a_handler_gets_the_items_of_a_window_in_its_batch(flowkit_cluster: Cluster) -> None:
    payloads: list[Any] = []
    uids: list[str] = []

    class Reading(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            payloads.append(batch.payload)
            uids.append(batch.batch_uid)
            return BatchResult(True, {"items": len(batch.payload["items"])})

    document = graph(counted(3), reader("p", size=2))
    view = await flowkit_cluster.run(document, handlers={"p": numbers, "c": Reading()})
    assert payloads == [{"items": [{"n": 0}, {"n": 1}]}, {"items": [{"n": 2}]}]
    assert uids == ["p:1-2", "p:3-3"]
    assert view.nodes["c"].metrics == {"items": 3}


@pytest.mark.parametrize("size", [None, 2])
async def test_windows_are_made_of_what_load_input_proposes_to_pull(
    flowkit_cluster: Cluster, size: int | None
) -> None:
    windows: list[Any] = []

    class Proposing(Handler):
        async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
            if size is None:
                return {"input_adapter": "pull.from_artifacts"}
            return {
                "input_adapter": "pull.from_artifacts.rechunk:size",
                "input_args": {"size": size},
            }

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            windows.append(batch.payload["items"])
            return BatchResult(True)

    document = graph(counted(3), reader("p", io={}, size=2))
    view = await flowkit_cluster.run(document, handlers={"p": numbers, "c": Proposing()})
    if size is None:
        assert windows == [[{"n": 0}, {"n": 1}], [{"n": 2}]]
    else:
        assert view.nodes["c"].reason_code == "bad_input_args"
        assert "io.batching makes windows over the artifacts" in (view.nodes["c"].error or "")


# ---------------------------------------------------------------- later attempts


class Interrupted(Windows):
    """Stops in its second window until ``goes_on`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = anyio.Event()
        self.goes_on = anyio.Event()

    async def __call__(self, items: list[dict[str, int]], ctx: RunContext) -> dict[str, list[int]]:
        found = await super().__call__(items, ctx)
        if len(self.seen) == 2:
            self.reached.set()
            await self.goes_on.wait()
        return found


async def interrupted(
    cluster: Cluster, interrupt: Callable[[Worker, str], Any], **fields: Any
) -> tuple[Interrupted, TaskView]:
    """Run a reader whose second window, closed by its time, is processed again by another worker
    when more artifacts are there.
    """
    windows = Interrupted()
    await cluster.add_worker({"p": at_times(0, 20, *range(21, 30))})
    first = await cluster.add_worker({"c": windows})
    document = graph(node("p", "p"), reader("p", size=4, max_wait_sec=0.5, **fields))
    task_id = await cluster.client.create_task(graph=document)
    await windows.reached.wait()
    await cluster.clock.sleep(30)
    await interrupt(first, task_id)
    windows.goes_on.set()
    await cluster.add_worker({"c": windows})
    return windows, await cluster.client.wait(task_id, timeout=DAY)


async def check_interrupted(cluster: Cluster, windows: Windows, view: TaskView) -> None:
    assert view.status == "finished"
    # What came meanwhile is in later windows.
    assert windows.seen == [[0], [1], [1], [2, 3, 4, 5], [6, 7, 8, 9], [10]]
    assert await windows_of(cluster, view) == [[0], [1], [2, 3, 4, 5], [6, 7, 8, 9], [10]]


async def test_a_lost_worker_leaves_its_windows_to_the_next_attempt() -> None:
    async with Cluster(coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        windows, view = await interrupted(cluster, lambda worker, _: die(cluster, worker))
        await check_interrupted(cluster, windows, view)
        assert view.nodes["c"].attempt == 2


async def test_a_stopping_worker_hands_back_its_windows() -> None:
    async with Cluster() as cluster:
        windows, view = await interrupted(
            cluster, lambda worker, _: cluster.stop_worker(worker, grace=0)
        )
        await check_interrupted(cluster, windows, view)
        assert view.nodes["c"].attempt == 1


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_later_attempt_processes_a_stored_window_at_once(is_lost: bool) -> None:
    """It waits neither for more artifacts nor for the time of the window."""
    windows = Interrupted()
    async with Cluster(coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        await cluster.add_worker({"p": at_times(0, 700, 2000)})
        first = await cluster.add_worker({"c": windows})
        document = graph(node("p", "p"), reader("p", size=4, max_wait_sec=600))
        task_id = await cluster.client.create_task(graph=document)
        await windows.reached.wait()
        await (die(cluster, first) if is_lost else cluster.stop_worker(first, grace=0))
        windows.goes_on.set()
        await cluster.add_worker({"c": windows})
        await cluster.client.wait(task_id, timeout=DAY)
    assert windows.seen == [[0], [1], [1], [2]]
    assert windows.times[2] - windows.times[1] < 60


async def test_a_cancelled_reader_keeps_its_windows_until_a_retry() -> None:
    async def cancel(worker: Worker, task_id: str) -> None:
        await cluster.client.cancel(task_id)
        assert (await cluster.client.wait(task_id, timeout=DAY)).status == "cancelled"
        await cluster.client.retry(task_id)

    async with Cluster() as cluster:
        windows, view = await interrupted(cluster, cancel)
        await check_interrupted(cluster, windows, view)


async def test_a_reader_that_runs_again_from_the_start_makes_new_windows(
    flowkit_cluster: Cluster,
) -> None:
    windows = Windows()
    client = flowkit_cluster.client
    await flowkit_cluster.add_worker({"p": at_times(0, 20), "c": windows, "fails": fails})
    document = graph(node("p", "p"), reader("p", size=9, max_wait_sec=5), node("d", "fails", "c"))
    task_id = await client.create_task(graph=document)
    await client.wait(task_id, timeout=DAY)
    await client.retry(task_id, from_nodes=["c"])
    view = await client.wait(task_id, timeout=DAY)
    assert windows.seen == [[0], [1], [0, 1]]
    assert await windows_of(flowkit_cluster, view) == [[0, 1]]


async def test_of_two_attempts_at_the_same_time_the_first_decides_on_a_window(
    flowkit_cluster: Cluster,
) -> None:
    """The other one has stored this window after this one had looked for it."""
    windows = Windows()
    artifacts = flowkit_cluster.store.artifacts
    document = graph(node("p", "p"), reader("p", size=3))
    task_id = await flowkit_cluster.client.create_task(graph=document)
    await artifacts.put(
        [ArtifactRecord(Stream(task_id, "c", -2), "1", False, b'[{"p":1}]', b"{}", 0.0)]
    )
    await flowkit_cluster.add_worker({"p": at_times(0, 1, 2, 3, 4), "c": windows})
    await flowkit_cluster.client.wait(task_id, timeout=DAY)
    assert windows.seen == [[0], [1, 2, 3], [4]]


async def test_a_damaged_or_impossible_window_fails_the_reader(flowkit_cluster: Cluster) -> None:
    artifacts = flowkit_cluster.store.artifacts
    await flowkit_cluster.add_worker({"p": at_times(0), "c": Windows()})
    for stored, reason, error in (
        (b'[{"p":"x"}]', "corrupt_record", "the windows of node 'c'"),
        (b'[{"p":7}]', "artifact_lost", "artifact 7, which an earlier attempt has read, is"),
    ):
        document = graph(node("p", "p"), reader("p", size=1, retry_policy={"max": 0}))
        task_id = await flowkit_cluster.client.create_task(graph=document)
        await artifacts.put(
            [ArtifactRecord(Stream(task_id, "c", -2), "1", False, stored, b"{}", 0.0)]
        )
        view = await flowkit_cluster.client.wait(task_id, timeout=DAY)
        assert view.nodes["c"].reason_code == reason
        assert error in (view.nodes["c"].error or "")


# ---------------------------------------------------------------- failures


async def test_a_window_that_fails_is_tried_again_and_given_up_as_a_whole(
    flowkit_cluster: Cluster,
) -> None:
    seen: list[tuple[list[int], int]] = []
    broken = {2}

    async def picky(items: list[dict[str, int]], ctx: RunContext) -> dict[str, list[int]]:
        numbers = [item["n"] for item in items]
        seen.append((numbers, ctx.attempt))
        if broken.intersection(numbers):
            raise NodeFailure("no")
        return {"numbers": numbers}

    retry = {"max": 1, "backoff_sec": 1}
    document = graph(counted(5), reader("p", size=2, on_batch_failure="skip", retry_policy=retry))
    client = flowkit_cluster.client
    await flowkit_cluster.add_worker({"p": numbers, "c": picky})
    task_id = await client.create_task(graph=document)
    view = await client.wait(task_id, timeout=DAY)
    assert seen == [([0, 1], 1), ([2, 3], 1), ([4], 1), ([2, 3], 2)]
    assert view.nodes["c"].skipped_batches == 1
    (letter,) = (await client.dead_letters()).items
    assert (letter.uid, letter.data) == ("p:3-4", b'{"items":[{"n":2},{"n":3}]}')
    assert "without 1 failed batch" in await client.explain(view.id, "c")
    broken.clear()
    (outcome,) = await client.retry_dead_letters([letter.letter_id])
    assert outcome.done
    view = await client.wait(view.id, timeout=DAY)
    assert seen[4:] == [([2, 3], 2)]
    assert view.nodes["c"].skipped_batches == 0


async def test_a_window_is_tried_again_while_the_next_one_waits_for_artifacts() -> None:
    seen: list[tuple[list[int], int]] = []

    async def once(items: list[dict[str, int]], ctx: RunContext) -> None:
        seen.append(([item["n"] for item in items], ctx.attempt))
        if seen[-1] == ([0], 1):
            raise NodeFailure("not yet")

    retry = {"max": 1, "backoff_sec": 10}
    document = graph(node("p", "p"), reader("p", size=2, max_wait_sec=20, retry_policy=retry))
    async with Cluster(worker_config=LIVELY) as cluster:
        await cluster.run(document, handlers={"p": at_times(0, 22, 70), "c": once})
    assert seen == [([0], 1), ([0], 2), ([1], 1), ([2], 1)]


async def test_a_reader_that_waits_for_its_window_is_cancelled_at_once(
    flowkit_cluster: Cluster,
) -> None:
    windows = Windows()
    await flowkit_cluster.add_worker({"p": at_times(0, 9 * DAY), "c": windows})
    document = graph(node("p", "p"), reader("p", size=2, max_wait_sec=DAY))
    task_id = await flowkit_cluster.client.create_task(graph=document)
    await flowkit_cluster.clock.sleep(60)
    before = flowkit_cluster.clock.monotonic()
    await flowkit_cluster.client.cancel(task_id)
    view = await flowkit_cluster.client.wait(task_id, timeout=DAY)
    assert (view.nodes["c"].status, windows.seen) == ("cancelled", [])
    assert flowkit_cluster.clock.monotonic() - before < 60


async def test_records_of_windows_are_not_artifacts(flowkit_cluster: Cluster) -> None:
    document = graph(counted(5), reader("p", size=2))
    view = await flowkit_cluster.run(document, handlers={"p": numbers, "c": Windows()})
    found = [one.node_id async for one in flowkit_cluster.client.artifacts(view.id)]
    assert sorted(found) == ["c"] * 3 + ["p"] * 5
