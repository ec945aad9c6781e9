"""The nodes that run after a failure, their inputs, and the effect of a retry."""

import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from flowkit import Graph, GraphError, TaskView, hookimpl
from flowkit.errors import TaskRefused
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from tests.builders import node

BROKEN: set[str] = set()
"""The nodes that fail."""

UNKNOWN_PAGE = {"reason_code": "bad_input", "error": "ValueError: no such page", "attempt": 1}


@handler("work")
async def work(item: Any, ctx: RunContext) -> Any:
    if ctx.node_id in BROKEN:
        raise ValueError("no such page")
    return {"from": sorted(ctx.results), "errors": ctx.errors}


@handler("numbers")
async def numbers(item: Any, ctx: RunContext) -> AsyncIterator[Any]:
    for number in range(2):
        if number and ctx.node_id in BROKEN:
            raise ValueError("no such page")
        yield {"number": number}


class Class(Handler):
    """A handler that returns the errors in its context, at its start and at its end."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, {"batches": 1}, artifacts_ref={"errors": ctx.errors})

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        return FinalizeResult(result={"errors": ctx.errors})


class Functions:
    """A coordinator function that returns the errors of its node's parents."""

    @hookimpl
    def flowkit_register_functions(self, register: Any) -> None:
        async def errors(ctx: Any) -> Any:
            return ctx.errors

        register("errors", errors)


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(
        handlers={"work": work, "class": Class, "numbers": numbers}, plugins=[Functions()]
    ) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def nothing_is_broken(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.CRITICAL)
    BROKEN.clear()
    yield
    BROKEN.clear()


def inputs(view: TaskView) -> dict[str, list[str] | None]:
    """Return for each node the parents whose results it had, or None if it did not finish."""
    return {
        node_id: one.result["from"] if one.status == "finished" else None
        for node_id, one in view.nodes.items()
    }


async def retried(cluster: Cluster, view: TaskView) -> TaskView:
    await cluster.client.retry(view.id)
    return await cluster.client.wait(view.id)


# ---------------------------------------------------------------- nodes that run


async def test_nothing_below_a_failure_runs_without_data_and_a_retry_completes_every_input(
    cluster: Cluster,
) -> None:
    BROKEN.add("e")
    nodes = [
        node("e"),
        node("f", "work", "e"),
        node("d"),
        node("g", "work", "f", "d"),
        node("h", "work", "g", "d"),
        node("i", "work", "d"),
    ]
    view = await cluster.run({"on_node_failure": "continue", "nodes": nodes})
    assert view.status == "failed"
    assert inputs(view) == {"e": None, "f": None, "d": [], "g": None, "h": None, "i": ["d"]}
    assert {view.nodes[name].reason_code for name in "fgh"} == {"upstream_failed"}
    BROKEN.clear()
    view = await retried(cluster, view)
    assert view.status == "finished"
    assert inputs(view) == {
        "e": [],
        "f": ["e"],
        "d": [],
        "g": ["d", "f"],
        "h": ["d", "g"],
        "i": ["d"],
    }


async def test_a_task_with_a_handled_failure_finishes_without_what_is_below_it(
    cluster: Cluster,
) -> None:
    BROKEN.add("e")
    nodes = [
        node("e", routing={"on_failure": ["b"]}),
        node("f", "work", "e"),
        node("d"),
        node("g", "work", "f", "d"),
        node("b"),
        node("j", "work", "b", "d"),
    ]
    view = await cluster.run({"nodes": nodes})
    assert view.status == "finished"
    assert inputs(view) == {"e": None, "f": None, "d": [], "g": None, "b": [], "j": ["b", "d"]}


