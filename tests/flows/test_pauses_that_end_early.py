"""The verb that ends a pause at once, on a cluster in virtual time."""

from typing import Any

import pytest

from flowkit.errors import TaskNotFound, TaskRefused
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import DAY, graph, node, work

LONG = {"max": 1, "backoff_sec": DAY, "max_backoff_sec": DAY, "jitter": 0}
FLOW = graph(
    node("a", "second", retry_policy=LONG),
    node("nap", "sleep", "a", io={"for_sec": DAY}),
    node("b", "work", "nap"),
)


@handler("second")
async def second(item: Any, ctx: RunContext) -> int:
    if ctx.attempt == 1:
        raise RuntimeError("not yet")
    return ctx.attempt


async def test_an_operator_ends_the_pauses_of_a_task() -> None:
    async with Cluster(handlers=[second, work]) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=FLOW)
        await cluster.clock.sleep(1)
        await client.run_now(task_id, "a")
        await cluster.clock.sleep(1)
        with pytest.raises(TaskRefused, match="node 'a' of task '.*' is finished; it has no pause"):
            await client.run_now(task_id, "a")
        await cluster.coordinators[0].run_now(task_id, "nap")
        view = await client.wait(task_id, timeout=60)
        assert view.status == "finished"
        assert (view.nodes["a"].attempt, view.nodes["a"].result) == (2, 2)
        told = [
            (event.node_id, event.status)
            async for event in client.watch(task_id)
            if event.data == {"run_now": True}
        ]
        assert told == [("a", "queued"), ("nap", "finished")]


async def test_the_command_that_ends_a_pause_is_explained_and_quoted_for_a_shell() -> None:
    nodes = [
        node("fail", "second", retry_policy=LONG),
        node("a nap", "sleep", io={"for_sec": 60}),
        node("s", "wait_signal", io={"signal": "it's", "timeout_sec": 60}),
    ]
    async with Cluster(handlers=[second]) as cluster:
        client = cluster.client
        await client.create_task(graph=graph(*nodes), task_id="a task")
        await cluster.clock.sleep(1)
        said = [await client.explain("a task", name) for name in ("fail", "a nap", "s")]
    assert [text.partition(". `")[2] for text in said] == [
        "flowkit run-now 'a task' fail` ends that at once.",
        "flowkit run-now 'a task' 'a nap'` ends that at once.",
        """flowkit signal 'a task' 'it'"'"'s'` sends it.""",
    ]
    assert "until 2026-01-01T00:01:00+00:00 (59.0 s). " in said[2]


async def test_what_has_no_pause_is_refused_with_what_to_do() -> None:
    io = {"signal": "go"}
    ask = {"prompt": "Go?"}
    nodes = [node("s", "wait_signal", io=io), node("q", "approval", io=ask), node("w", "unserved")]
    async with Cluster() as cluster:
        task_id = await cluster.client.create_task(graph=graph(*nodes))
        for name, why in {
            "s": "waits for a signal: send it",
            "q": "waits for a decision: decide",
            "w": "is queued",
        }.items():
            with pytest.raises(
                TaskRefused, match=f"node '{name}' .* {why}; it has no pause to end"
            ):
                await cluster.client.run_now(task_id, name)
        with pytest.raises(TaskNotFound):
            await cluster.client.run_now(task_id, "x")


async def test_a_node_whose_task_waits_for_a_key_is_refused_with_that() -> None:
    flow = graph(node("w", "unserved"), concurrency={"key": "k"})
    async with Cluster() as cluster:
        await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        waits = await cluster.client.create_task(graph=flow)
        await cluster.clock.sleep(1)
        with pytest.raises(TaskRefused, match="waits until its task has key 'k'; it has no pause"):
            await cluster.client.run_now(waits, "w")
