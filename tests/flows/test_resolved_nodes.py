"""Operators settle nodes of every kind, on a cluster in virtual time."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowkit.errors import TaskNotFound, TaskRefused
from flowkit.task import TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import ended, graph, node, pull, work


class Handlers:
    """A handler that runs until it is cancelled, and one that stores a batch before that."""

    def __init__(self) -> None:
        self.began = anyio.Event()
        self.cancelled: list[str | None] = []
        self.late = 0

        @handler("hang")
        async def hang(item: Any, ctx: RunContext) -> None:
            self.began.set()
            try:
                await ctx.cancellable(ctx.clock.sleep(10**6))
            finally:
                self.cancelled.append(ctx.cancel_reason)

        @handler("drip")
        async def drip(item: Any, ctx: RunContext) -> AsyncIterator[Any]:
            yield {"n": 1}
            yield {"n": 2}
            self.began.set()
            await ctx.clock.sleep(10**6)

        @handler("late")
        async def late(item: Any) -> None:
            self.late += 1

        self.all = [hang, drip, late, work]


async def resolved(
    cluster: Cluster,
    handlers: Handlers,
    name: str,
    flow: Any,
    outcome: Any = "finished",
    **more: Any,
) -> TaskView:
    """Run a task until its node hangs, resolve that node, and return the ended task."""
    task_id = await cluster.client.create_task(graph=flow)
    with anyio.fail_after(60):
        await handlers.began.wait()
    await cluster.client.resolve_node(task_id, name, outcome, by="ann", **more)
    return await ended(cluster, task_id)


async def test_a_running_handler_is_cancelled_and_the_task_goes_on_with_the_result() -> None:
    handlers = Handlers()
    flow = graph(node("a", "hang"), node("b", "work", "a", io={"input_inline": "${results.a.n}"}))
    async with Cluster(handlers=handlers.all) as cluster:
        view = await resolved(cluster, handlers, "a", flow, result={"n": 5}, reason="paid by hand")
        assert (view.status, view.result) == ("finished", {"b": 5})
        assert handlers.cancelled == ["ann resolved it as finished: paid by hand"]
        assert (view.nodes["a"].resolved_by, view.nodes["a"].result) == ("ann", {"n": 5})
        told = await cluster.client.explain(view.id, "a")
        assert told == "'a' has finished: ann resolved it as finished: paid by hand."
        events = [event async for event in cluster.client.watch(view.id)]
        (one,) = [event for event in events if event.kind == "resolution"]
        assert one.data == {"outcome": "finished", "by": "ann", "reason": "paid by hand"}
        assert one.node_id == "a"


async def test_the_command_of_a_resolved_node_never_runs() -> None:
    handlers = Handlers()
    flow = graph(node("a", "late"), node("b", "work", "a"))
    async with Cluster() as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        await cluster.client.resolve_node(task_id, "a", "finished", by="ann")
        await cluster.add_worker(handlers.all)
        assert (await ended(cluster, task_id)).status == "finished"
        await cluster.clock.sleep(60)
        assert handlers.late == 0


@pytest.mark.parametrize("outcome", ["failed", "skipped"])
async def test_a_failed_or_skipped_node_is_explained(outcome: str) -> None:
    handlers = Handlers()
    flow = graph(node("a", "hang"), node("b", "work", "a"), on_node_failure="continue")
    async with Cluster(handlers=handlers.all) as cluster:
        view = await resolved(cluster, handlers, "a", flow, outcome, reason="no hope")
        a = view.nodes["a"]
        assert (a.status, a.reason_code) == (outcome, "resolved")
        assert a.error == f"ann resolved it as {outcome}: no hope"
        assert view.status == ("failed" if outcome == "failed" else "finished")
        assert view.nodes["b"].status == "skipped"
        assert str(a.error) in await cluster.client.explain(view.id, "a")
        letters = (await cluster.client.dead_letters(task_id=view.id)).items
        assert [letter.reason_code for letter in letters] == ["resolved"] * (outcome == "failed")


async def test_the_child_task_of_a_node_is_cancelled_with_its_undos() -> None:
    handlers = Handlers()
    undone = node("x", "work", undo={"type": "work", "io": {"input_inline": "undone"}})
    inner = {"nodes": [undone, node("y", "hang", "x")]}
    flow = graph(node("s", "subflow", io={"graph": inner}), node("b", "work", "s"))
    async with Cluster(handlers=handlers.all) as cluster:
        view = await resolved(cluster, handlers, "s", flow, result="by hand")
        assert (view.status, view.nodes["s"].result) == ("finished", "by hand")
        child = await cluster.client.get_task(str(view.nodes["s"].child_task_id))
        assert child.status == "cancelled"
        assert "ann resolved it as finished" in str(child.error)
        assert child.nodes["x~undo"].status == "finished"


async def test_a_map_ends_with_the_result_of_the_operator_when_its_children_have_stopped() -> None:
    handlers = Handlers()
    mapped = node("m", "hang", map={"over": [1, 2, 3], "max_parallel": 2})
    async with Cluster(handlers=handlers.all) as cluster:
        flow = graph(mapped, node("b", "work", "m", io={"input_inline": "${results.m}"}))
        view = await resolved(cluster, handlers, "m", flow, result=[9])
        assert (view.status, view.result) == ("finished", {"b": [9]})
        assert handlers.cancelled == ["ann resolved it as finished"] * 2
        assert view.nodes["m[2]"].error == "ann resolved it as finished"


async def test_one_child_of_a_map_is_resolved_and_the_map_has_its_result() -> None:
    handlers = Handlers()
    mapped = node("m", "hang", map={"over": [1, 2]})
    async with Cluster(handlers=handlers.all) as cluster:
        task_id = await cluster.client.create_task(graph=graph(mapped))
        await handlers.began.wait()
        await cluster.client.resolve_node(task_id, "m[0]", "finished", by="ann", result="one")
        await cluster.client.resolve_node(task_id, "m[1]", "skipped", by="ann")
        assert (await ended(cluster, task_id)).result == {"m": ["one", None]}


async def test_readers_get_what_a_resolved_node_has_stored() -> None:
    handlers = Handlers()
    over = {"over": {"artifacts": "a"}}
    flow = graph(
        node("a", "drip"),
        pull("r", "work", "a"),
        node("m", "work", "a", map=over, io={"input_inline": "${item.n}"}),
    )
    async with Cluster(handlers=handlers.all) as cluster:
        view = await resolved(cluster, handlers, "a", flow, result="by hand")
        assert view.status == "finished", view.error
        assert view.nodes["m"].result == [1, 2]
        assert len([one async for one in cluster.client.artifacts(view.id, "r")]) == 2


async def test_an_undo_is_skipped_by_an_operator_and_explained() -> None:
    handlers = Handlers()
    undo = {"type": "hang"}
    flow = graph(node("a", "work", undo=undo), node("b", "unserved", "a"))
    async with Cluster(handlers=handlers.all) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        await cluster.client.resolve_node(task_id, "b", "failed", by="bob")
        await handlers.began.wait()
        await cluster.client.resolve_node(task_id, "a~undo", "skipped", by="ann")
        view = await ended(cluster, task_id)
        assert (view.status, view.nodes["a~undo"].status) == ("failed", "skipped")
        assert view.nodes["a~undo"].reason_code == "resolved"
        told = await cluster.client.explain(task_id, "a~undo")
        assert told == "'a~undo' was skipped: ann resolved it as skipped."


async def test_a_node_of_finally_and_a_coordinator_function_are_resolved() -> None:
    handlers = Handlers()
    flow = graph(
        node("a", "coordinator_fn", io={"fn": "noop"}), **{"finally": [node("tidy", "hang")]}
    )
    async with Cluster(handlers=handlers.all) as cluster:
        view = await resolved(cluster, handlers, "tidy", flow)
        assert (view.status, view.nodes["tidy"].resolved_by) == ("finished", "ann")


async def test_what_cannot_be_resolved_is_refused_and_a_repeated_call_is_not() -> None:
    handlers = Handlers()
    undone = node("c", "work", undo={"type": "work"})
    flow = graph(node("a", "hang"), node("b", "hang", "a"), undone)
    async with Cluster(handlers=handlers.all) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await handlers.began.wait()
        await cluster.clock.sleep(1)

        async def refused(
            why: str, name: str = "a", outcome: Any = "finished", **more: Any
        ) -> None:
            with pytest.raises(TaskRefused, match=why):
                await client.resolve_node(task_id, name, outcome, **{"by": "ann", **more})

        await refused("outcome is one of finished, failed, skipped, not 'done'", outcome="done")
        await refused("only a finished node has a result", outcome="failed", result=1)
        await refused("by must have", by="")
        await refused("a reason is a text", reason="x" * 2_000)
        await refused("result", result={1, 2})
        await refused("node 'c' of task '.*' has ended: it is finished", "c")
        await refused("not resolved before its phase of the task has begun", "c~undo")
        with pytest.raises(TaskNotFound):
            await client.resolve_node(task_id, "x", "finished", by="ann")
        for _ in range(2):
            await client.resolve_node(task_id, "a", "finished", by="ann", result=[1])
        await refused("was resolved before: ann resolved it as finished", outcome="skipped")
        await cluster.clock.sleep(60)
        await client.resolve_node(task_id, "a", "finished", by="ann", result=[1])
        await refused("was resolved before: ann resolved it as finished", result=[2])
        await client.cancel(task_id)
        await refused("is being stopped already|has ended: it is cancelled", "b")


async def test_a_resolved_approval_takes_no_decision() -> None:
    ask = node("ask", "approval", io={"prompt": "Go?"})
    async with Cluster(handlers=[work]) as cluster:
        task_id = await cluster.client.create_task(graph=graph(ask))
        assert len((await cluster.client.approvals()).items) == 1
        await cluster.client.resolve_node(task_id, "ask", "finished", by="ann", result={"n": 1})
        assert (await cluster.client.approvals()).items == []
        with pytest.raises(TaskRefused, match="takes no decision: ann resolved it as finished"):
            await cluster.client.decide(task_id, "ask", "approve", by="bob")


async def test_a_coordinator_resolves_as_well() -> None:
    async with Cluster(handlers=[work]) as cluster:
        task_id = await cluster.client.create_task(graph=graph(node("a", "unserved")))
        await cluster.coordinators[0].resolve_node(task_id, "a", "skipped", by="ann")
        assert (await ended(cluster, task_id)).status == "finished"