@pytest.mark.parametrize(
    ("routing", "advice"),
    [
        ({}, "name that node as well, or leave out from_nodes"),
        ({"on_failure": ["b"]}, "name that node as well"),
    ],
    ids=["a failure", "a handled failure, which a retry without names does not run again"],
)
async def test_a_node_is_not_retried_without_a_failed_node_above_however_far_it_is(
    cluster: Cluster, routing: dict[str, Any], advice: str
) -> None:
    BROKEN.update("ex")
    nodes = [node("e", routing=routing), node("f", "work", "e"), node("g", "work", "f")]
    branch = [node("b")] if routing else []
    graph = {"on_node_failure": "continue", "nodes": [*nodes, *branch, node("x")]}
    view = await cluster.run(graph)
    assert view.status == "failed"
    BROKEN.clear()
    for named in (["g"], ["g", "x"]):
        with pytest.raises(TaskRefused) as refused:
            await cluster.client.retry(view.id, from_nodes=named)
        assert str(refused.value) == (
            f"node 'g' cannot run without node 'e', which did not finish; {advice}"
        )
    assert (await cluster.client.get_task(view.id)).status == "failed"
    await cluster.client.retry(view.id, from_nodes=["e", "g", "x"])
    view = await cluster.client.wait(view.id)
    assert view.status == "finished"
    assert inputs(view) | {"b": None} == {"e": [], "f": ["e"], "g": ["f"], "x": [], "b": None}


SKIPS = node("e", when="params.run")
BRANCHES = node("e", routing={"on_success": ["f"], "on_failure": ["g"]})


@pytest.mark.parametrize(
    ("nodes", "named", "reason"),
    [
        (
            [SKIPS, node("f", "work", "e"), node("g", "work", "f")],
            ["e", "g"],
            "node 'g' cannot run without node 'e', which was skipped; name that node as well",
        ),
        (
            [node("d"), SKIPS, node("g", "work", "d", "e", fan_in="count:2")],
            ["e", "g"],
            "node 'g' cannot run without node 'e', which was skipped; name that node as well",
        ),
        (
            [BRANCHES, node("f"), node("g")],
            ["e"],
            "node 'g' is on a branch that node 'e' did not take; name that node as well",
        ),
    ],
    ids=["over several steps", "too few parents with data", "a branch that was not taken"],
)
async def test_a_node_is_not_retried_without_the_skipped_node_or_the_branch_above(
    cluster: Cluster, nodes: list[dict[str, Any]], named: list[str], reason: str
) -> None:
    BROKEN.add("x")
    graph = {"on_node_failure": "continue", "nodes": [*nodes, node("x")]}
    view = await cluster.run(graph, params={"run": False})
    assert (view.status, view.nodes["g"].status) == ("failed", "skipped")
    BROKEN.clear()
    with pytest.raises(TaskRefused) as refused:
        await cluster.client.retry(view.id, from_nodes=["g", "x"])
    assert str(refused.value) == reason
    await cluster.client.retry(view.id, from_nodes=[*named, "x"])
    assert (await cluster.client.wait(view.id)).status == "finished"


@pytest.mark.parametrize(
    "above",
    [{"routing": {"on_success": ["g"], "on_failure": ["b"]}}, {"optional": True}],
    ids=["its branch was not taken", "optional"],
)
async def test_a_node_is_not_retried_without_the_only_node_above_that_failed(
    cluster: Cluster, above: dict[str, Any]
) -> None:
    BROKEN.update("ex")
    below = [node("g"), node("b")] if "routing" in above else [node("g", "work", "e")]
    nodes = [node("e", **above), *below, node("x")]
    view = await cluster.run({"on_node_failure": "continue", "nodes": nodes})
    assert (view.status, view.nodes["g"].status) == ("failed", "skipped")
    BROKEN.clear()
    with pytest.raises(TaskRefused, match="'e', which did not finish; name that node as well$"):
        await cluster.client.retry(view.id, from_nodes=["g"])
    await cluster.client.retry(view.id, from_nodes=["e", "g", "x"])
    view = await cluster.client.wait(view.id)
    assert (view.status, view.nodes["g"].status) == ("finished", "finished")


