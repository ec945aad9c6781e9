"""Nodes of ``finally`` that wait, on a cluster in virtual time."""

from typing import Any

import pytest

from flowkit.errors import SignalRefused, TaskRefused
from flowkit.worker import handler
from flowkit_testing import Cluster
from tests.builders import graph, node

pytestmark = pytest.mark.anyio


@handler("work")
async def work(item: Any, ctx: Any) -> Any:
    if item == "fail":
        raise ValueError("no such page")
    return {"item": item, "results": ctx.results}


HANDLERS = [work]
ONCE = {"retry_policy": {"max": 0}}


def flow(*final: dict[str, Any], item: Any = None, **fields: Any) -> dict[str, Any]:
    first = node("a", "work", io={"input_inline": item}, **ONCE, **fields)
    return graph(first, **{"finally": list(final)})


@pytest.mark.parametrize(
    ("item", "status", "end"),
    [(None, "deferred", "finished"), ("fail", "cancelling", "failed")],
)
async def test_an_approval_in_finally_is_listed_and_decided(
    item: Any, status: str, end: str
) -> None:
    ask = node("ok", "approval", io={"prompt": "It ${task.status}: close?"})
    async with Cluster(handlers=HANDLERS) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow(ask, node("f", "work", "ok"), item=item))
        await cluster.clock.sleep(1)
        (waiting,) = (await client.approvals()).items
        assert (waiting.node_id, waiting.prompt) == ("ok", f"It {end}: close?")
        view = await client.get_task(task_id)
        assert (view.status, view.nodes["ok"].phase) == (status, "finally")
        assert (view.nodes["ok"].status, view.nodes["ok"].waiting) == ("deferred", "approval")
        await client.decide(task_id, "ok", "approve", by="ann")
        view = await client.wait(task_id)
        assert (await client.approvals()).items == []
    assert view.status == end
    assert view.nodes["f"].result["results"]["ok"]["by"] == "ann"


async def test_an_approval_before_finally_is_not_listed() -> None:
    ask = node("ok", "approval", io={"prompt": "Close?"})
    pause = node("p", "sleep", io={"for_sec": 100})
    async with Cluster(handlers=HANDLERS) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=graph(pause, **{"finally": [ask]}))
        await cluster.clock.sleep(1)
        assert (await client.approvals()).items == []
        with pytest.raises(TaskRefused, match="'ok' of task .* does not wait for a decision"):
            await client.decide(task_id, "ok", "approve", by="ann")
        await client.cancel(task_id)
        await cluster.clock.sleep(1)
        assert [waiting.node_id for waiting in (await client.approvals()).items] == ["ok"]
        await client.cancel(task_id, force=True)
        assert (await client.wait(task_id)).nodes["ok"].status == "cancelled"
        assert (await client.approvals()).items == []


async def test_a_node_of_finally_takes_a_signal_that_came_before_or_after_it_began() -> None:
    wait = node("w", "wait_signal", io={"signal": "go-${task.status}"})
    named = node("v", "wait_signal", io={"signal": "done"})
    async with Cluster(handlers=HANDLERS) as cluster:
        client = cluster.client
        task_id = await client.create_task(graph=flow(wait, named, item="fail"))
        await client.signal(task_id, "done", 1)
        await cluster.clock.sleep(1)
        with pytest.raises(SignalRefused, match="no node of task .* waits for the signal 'other'"):
            await client.signal(task_id, "other")
        await client.signal(task_id, "go-failed", 2)
        view = await client.wait(task_id)
        with pytest.raises(SignalRefused, match="only a task that has not ended takes signals"):
            await client.signal(task_id, "done", 3)
    assert (view.nodes["v"].result, view.nodes["w"].result) == (1, 2)


async def test_a_sleep_in_finally_gets_its_time_from_the_task() -> None:
    nap = node("nap", "sleep", io={"for_sec": "${results.a.item}"})
    async with Cluster(handlers=HANDLERS) as cluster:
        view = await cluster.run(flow(nap, item=90))
    assert view.status == "finished"
    assert view.nodes["nap"].started_at is not None
    assert view.nodes["nap"].finished_at is not None
    slept = view.nodes["nap"].finished_at - view.nodes["nap"].started_at
    assert slept.total_seconds() >= 90


async def test_the_undo_of_an_approval_sees_its_decision() -> None:
    ask = node(
        "ok",
        "approval",
        io={"prompt": "Pay?"},
        undo={"type": "work", "io": {"input_inline": "${result.by}"}},
    )
    fails = node("b", "work", "ok", io={"input_inline": "fail"}, **ONCE)
    async with Cluster(handlers=HANDLERS) as cluster:
        task_id = await cluster.client.create_task(graph=graph(ask, fails))
        await cluster.clock.sleep(1)
        await cluster.client.decide(task_id, "ok", "approve", by="ann")
        view = await cluster.client.wait(task_id)
    assert (view.status, view.nodes["ok~undo"].result["item"]) == ("failed", "ann")
