"""Undos and ``finally`` of running flows, over a coordinator and a worker."""

from typing import Any

import pytest

from flowkit.errors import TaskRefused
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import ended, graph, node

pytestmark = pytest.mark.anyio

done: list[Any] = []


@handler("work")
async def work(item: Any, ctx: RunContext) -> dict[str, Any]:
    done.append(ctx.node_id)
    if item == "fail":
        raise ValueError("no such page")
    return {"node": ctx.node_id}


@handler("see")
async def see(item: Any, ctx: RunContext) -> Any:
    return {"item": item, "results": ctx.results, "errors": sorted(ctx.errors)}


@handler("pages")
async def pages(item: Any) -> Any:
    for number in range(item):
        yield {"number": number}


@handler("remove")
async def remove(item: Any) -> Any:
    return {"removed": item["number"]}


@handler("wait")
async def wait(item: Any, ctx: RunContext) -> None:
    done.append("waiting")
    await ctx.clock.sleep(1000)


HANDLERS = [work, see, pages, remove, wait]
FAILS = {"input_inline": "fail"}
ASKED = {
    "status": "${task.status}",
    "error": "${task.error}",
    "results": "${results}",
    "error of": "${errors.b.reason_code}",
}


async def test_undos_and_finally_see_what_their_names_promise() -> None:
    undo = {"type": "see", "io": {"input_inline": ["${result.node}", "${results.a}"]}}
    final = node("f", "see", io={"input_inline": ASKED})
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(
            graph(node("a", undo=undo), node("b", "work", "a", io=FAILS), **{"finally": [final]})
        )
    assert view.status == "failed"
    made = {"node": "a"}
    undone = {"item": ["a", made], "results": {"a": made}, "errors": []}
    assert view.nodes["a~undo"].result == undone
    assert view.nodes["f"].result["item"] == {
        "status": "failed",
        "error": "node 'b' failed: bad_input: ValueError: no such page",
        "results": {"a": made, "b": None, "a~undo": undone},
        "error of": "bad_input",
    }
    assert view.result == {}
    phases = {node_id: one.phase for node_id, one in view.nodes.items()}
    assert phases == {"a": "main", "b": "main", "f": "finally", "a~undo": "undo"}


async def test_conditions_and_functions_of_finally_see_the_end_of_the_task() -> None:
    final = [
        node("good", "work", when="task.status == 'finished' && task.error == null"),
        node("bad", "work", when="task.status == 'failed'"),
        {
            "node_id": "note",
            "type": "coordinator_fn",
            "io": {"fn": "vars.set", "fn_args": {"kv": {"end": "${task.status}"}}},
        },
    ]
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(graph(node("a"), **{"finally": final}))
    assert [view.nodes[name].status for name in ("good", "bad")] == ["finished", "skipped"]
    assert view.vars == {"end": "finished"}
    assert view.result == {"a": {"node": "a"}}


async def test_an_undo_pulls_the_artifacts_of_its_node() -> None:
    pull = {"input_adapter": "pull.from_artifacts"}
    undo = {"type": "remove", "io": {"input_inline": pull}}
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(
            graph(
                node("a", "pages", io={"input_inline": 3}, undo=undo),
                node("b", "work", "a", io=FAILS),
            )
        )
        found = [item.meta async for item in cluster.client.artifacts(view.id, "a~undo")]
    assert view.nodes["a~undo"].status == "finished"
    assert found == [{"removed": number} for number in range(3)]


async def test_a_cancelled_task_reports_its_undos_and_ends_with_its_reason() -> None:
    flow = graph(node("a", undo={"type": "work"}), node("b", "wait", "a"))
    async with Cluster(handlers=HANDLERS) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        await cluster.client.cancel(task_id, "wrong month")
        view = await ended(cluster, task_id)
        events = [event async for event in cluster.client.watch(task_id)]
    assert (view.status, view.error) == ("cancelled", "wrong month")
    assert [(one.node_id, one.status) for one in events if one.node_id in (None, "a~undo")] == [
        (None, "queued"),
        (None, "running"),
        (None, "cancelling"),
        ("a~undo", "queued"),
        ("a~undo", "running"),
        ("a~undo", "finished"),
        (None, "cancelled"),
    ]


async def test_a_failed_undo_is_a_dead_letter_whose_retry_runs_it_alone() -> None:
    undo = {"type": "work", "io": {"input_inline": "${vars.undo}"}}
    done.clear()
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(
            graph(node("a", undo=undo), node("b", "work", "a", io=FAILS), node("c", "work"))
        )
        assert view.nodes["a~undo"].reason_code == "bad_expression"
        explained = await cluster.client.explain(view.id, "a~undo")
        assert explained.endswith(
            f"The other undos run all the same. To run this one again, retry its dead letter when"
            f" the task has ended: see `flowkit dlq ls --task {view.id}`."
        )
        letters = (await cluster.client.dead_letters(task_id=view.id)).items
        (letter,) = [one.letter_id for one in letters if one.node_id == "a~undo"]
        (outcome,) = await cluster.client.retry_dead_letters([letter])
        assert outcome.done
        again = await ended(cluster, view.id)
    assert (again.status, again.nodes["a~undo"].attempt) == ("failed", 2)
    assert sorted(done) == ["a", "b", "c"]


async def test_undos_and_nodes_of_finally_are_not_named_in_a_retry() -> None:
    flow = graph(node("a", io=FAILS, undo={"type": "work"}), **{"finally": [node("f")]})
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(flow)
        for name, said in (("f", "in finally"), ("a~undo", "an undo")):
            with pytest.raises(TaskRefused, match=f"node '{name}' is {said}, and runs again"):
                await cluster.client.retry(view.id, from_nodes=[name])


async def test_many_nodes_are_undone_in_order_although_their_records_are_archived() -> None:
    names = [f"n{number}" for number in range(600)]
    undo = {"undo": {"type": "work"}}
    done.clear()
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(
            graph(*(node(name, **undo) for name in names), node("z", "work", *names, io=FAILS))
        )
        events = [event async for event in cluster.client.watch(view.id)]
    assert view.status == "failed"
    assert {one for one in done if "~" in one} == {f"{name}~undo" for name in names}
    assert len(done) == 1201
    ends = [event.node_id for event in events if event.status == "finished"]
    finished = [name for name in ends if name in names]
    assert done[601:] == [f"{name}~undo" for name in reversed(finished)]