async def test_a_node_that_can_do_without_a_failed_one_is_retried_alone(cluster: Cluster) -> None:
    BROKEN.update("eg")
    nodes = [node("e"), node("d"), node("g", "work", "e", "d", fan_in="any")]
    view = await cluster.run({"on_node_failure": "continue", "nodes": nodes})
    BROKEN.remove("g")
    await cluster.client.retry(view.id, from_nodes=["g"])
    assert inputs(await cluster.client.wait(view.id)) == {"e": None, "d": [], "g": ["d"]}


async def test_explain_names_the_failure_above_however_far_it_is(cluster: Cluster) -> None:
    BROKEN.add("e")
    nodes = [
        node("e", routing={"on_success": ["a"]}),
        node("a"),
        node("f", "work", "a"),
        node("d"),
        node("g", "work", "f", "d"),
    ]
    view = await cluster.run({"on_node_failure": "continue", "nodes": nodes})
    assert (
        await cluster.client.explain(view.id, "a")
        == "'a' was skipped because 'e', which it depends on, failed."
    )
    assert (
        await cluster.client.explain(view.id, "g")
        == "'g' was skipped because 'e', which stands above it, failed."
    )


async def test_a_node_that_waits_for_the_end_of_its_parents_sees_their_results_and_errors(
    cluster: Cluster,
) -> None:
    BROKEN.add("e")
    nodes = [
        node("e"),
        node("d"),
        node("f", "work", "e"),
        node("tidy", "work", "e", "d", "f", fan_in="ended"),
    ]
    view = await cluster.run({"on_node_failure": "continue", "nodes": nodes})
    assert view.status == "failed"
    assert view.nodes["tidy"].result == {"from": ["d"], "errors": {"e": UNKNOWN_PAGE}}
    BROKEN.clear()
    view = await retried(cluster, view)
    assert view.nodes["tidy"].result == {"from": ["d", "e", "f"], "errors": {}}


async def test_a_node_that_waits_for_the_end_of_its_parents_reads_what_a_failed_one_stored(
    cluster: Cluster,
) -> None:
    BROKEN.add("half")
    pulls = {"input_inline": {"input_adapter": "pull.from_artifacts"}}
    nodes = [
        node("half", "numbers"),
        node("all", "numbers"),
        node("tidy", "class", "half", "all", fan_in="ended", io=pulls),
    ]
    view = await cluster.run({"on_node_failure": "continue", "nodes": nodes})
    assert (view.status, view.nodes["tidy"].metrics) == ("failed", {"batches": 3})


async def test_explain_tells_a_branch_that_was_not_taken_from_a_failure(cluster: Cluster) -> None:
    BROKEN.add("e")
    nodes = [node("e", routing={"on_success": ["a"], "on_failure": ["b"]}), node("a"), node("b")]
    view = await cluster.run({"nodes": nodes})
    assert (
        await cluster.client.explain(view.id, "a")
        == "'a' was skipped: no branch that leads to it was taken."
    )


async def test_explain_names_the_parent_with_which_a_node_was_skipped(cluster: Cluster) -> None:
    nodes = [node("a", when="false"), node("b", "work", "a"), node("c", "work", "b")]
    view = await cluster.run({"nodes": nodes})
    assert [await cluster.client.explain(view.id, each) for each in ("a", "b", "c")] == [
        "'a' was skipped: its condition is false.",
        "'b' was skipped: its parents ended without data, and 'a' was skipped.",
        "'c' was skipped: its parents ended without data, and 'b' was skipped.",
    ]


# ------------------------------------------------ inputs of failure handlers


