"""Sub-flows with undos and ``finally``, in the child task and around it."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit.task import TaskView
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import graph, node

pytestmark = pytest.mark.anyio

UNDO = {"type": "undo"}


def subflow(node_id: str, inner: Any, *after: str, **fields: Any) -> dict[str, Any]:
    return node(node_id, "subflow", *after, io={"graph": inner}, **fields)


class Journal:
    """Handlers that write down what runs."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.broken = True

    @property
    def handlers(self) -> list[Any]:
        @handler("work")
        async def work(ctx: RunContext) -> str:
            self.done.append(ctx.node_id)
            return ctx.node_id

        @handler("undo")
        async def undo(ctx: RunContext) -> None:
            self.done.append(ctx.node_id)

        @handler("bad")
        async def bad(ctx: RunContext) -> None:
            self.done.append(ctx.node_id)
            if self.broken:
                raise ValueError("broken")

        @handler("hang")
        async def hang(ctx: RunContext) -> None:
            self.done.append(ctx.node_id)
            await ctx.cancellable(ctx.clock.sleep(100_000))

        return [work, undo, bad, hang]


@pytest.fixture
def journal() -> Journal:
    return Journal()


async def until(cluster: Cluster, condition: Callable[[], bool]) -> None:
    while not condition():
        await cluster.clock.sleep(0.01)


async def child_of(cluster: Cluster, view: TaskView, node_id: str = "s") -> TaskView:
    return await cluster.client.get_task(view.nodes[node_id].child_task_id or "")


async def test_a_finished_subflow_is_undone_by_its_own_undo_only(journal: Journal) -> None:
    inner = graph(node("x", undo=UNDO), **{"finally": [node("f")]})
    flow = graph(
        subflow("s", inner, undo={"type": "undo", "io": {"input_inline": "${result.x}"}}),
        node("b", "bad", "s"),
    )
    async with Cluster(handlers=journal.handlers) as cluster:
        view = await cluster.run(flow)
        child = await child_of(cluster, view)
    assert journal.done == ["x", "f", "b", "s~undo"]
    assert (view.status, child.status) == ("failed", "finished")


async def test_a_child_that_fails_undoes_its_nodes_before_its_node_fails(
    journal: Journal,
) -> None:
    inner = graph(node("x", undo=UNDO), node("y", "bad", "x"), **{"finally": [node("f")]})
    flow = graph(
        node("a", undo=UNDO), subflow("s", inner, "a", undo=UNDO), **{"finally": [node("g")]}
    )
    async with Cluster(handlers=journal.handlers) as cluster:
        view = await cluster.run(flow)
        child = await child_of(cluster, view)
    assert journal.done == ["a", "x", "y", "x~undo", "f", "a~undo", "g"]
    assert view.nodes["s"].error == f"task {child.id!r} failed: {child.error}"
    assert view.nodes["s~undo"].reason_code == "nothing_to_undo"


async def test_undos_and_finally_of_a_cancelled_child_run_before_those_of_its_parent(
    journal: Journal,
) -> None:
    inner = graph(node("x", undo=UNDO), node("y", "hang", "x"), **{"finally": [node("f")]})
    flow = graph(node("a", undo=UNDO), subflow("s", inner, "a"), **{"finally": [node("g")]})
    async with Cluster(handlers=journal.handlers) as cluster:
        task_id = await cluster.client.create_task(graph=flow)
        await until(cluster, lambda: "y" in journal.done)
        await cluster.client.cancel(task_id, "enough")
        view = await cluster.client.wait(task_id)
        child = await child_of(cluster, view)
    assert journal.done == ["a", "x", "y", "x~undo", "f", "a~undo", "g"]
    assert (view.status, view.nodes["s"].status, child.status) == ("cancelled",) * 3
    assert child.nodes["y"].status == "cancelled"


async def test_a_retry_runs_what_was_undone_in_the_child_again(journal: Journal) -> None:
    inner = graph(node("x", undo=UNDO), node("y", "bad", "x"), **{"finally": [node("f")]})
    async with Cluster(handlers=journal.handlers) as cluster:
        view = await cluster.run(graph(subflow("s", inner)))
        journal.broken = False
        await cluster.client.retry(view.id)
        again = await cluster.client.wait(view.id)
    assert again.status == "finished"
    assert again.nodes["s"].child_task_id == view.nodes["s"].child_task_id
    assert journal.done == ["x", "y", "x~undo", "f", "x", "y", "f"]


