"""The artifacts of a short run are stored in the record of its node."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowkit import TaskView
from flowkit.protocols import ArtifactRecord, Stream
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit.worker._kept_back import KEEP_SEC, MOST_BYTES
from flowkit_testing import Cluster
from flowkit_testing._cluster import DAY

LARGE = "x" * MOST_BYTES


class Short(Handler):
    """A handler of as many batches as its input says, with an artifact of the node."""

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for number in range((loaded["input_inline"] or {}).get("batches", 1)):
            yield Batch(str(number), number)

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, {"n": 1}, {"batch": batch.payload})

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        return FinalizeResult({"all": 2}, {"complete": True})


@handler("pull")
async def pull(item: Any, ctx: RunContext) -> dict[str, Any]:
    return {"pulled": item}


@handler("slow")
async def slow(item: Any, ctx: RunContext) -> None:
    await ctx.clock.sleep(60)


PULL = {"input_inline": {"input_adapter": "pull.from_artifacts"}}


def graph(*nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), **fields}


def node(node_id: str, role: str, *after: str, **fields: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": role, "depends_on": list(after), **fields}


async def stored(cluster: Cluster, view: TaskView, node_id: str = "a") -> Sequence[ArtifactRecord]:
    return await cluster.store.artifacts.read(Stream(view.id, node_id))


async def seen(cluster: Cluster, view: TaskView, node_id: str = "a") -> list[tuple[str, Any]]:
    return [(one.uid, one.meta) async for one in cluster.client.artifacts(view.id, node_id)]


def handlers(**more: Any) -> dict[str, Any]:
    return {"short": Short, "pull": pull, "slow": slow, **more}


BOTH = [("0", {"batch": 0}), ("__complete__", {"complete": True})]


async def test_a_run_of_one_batch_reports_its_artifacts_and_stores_none() -> None:
    async with Cluster(handlers=handlers()) as cluster:
        view = await cluster.run(graph(node("a", "short")))
        assert view.nodes["a"].metrics == {"n": 1, "all": 2}
        assert await stored(cluster, view) == []
        assert await seen(cluster, view) == BOTH
        kinds = [event.kind async for event in cluster.client.watch(view.id) if event.node_id]
        assert kinds[-2:] == ["batch", "status"]


async def test_an_async_generator_that_yields_once_reports_its_artifact() -> None:
    @handler("once")
    async def once(item: Any) -> AsyncIterator[dict[str, int]]:
        yield {"x": 1}

    async with Cluster(handlers=handlers(once=once)) as cluster:
        view = await cluster.run(graph(node("a", "once")))
        assert await stored(cluster, view) == []
        assert await seen(cluster, view) == [("0", {"x": 1})]


async def test_the_artifacts_of_a_run_of_two_batches_are_stored() -> None:
    async with Cluster(handlers=handlers()) as cluster:
        io = {"input_inline": {"batches": 2}}
        view = await cluster.run(graph(node("a", "short", io=io)))
        found = [record.uid for record in await stored(cluster, view)]
        assert found == ["0", "1", "__complete__"]
        assert view.nodes["a"].metrics == {"n": 2, "all": 2}
        assert [uid for uid, _ in await seen(cluster, view)] == found


async def test_a_node_whose_readers_start_before_its_end_stores_its_batch() -> None:
    async with Cluster(handlers=handlers()) as cluster:
        io = {**PULL, "start_when": "first_batch"}
        view = await cluster.run(graph(node("a", "short"), node("b", "pull", "a", io=io)))
        assert [record.uid for record in await stored(cluster, view)] == ["0", "__complete__"]


@pytest.mark.parametrize("parents", [1, 30])
async def test_nodes_below_read_the_artifacts(parents: int) -> None:
    """Those of thirty parents are too large for a command."""

    class Filled(Short):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True, {}, {"text": LARGE[: MOST_BYTES // 2]})

    above = [f"a{number}" for number in range(parents)]
    async with Cluster(handlers=handlers(filled=Filled)) as cluster:
        view = await cluster.run(
            graph(*(node(one, "filled") for one in above), node("b", "pull", *above, io=PULL))
        )
        assert await stored(cluster, view, "a0") == []
        assert len(await seen(cluster, view, "b")) == 2 * parents


async def test_a_reader_that_runs_before_the_end_of_a_parent_gets_its_artifacts() -> None:
    class Late(Short):
        async def init(self, run_info: dict[str, Any]) -> None:
            await anyio.lowlevel.checkpoint()
            await cluster.clock.sleep(60)

    async with Cluster(handlers=handlers(late=Late)) as cluster:
        read = node("c", "pull", "a", "b", fan_in="any", io=PULL)
        view = await cluster.run(graph(node("a", "short"), node("b", "late"), read))
        assert await stored(cluster, view, "b") == []
        found = [meta["pulled"] for _, meta in await seen(cluster, view, "c")]
        assert sorted(map(repr, found)) == sorted(2 * [repr(meta) for _, meta in BOTH])


async def test_handlers_and_coordinator_functions_read_them_through_the_context() -> None:
    @handler("reads")
    async def reads(item: Any, ctx: RunContext) -> list[Any]:
        return [meta async for meta in ctx.artifacts.read("a")]

    sums = {"fn": "metrics.aggregate", "fn_args": {"node_id": "a"}}
    async with Cluster(handlers=handlers(reads=reads)) as cluster:
        view = await cluster.run(
            graph(
                node("a", "short"),
                node("b", "reads", "a"),
                node("c", "coordinator_fn", "a", io=sums),
            )
        )
        assert view.nodes["b"].result == [meta for _, meta in BOTH]
        assert view.nodes["c"].result["metrics"] == {"n": 1}


async def test_a_handler_reads_its_own_batch_in_finalize() -> None:
    class Reads(Short):
        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult(result=[meta async for meta in ctx.artifacts.read()])

    async with Cluster(handlers=handlers(reads=Reads)) as cluster:
        view = await cluster.run(graph(node("a", "reads")))
        assert view.nodes["a"].result == [{"batch": 0}]


@pytest.mark.parametrize("large", ["batch", "complete", "result"])
async def test_large_artifacts_and_those_beside_a_large_result_are_stored(large: str) -> None:
    def text(what: str) -> str:
        return LARGE if what == large else ""

    class Filled(Short):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(True, {}, {"text": text("batch")})

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult({}, {"text": text("complete")}, text("result"))

    async with Cluster(handlers=handlers(filled=Filled)) as cluster:
        view = await cluster.run(graph(node("a", "filled")))
        assert [record.uid for record in await stored(cluster, view)] == ["0", "__complete__"]
        assert [uid for uid, _ in await seen(cluster, view)] == ["0", "__complete__"]


async def test_the_batch_of_a_run_that_goes_on_is_stored_after_a_moment() -> None:
    class Goes(Short):
        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            await ctx.clock.sleep(DAY)
            return FinalizeResult({"all": 2}, {"complete": True})

    async with Cluster(handlers=handlers(goes=Goes)) as cluster:
        task_id = await cluster.client.create_task(graph=graph(node("a", "goes")))
        began = cluster.clock.monotonic()
        async for event in cluster.client.watch(task_id):
            if event.kind == "batch":
                break
        assert cluster.clock.monotonic() - began < 1
        view = await cluster.client.wait(task_id)
        assert [record.uid for record in await stored(cluster, view)] == ["0", "__complete__"]
        assert view.nodes["a"].metrics == {"n": 1, "all": 2}


async def test_the_batch_of_an_attempt_that_fails_is_not_processed_again() -> None:
    processed: list[int] = []

    class Fails(Short):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            processed.append(ctx.attempt)
            return await super().process_batch(batch, ctx)

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            if ctx.attempt == 1:
                raise OSError("not yet")
            return await super().finalize(ctx)

    async with Cluster(handlers=handlers(fails=Fails)) as cluster:
        view = await cluster.run(graph(node("a", "fails")))
        assert (processed, view.nodes["a"].attempt) == ([1], 2)
        assert view.nodes["a"].metrics == {"n": 1, "all": 2}
        assert await seen(cluster, view) == BOTH


async def test_the_batch_of_a_cancelled_run_is_stored_and_counted() -> None:
    class Waits(Short):
        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            begun.set()
            await ctx.cancellable(anyio.sleep_forever())
            return FinalizeResult()

    begun = anyio.Event()
    async with Cluster(handlers=handlers(waits=Waits)) as cluster:
        task_id = await cluster.client.create_task(graph=graph(node("a", "waits")))
        await begun.wait()
        await cluster.clock.sleep(KEEP_SEC / 2)
        assert await cluster.store.artifacts.read(Stream(task_id, "a")) == []
        await cluster.client.cancel(task_id)
        view = await cluster.client.wait(task_id)
        assert [record.uid for record in await stored(cluster, view)] == ["0"]
        assert view.nodes["a"].metrics == {"n": 1}


async def test_a_node_that_runs_again_drops_its_artifacts() -> None:
    @handler("once")
    async def once(item: Any, ctx: RunContext) -> None:
        if ctx.attempt == 1:
            raise ValueError("no")

    async with Cluster(handlers=handlers(once=once)) as cluster:
        view = await cluster.run(graph(node("a", "short"), node("b", "once", "a")))
        assert view.status == "failed"
        await cluster.client.retry(view.id, from_nodes=["a"])
        view = await cluster.client.wait(view.id)
        assert (view.status, await seen(cluster, view)) == ("finished", BOTH)


async def test_artifacts_of_a_task_come_in_the_order_of_their_production() -> None:
    io = {"input_inline": {"batches": 2}}
    async with Cluster(handlers=handlers()) as cluster:
        view = await cluster.run(
            graph(
                node("a", "short"),
                node("s", "slow", "a"),
                node("b", "short", "s", io=io),
                node("t", "slow", "b"),
                node("c", "short", "t"),
            )
        )
        found = [one.node_id async for one in cluster.client.artifacts(view.id)]
        assert found == ["a", "a", "b", "b", "b", "c", "c"]