async def test_what_stands_on_the_branch_of_a_failure_is_given_the_error(cluster: Cluster) -> None:
    BROKEN.add("e")
    function = {"node_id": "fn", "type": "coordinator_fn", "io": {"fn": "errors"}}
    branch = {"on_failure": ["h", "c", "fn"]}
    nodes = [
        node("e", routing=branch),
        node("d"),
        node("h", "work", "d"),
        node("c", type="class"),
        function,
        node("below", "work", "h"),
    ]
    view = await cluster.run({"nodes": nodes})
    assert view.nodes["h"].result == {"from": ["d"], "errors": {"e": UNKNOWN_PAGE}}
    assert view.nodes["c"].result == {"errors": {"e": UNKNOWN_PAGE}}
    assert view.nodes["fn"].result == {"e": UNKNOWN_PAGE}
    assert view.nodes["below"].result == {"from": ["h"], "errors": {}}
    (artifact,) = [artifact async for artifact in cluster.client.artifacts(view.id, "c")]
    assert artifact.meta == {"errors": {"e": UNKNOWN_PAGE}}


async def test_one_branch_of_several_nodes_is_given_the_errors_of_those_that_failed(
    cluster: Cluster,
) -> None:
    BROKEN.update({"e", "g"})
    branch = {"on_failure": ["h"]}
    nodes = [
        node("e", routing=branch),
        node("f", "work", "e", routing=branch),
        node("g", routing=branch),
        node("ok", routing=branch),
        node("h"),
    ]
    view = await cluster.run({"nodes": nodes})
    assert view.nodes["h"].result["errors"] == {"e": UNKNOWN_PAGE, "g": UNKNOWN_PAGE}


async def test_a_node_that_any_starts_is_given_the_errors_of_the_parents_that_failed_before(
    cluster: Cluster,
) -> None:
    BROKEN.add("e")
    nodes = [
        node("e"),
        node("d"),
        node("later", "work", "d"),
        node("one", "work", "e", "later", fan_in="any"),
    ]
    # In a segment, "later" could end before the failure is known.
    flow = {"on_node_failure": "continue", "segments": "off", "nodes": nodes}
    view = await cluster.run(flow)
    assert view.nodes["one"].result == {"from": ["later"], "errors": {"e": UNKNOWN_PAGE}}


async def test_errors_are_given_too_where_the_input_is_read_from_the_store(
    cluster: Cluster,
) -> None:
    BROKEN.add("e")
    parents = [f"p{number}" for number in range(300)]
    nodes = [
        node("e", routing={"on_failure": ["h"]}),
        *map(node, parents),
        node("h", "work", *parents),
    ]
    view = await cluster.run({"nodes": nodes})
    assert (len(view.nodes["h"].result["from"]), view.nodes["h"].result["errors"]) == (
        300,
        {"e": UNKNOWN_PAGE},
    )


async def test_the_error_that_is_given_is_of_the_last_attempt(cluster: Cluster) -> None:
    @handler("never")
    async def never(item: Any, ctx: RunContext) -> None:
        raise OSError(f"try {ctx.attempt}")

    await cluster.add_worker([never])
    policy = {"max": 2, "backoff_sec": 1}
    nodes = [node("e", type="never", retry_policy=policy, routing={"on_failure": ["h"]}), node("h")]
    view = await cluster.run({"nodes": nodes})
    assert view.nodes["h"].result["errors"] == {
        "e": {"reason_code": "unexpected_error", "error": "OSError: try 3", "attempt": 3}
    }


# ---------------------------------------------------------------- the task's result


@pytest.mark.parametrize("on_node_failure", ["continue", "stop"])
async def test_a_failed_task_has_the_results_of_the_last_nodes_that_finished(
    cluster: Cluster, on_node_failure: str
) -> None:
    BROKEN.add("e")
    nodes = [
        node("first"),
        node("last"),
        node("middle", "work", "first"),
        node("e", "work", "middle", "last"),
        node("done", "work", "first"),
        node("below", "work", "e"),
    ]
    view = await cluster.run({"on_node_failure": on_node_failure, "nodes": nodes})
    assert view.status == "failed"
    assert view.result == {"done": {"from": ["first"], "errors": {}}}


