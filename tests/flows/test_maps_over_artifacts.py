"""Maps over the artifacts of a parent: children start while it still stores more."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from flowkit import CoordinatorConfig
from flowkit.task import TaskView
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from tests.builders import DAY, graph, node

ITEM = {"input_inline": {"item": "${item}", "index": "${index}"}}
ONCE = {"retry_policy": {"max": 0}}


def over_artifacts(type: str = "double", **fields: Any) -> dict[str, Any]:  # noqa: A002
    spec = {"over": {"artifacts": "p"}, **fields.pop("map", {})}
    return node("m", type, **{"io": ITEM, "depends_on": ["p"], **fields, "map": spec})


@handler("double")
async def double(item: Any) -> int:
    return int(item["item"]["n"]) * 2


class Source:
    """A parent that stores artifacts, with a pause after each one."""

    def __init__(
        self, count: int, *, pause_sec: float = 10, fails_after: int | None = None
    ) -> None:
        self.count = count
        self.pause_sec = pause_sec
        self.fails_after = fails_after

    async def run(self, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        for n in range(self.count):
            if n == self.fails_after:
                raise RuntimeError("it broke")
            yield {"n": n}
            if self.pause_sec:
                await ctx.clock.sleep(self.pause_sec)


class Doubles:
    """A handler of children that fails for some items."""

    def __init__(self, *broken: int) -> None:
        self.broken = set(broken)
        self.ran: list[int] = []

    async def run(self, item: Any) -> int:
        n = item["item"]["n"]
        self.ran.append(n)
        if n in self.broken:
            raise RuntimeError(f"item {n} is broken")
        return int(n) * 2


def handlers(given: Source, doubles: Doubles | None = None) -> dict[str, Any]:
    run = (doubles or Doubles()).run
    return {"source": handler("source")(given.run), "double": handler("double")(run)}


P = node("p", "source", **ONCE)


async def retried(cluster: Cluster, view: TaskView, *named: str) -> TaskView:
    await cluster.client.retry(view.id, from_nodes=list(named) or None)
    return await cluster.client.wait(view.id, timeout=DAY)


async def test_children_start_while_the_parent_still_stores_artifacts() -> None:
    async with Cluster(handlers=handlers(Source(3, pause_sec=100))) as cluster:
        task_id = await cluster.client.create_task(graph=graph(P, over_artifacts()))
        await cluster.clock.sleep(101)
        view = await cluster.client.get_task(task_id)
        explained = await cluster.client.explain(task_id, "m")
        assert view.nodes["p"].status == "running"
        assert view.nodes["m"].children == {"finished": 2}
        assert explained == (
            "'m' is running: 2 of its 2 children have ended, and 'p' may store more artifacts."
        )
        view = await cluster.client.wait(task_id, timeout=DAY)
    assert (view.status, view.nodes["m"].result) == ("finished", [0, 2, 4])


async def test_the_map_ends_after_its_last_child() -> None:
    class Slow(Doubles):
        async def run(self, item: Any, ctx: RunContext) -> int:  # type: ignore[override]
            await ctx.clock.sleep(1000)
            return await super().run(item)

    async with Cluster(handlers=handlers(Source(2), Slow())) as cluster:
        view = await cluster.run(graph(P, over_artifacts()))
    ends = [view.nodes[name].finished_at for name in ("p", "m[1]", "m")]
    assert ends == sorted(filter(None, ends))
    assert view.result == {"m": [0, 2]}


@pytest.mark.parametrize(("number", "pause_sec"), [(700, 0), (40, 5)])
async def test_each_artifact_makes_one_child_in_the_order_of_the_artifacts(
    number: int, pause_sec: float
) -> None:
    doubles = Doubles()
    async with Cluster(handlers=handlers(Source(number, pause_sec=pause_sec), doubles)) as cluster:
        view = await cluster.run(graph(P, over_artifacts()))
        page = await cluster.client.nodes(view.id, map="m", limit=1_000)
    assert view.result == {"m": [2 * n for n in range(number)]}
    assert sorted(doubles.ran) == list(range(number))
    assert [one.node_id for one in page.items] == [f"m[{n}]" for n in range(number)]


async def test_a_map_that_starts_after_its_parent_has_ended_reads_all_artifacts() -> None:
    async def long(ctx: RunContext) -> None:
        await ctx.clock.sleep(1000)

    found = handlers(Source(120, pause_sec=0)) | {"long": handler("long")(long)}
    async with Cluster(handlers=found) as cluster:
        m = over_artifacts(depends_on=["p", "long"])
        view = await cluster.run(graph(P, node("long", "long"), m))
    assert view.result == {"m": [2 * n for n in range(120)]}


async def test_maps_grow_by_turns() -> None:
    maps = [over_artifacts(), {**over_artifacts(), "node_id": "m2"}]
    both = {"input_inline": ["${results.m}", "${results.m2}"]}
    end = node("z", "both", depends_on=["m", "m2"], io=both)
    found = handlers(Source(40, pause_sec=1)) | {"both": handler("both")(lambda item: item)}
    async with Cluster(handlers=found) as cluster:
        view = await cluster.run(graph(P, *maps, end))
    assert view.result == {"z": [[2 * n for n in range(40)]] * 2}


async def test_a_parent_without_artifacts_gives_an_empty_result() -> None:
    async with Cluster(handlers=handlers(Source(0))) as cluster:
        view = await cluster.run(graph(P, over_artifacts()))
    assert (view.status, view.result) == ("finished", {"m": []})


@pytest.mark.parametrize("kind", ["subflow", "double"])
async def test_a_parent_with_a_result_and_no_artifacts_is_an_error_that_says_so(kind: str) -> None:
    one = handler("source")(lambda: [1, 2])
    io = {"graph": {"nodes": [node("d", "double")]}} if kind == "subflow" else ITEM
    async with Cluster(handlers=[one, handler("double")(Doubles().run)]) as cluster:
        view = await cluster.run(graph(P, over_artifacts(kind, io=io)))
    m = view.nodes["m"]
    assert (m.status, m.reason_code, m.attempt) == ("failed", "bad_input_args", 1)
    assert m.error == (
        "node 'p' finished with a result and stored no artifacts, so there is nothing to map over;"
        " map over its result, or let it store artifacts"
    )


async def test_a_parent_in_batches_with_a_complete_artifact_alone_gives_an_empty_result() -> None:
    class Whole(Handler):
        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            return BatchResult(success=True)

        async def finalize(self, ctx: RunContext) -> FinalizeResult:
            return FinalizeResult(result=1, artifacts_ref={"n": 1})

    async with Cluster(handlers=handlers(Source(0)) | {"source": Whole()}) as cluster:
        view = await cluster.run(graph(P, over_artifacts()))
    assert (view.status, view.result) == ("finished", {"m": []})


async def test_batches_without_an_artifact_make_no_child() -> None:
    class Odd(Handler):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            for n in range(60):
                yield Batch(str(n), n)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            odd = {"n": batch.payload} if batch.payload % 20 == 1 else None
            return BatchResult(success=True, artifacts_ref=odd)

    async with Cluster(handlers=handlers(Source(0)) | {"source": Odd()}) as cluster:
        view = await cluster.run(graph(P, over_artifacts()))
    assert view.result == {"m": [2, 42, 82]}


async def test_the_map_is_stopped_with_a_parent_that_fails() -> None:
    given, doubles = Source(4, fails_after=2), Doubles()
    go_on = {"on_node_failure": "continue"}
    async with Cluster(handlers=handlers(given, doubles)) as cluster:
        view = await cluster.run(graph(P, over_artifacts(), **go_on))
        assert (view.status, view.nodes["m"].status) == ("failed", "cancelled")
        assert view.nodes["m"].reason_code == "upstream_failed"
        given.fails_after = None
        view = await retried(cluster, view)
    assert (view.status, view.result) == ("finished", {"m": [0, 2, 4, 6]})
    assert doubles.ran == [0, 1, 2, 3]


@pytest.mark.parametrize("reads", ["a map", "a reader"])
async def test_nodes_below_run_if_the_optional_parent_fails(reads: str) -> None:
    async def slow(item: Any, ctx: RunContext) -> dict[str, int]:
        await ctx.clock.sleep(1000)
        return {"n": 1}

    p = node("p", "source", optional=True, **ONCE)
    reader = node("m", "double", depends_on=["p"], io={"start_when": "first_batch"})
    m = over_artifacts() if reads == "a map" else reader
    other, z = node("o", "source"), node("z", "done", depends_on=["m", "o"])
    given = Source(4, fails_after=2)

    async def source(ctx: RunContext) -> AsyncIterator[dict[str, int]]:
        if ctx.node_id == "p":
            async for one in given.run(ctx):
                yield one

    found = [handler("source")(source), handler("double")(slow), handler("done")(lambda: 1)]
    async with Cluster(handlers=found) as cluster:
        view = await cluster.run(graph(p, m, other, z))
        explained = await cluster.client.explain(view.id, "m")
    assert (view.status, view.result) == ("finished", {"z": 1})
    assert (view.nodes["m"].status, view.nodes["m"].reason_code) == ("skipped", "upstream_skipped")
    assert explained == (
        "'m' was skipped: its parents ended without data, and 'p' is optional and failed."
    )


async def test_an_attempt_of_the_parent_that_is_retried_makes_no_child_twice() -> None:
    class Fails(Source):
        async def run(self, ctx: RunContext) -> AsyncIterator[dict[str, int]]:
            self.fails_after = 2 if ctx.attempt == 1 else None
            async for one in super().run(ctx):
                yield one

    doubles = Doubles()
    async with Cluster(handlers=handlers(Fails(4), doubles)) as cluster:
        view = await cluster.run(graph(node("p", "source"), over_artifacts()))
    assert view.result == {"m": [0, 2, 4, 6]}
    assert doubles.ran == [0, 1, 2, 3]


async def test_a_child_that_fails_stops_the_map_while_the_parent_runs() -> None:
    doubles = Doubles(1)
    async with Cluster(handlers=handlers(Source(5), doubles)) as cluster:
        view = await cluster.run(graph(P, over_artifacts(**ONCE)))
        assert view.nodes["m"].reason_code == "map_item_failed"
        assert view.nodes["p"].status == "cancelled"
        doubles.broken.clear()
        view = await retried(cluster, view)
    assert (view.status, view.result) == ("finished", {"m": [0, 2, 4, 6, 8]})
    assert doubles.ran == [0, 1, 1, 2, 3, 4]


async def test_with_continue_failed_children_leave_null() -> None:
    spec = {"on_item_failure": "continue", "max_parallel": 1}
    async with Cluster(handlers=handlers(Source(3), Doubles(1))) as cluster:
        view = await cluster.run(graph(P, over_artifacts(map=spec, **ONCE)))
    assert view.result == {"m": [0, None, 4]}


async def test_a_retry_of_one_child_runs_it_alone() -> None:
    doubles = Doubles()
    broken = node("z", "breaks", depends_on=["m"], **ONCE)
    ends = iter([RuntimeError("it broke"), None])

    async def breaks() -> None:
        if (error := next(ends)) is not None:
            raise error

    found = handlers(Source(3), doubles) | {"breaks": handler("breaks")(breaks)}
    async with Cluster(handlers=found) as cluster:
        view = await cluster.run(graph(P, over_artifacts(), broken))
        assert view.status == "failed"
        view = await retried(cluster, view, "m[1]")
    assert (view.status, view.nodes["m"].result) == ("finished", [0, 2, 4])
    assert doubles.ran == [0, 1, 2, 1]


async def test_artifacts_that_are_stored_again_make_new_children() -> None:
    doubles = Doubles(2)
    async with Cluster(handlers=handlers(Source(3, pause_sec=0), doubles)) as cluster:
        view = await cluster.run(graph(P, over_artifacts(map={"max_parallel": 1}, **ONCE)))
        doubles.broken.clear()
        view = await retried(cluster, view, "p")
    assert (view.status, view.nodes["m"].result) == ("finished", [0, 2, 4])
    assert sorted(doubles.ran) == [0, 0, 1, 1, 2, 2]


async def test_more_artifacts_than_the_limit_fail_the_map() -> None:
    cfg = CoordinatorConfig(limits={"max_map_items": 2})
    async with Cluster(handlers=handlers(Source(5)), coordinator_config=cfg) as cluster:
        view = await cluster.run(graph(P, over_artifacts()))
    assert view.nodes["m"].reason_code == "map_too_large"
    assert view.nodes["m"].error == (
        "'p' has stored 3 artifacts, above the limit of 2 items (limits.max_map_items)"
    )


async def test_a_pause_starts_no_children_and_a_cancel_ends_them() -> None:
    async with Cluster(handlers=handlers(Source(10, pause_sec=100))) as cluster:
        task_id = await cluster.client.create_task(graph=graph(P, over_artifacts()))
        await cluster.clock.sleep(150)
        await cluster.client.pause(task_id)
        await cluster.clock.sleep(200)
        view = await cluster.client.get_task(task_id)
        assert view.nodes["m"].children == {"finished": 2, "paused": 2}
        await cluster.client.cancel(task_id)
        view = await cluster.client.wait(task_id, timeout=DAY)
    assert view.nodes["m"].children == {"finished": 2, "cancelled": 2}


async def test_max_parallel_of_the_graph_leaves_places_to_the_children() -> None:
    async with Cluster(handlers=handlers(Source(3))) as cluster:
        view = await cluster.run(graph(P, over_artifacts(), max_parallel=1))
    assert view.result == {"m": [0, 2, 4]}


async def test_children_see_the_results_of_other_parents() -> None:
    other = node("other", "seen", io={"input_inline": 7})
    seen = handler("seen")(lambda item, ctx: [item, dict(ctx.results)])
    found = handlers(Source(1)) | {"seen": seen}
    m = over_artifacts("seen", depends_on=["p", "other"], io={"input_inline": "${item.n}"})
    async with Cluster(handlers=found) as cluster:
        view = await cluster.run(graph(P, other, m))
    assert view.nodes["m"].result == [[0, {"other": [7, {}]}]]


async def test_a_graph_runs_for_each_artifact() -> None:
    inner = {"nodes": [node("d", "double", io={"input_inline": {"item": "${params.item}"}})]}
    io = {"graph": {**inner, "output": "${results.d}"}, "params": {"item": "${item}"}}
    async with Cluster(handlers=handlers(Source(3))) as cluster:
        view = await cluster.run(graph(P, over_artifacts("subflow", io=io)))
    assert (view.error, view.result) == (None, {"m": [0, 2, 4]})
