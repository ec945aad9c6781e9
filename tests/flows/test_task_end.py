"""The coordinator function ``task.end``."""

from typing import Any

import anyio
import pytest

from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import ended, graph, node

pytestmark = pytest.mark.anyio

done: list[str] = []


@handler("work")
async def work(item: Any, ctx: RunContext) -> str:
    done.append(ctx.node_id)
    return ctx.node_id


@handler("hang")
async def hang(item: Any, ctx: RunContext) -> None:
    await ctx.cancellable(anyio.sleep_forever())


HANDLERS = [work, hang]


def end(*after: str, **args: Any) -> dict[str, Any]:
    io = {"fn": "task.end", "fn_args": args}
    return {"node_id": "end", "type": "coordinator_fn", "depends_on": list(after), "io": io}


def flow(**args: Any) -> dict[str, Any]:
    """Return a graph that ends while one of its nodes runs and another one waits."""
    tidy = node("tidy", io={"input_inline": "${task.status}"})
    return graph(
        node("a", undo={"type": "work"}),
        node("b", "hang"),
        end("a", **args),
        node("c", "work", "end"),
        **{"finally": [tidy]},
    )


@pytest.mark.parametrize(
    ("args", "status", "error", "reason_code"),
    [
        ({"status": "finished"}, "finished", None, "task_ended"),
        ({"status": "failed", "error": "no rows"}, "failed", "no rows", "task_failed"),
        ({"status": "failed"}, "failed", "node 'end' ended the task", "task_failed"),
        ({"status": "cancelled", "error": "stale"}, "cancelled", "stale", "cancelled"),
        ({"status": "cancelled"}, "cancelled", None, "cancelled"),
    ],
)
async def test_a_task_ends_as_requested(
    args: dict[str, Any], status: str, error: str | None, reason_code: str
) -> None:
    done.clear()
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(flow(result={"rows": 0}, **args))
        explained = await cluster.client.explain(view.id, "b")
    assert (view.status, view.error, view.result) == (status, error, {"rows": 0})
    assert done == (["a", "tidy"] if status == "finished" else ["a", "a~undo", "tidy"])
    stopped = [view.nodes[name] for name in "bc"]
    assert [(one.status, one.reason_code) for one in stopped] == [("cancelled", reason_code)] * 2
    assert explained.startswith("'b' was cancelled: ")
    if status == "finished":
        assert explained == "'b' was cancelled: the task was ended by task.end."


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"status": "${'done'}"}, "status must be 'finished', 'failed' or 'cancelled', not 'done'"),
        ({"status": "failed", "error": 3}, "error must be a text, not int"),
        ({"status": "finished", "error": "x"}, "a finished task has no error; remove error"),
    ],
)
async def test_wrong_arguments_fail_the_node(args: dict[str, Any], said: str) -> None:
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(graph(end(**args)))
    assert view.status == "failed"
    assert view.nodes["end"].reason_code == "bad_input"
    assert said in (view.nodes["end"].error or "")


async def test_the_result_replaces_the_output_of_the_graph() -> None:
    document = graph(node("a"), end("a", status="finished", result=7), output="${results.a}")
    async with Cluster(handlers=HANDLERS) as cluster:
        assert (await cluster.run(document)).result == 7


async def test_the_first_end_counts() -> None:
    ends = [end("a", status=status) | {"node_id": status} for status in ("finished", "failed")]
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(graph(node("a"), *ends))
    assert view.status == "finished"


async def test_a_retry_runs_the_node_that_ended_the_task_badly_again() -> None:
    condition = {"status": "${has(vars.ready) ? 'finished' : 'failed'}"}
    ready = {
        "node_id": "ready",
        "type": "coordinator_fn",
        "io": {"fn": "vars.set", "fn_args": {"kv": {"ready": True}}},
    }
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(graph(end(**condition), **{"finally": [ready]}))
        assert view.status == "failed"
        await cluster.client.retry(view.id)
        assert (await ended(cluster, view.id)).status == "finished"