async def test_a_task_whose_last_nodes_did_not_finish_has_an_empty_result(cluster: Cluster) -> None:
    BROKEN.add("e")
    view = await cluster.run({"nodes": [node("d"), node("e", "work", "d")]})
    assert (view.status, view.result) == ("failed", {})


async def test_a_task_that_has_not_ended_has_no_result(cluster: Cluster) -> None:
    task_id = await cluster.client.create_task(
        graph={"nodes": [node("a"), node("b", type="missing")]}
    )
    await cluster.clock.sleep(60)
    view = await cluster.client.get_task(task_id)
    assert (view.nodes["a"].status, view.result) == ("finished", None)
    await cluster.client.cancel(task_id)
    assert (await cluster.client.wait(task_id)).result == {"a": {"from": [], "errors": {}}}


# ---------------------------------------------------------------- advice


@pytest.mark.parametrize("broken", [True, False])
async def test_the_advice_for_a_node_on_both_branches_works(cluster: Cluster, broken: bool) -> None:
    both = {"on_success": ["f"], "on_failure": ["f"]}
    with pytest.raises(
        GraphError,
        match=(
            r"add a node on each branch \(a noop function is enough\) and make it depend on both"
        ),
    ):
        Graph.parse({"nodes": [node("a", routing=both), node("f")]})
    if broken:
        BROKEN.add("a")
    noop = {"type": "coordinator_fn", "io": {"fn": "noop"}}
    branches = {"on_success": ["good"], "on_failure": ["bad"]}
    nodes = [
        node("a", routing=branches),
        node("good", **noop),
        node("bad", **noop),
        node("f", "work", "good", "bad"),
    ]
    view = await cluster.run({"nodes": nodes})
    assert (view.status, view.nodes["f"].status) == ("finished", "finished")


# ---------------------------------------------------------------- readers of some parents


@handler("rows")
async def rows(item: Any, ctx: RunContext) -> AsyncIterator[Any]:
    yield {"row": 1}
    if ctx.node_id in BROKEN:
        raise ValueError("no such page")
    yield {"row": 2}


@handler("late")
async def late(item: Any, ctx: RunContext) -> None:
    await ctx.clock.sleep(60)


class Proposes(Handler):
    """A handler that counts the batches of an input adapter that its graph does not name."""

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        return {"input_adapter": "pull.from_artifacts", "input_args": {"from_node": "rows"}}

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(True, {"rows": 1})

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        return FinalizeResult(result=[meta["row"] async for meta in ctx.artifacts.read("rows")])


@handler("needs_one")
async def needs_one(item: Any, ctx: RunContext) -> list[str]:
    return sorted(ctx.results)


READERS = {
    "pulls": ({"type": "proposes"}, [1], [1, 2]),
    "does not pull": ({"type": "needs_one"}, ["late"], ["late"]),
}


@pytest.mark.parametrize(("fields", "before", "after"), READERS.values(), ids=READERS)
async def test_a_node_of_some_parents_reruns_with_a_failed_parent_if_its_handler_chose_to_pull(
    fields: dict[str, Any], before: Any, after: Any
) -> None:
    BROKEN.add("rows")
    nodes = [
        node("rows", type="rows"),
        node("late", type="late"),
        node("reader", "work", "rows", "late", fan_in="any", **fields),
    ]
    async with Cluster(
        handlers={"rows": rows, "late": late, "proposes": Proposes, "needs_one": needs_one}
    ) as cluster:
        view = await cluster.run({"on_node_failure": "continue", "nodes": nodes})
        assert (view.status, view.nodes["reader"].result) == ("failed", before)
        BROKEN.clear()
        view = await retried(cluster, view)
        assert (view.status, view.nodes["reader"].result) == ("finished", after)
        assert view.nodes["reader"].attempt == (2 if before == [1] else 1)