@pytest.mark.parametrize("first", [True, False])
async def test_a_forced_cancel_goes_down(journal: Journal, first: bool) -> None:
    """It comes alone, or after a cancel that has begun to run ``finally`` of the lowest task."""
    lowest = graph(node("x"), node("y", "hang", "x"), **{"finally": [node("f", "hang")]})
    flow = graph(subflow("s", graph(subflow("s", lowest))))
    async with Cluster(handlers=journal.handlers) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await until(cluster, lambda: "y" in journal.done)
        if not first:
            await client.cancel(task_id)
            await until(cluster, lambda: "f" in journal.done)
        await client.cancel(task_id, "now", force=True)
        view = await client.wait(task_id, timeout=1_000)
        tasks = (await client.list_tasks()).items
    assert (view.status, view.error) == ("cancelled", "now")
    assert [task.status for task in tasks] == ["cancelled"] * 3
    assert journal.done == (["x", "y"] if first else ["x", "y", "f"])


async def test_a_subflow_of_finally_runs_in_spite_of_the_deadline_a_pause_and_a_cancel(
    journal: Journal,
) -> None:
    inner = graph(node("nap", "sleep", io={"for_sec": 500}), node("f", "work", "nap"))
    flow = graph(node("x", "hang"), deadline_sec=60, **{"finally": [subflow("s", inner)]})
    async with Cluster(handlers=journal.handlers) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await until(cluster, lambda: "x" in journal.done)
        await client.cancel(task_id)
        await cluster.clock.sleep(50)
        await client.pause(task_id)
        await client.cancel(task_id)
        view = await client.wait(task_id, timeout=10_000)
        child = await child_of(cluster, view)
    assert (view.status, view.nodes["s"].status, child.status) == (
        "cancelled",
        "finished",
        "finished",
    )
    assert journal.done == ["x", "f"]


async def test_a_forced_cancel_ends_a_subflow_of_finally(journal: Journal) -> None:
    flow = graph(node("a"), **{"finally": [subflow("s", graph(node("x", "hang")))]})
    async with Cluster(handlers=journal.handlers) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow)
        await until(cluster, lambda: "x" in journal.done)
        await client.cancel(task_id, force=True)
        view = await client.wait(task_id, timeout=1_000)
        child = await child_of(cluster, view)
    assert (view.status, view.nodes["s"].status, child.status) == ("cancelled",) * 3


async def test_a_subflow_of_finally_that_fails_makes_its_task_fail(journal: Journal) -> None:
    flow = graph(node("a", undo=UNDO), **{"finally": [subflow("s", graph(node("x", "bad")))]})
    async with Cluster(handlers=journal.handlers) as cluster:
        view = await cluster.run(flow)
        first = view.nodes["s"].child_task_id
        journal.broken = False
        await cluster.client.retry(view.id)
        again = await cluster.client.wait(view.id)
    assert (view.status, view.nodes["s"].reason_code) == ("failed", "subflow_failed")
    assert again.status == "finished"
    assert again.nodes["s"].child_task_id != first
    assert journal.done == ["a", "x", "x"]


async def test_a_subflow_of_finally_sees_how_its_task_ends(journal: Journal) -> None:
    inner = graph(node("x", when="params.end == 'failed'"))
    final = node("s", "subflow", io={"graph": inner, "params": {"end": "${task.status}"}})
    async with Cluster(handlers=journal.handlers) as cluster:
        await cluster.run(graph(node("b", "bad"), **{"finally": [final]}))
    assert journal.done == ["b", "x"]


async def test_a_child_that_ends_itself_early_gives_its_result(journal: Journal) -> None:
    end = {"fn": "task.end", "fn_args": {"status": "finished", "result": {"rows": 0}}}
    inner = graph(
        node("x", "coordinator_fn", io=end), node("y", "hang", "x"), **{"finally": [node("f")]}
    )
    async with Cluster(handlers=journal.handlers) as cluster:
        view = await cluster.run(graph(subflow("s", inner)))
    assert (view.status, view.nodes["s"].result) == ("finished", {"rows": 0})
    assert journal.done == ["f"]
