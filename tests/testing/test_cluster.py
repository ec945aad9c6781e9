"""Runs of the in-memory cluster that end, and runs that cannot."""

from typing import Any

import anyio
import pytest

from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.builders import DAY, graph, node

HOUR = 3600.0


@handler("work")
async def work(item: object, ctx: RunContext) -> None:
    await ctx.clock.sleep(3 * DAY)


MISSPELT = graph(node("a"), node("b", "wrok", "a"))
CHILD = graph(node("s", "subflow", io={"graph": MISSPELT}))
MAP = graph(node("m", "wrok", map={"over": [1, 2], "max_parallel": 1}), node("b", "work", "m"))


@pytest.mark.parametrize("flow", [MISSPELT, CHILD, MAP], ids=["node", "sub-flow", "map"])
async def test_a_role_that_no_worker_serves_is_reported_after_a_day(
    flow: dict[str, Any], flowkit_cluster: Cluster
):
    began = flowkit_cluster.clock.monotonic()
    with pytest.raises(TimeoutError, match="no live worker serves the role 'wrok'"):
        await flowkit_cluster.run(flow, handlers=[work])
    assert DAY <= flowkit_cluster.clock.monotonic() - began <= 5 * DAY


async def test_a_timeout_explains_the_nodes_that_have_begun(flowkit_cluster: Cluster):
    expected = r"is still running after 60 s: 'a' is running on '.*'\. 'c' sleeps"
    flow = graph(node("a"), node("b", "wrok", "a"), node("c", "sleep", io={"for_sec": 90}))
    with pytest.raises(TimeoutError, match=expected) as failure:
        await flowkit_cluster.run(flow, handlers=[work], timeout=60)
    assert "'b'" not in str(failure.value)


async def test_a_worker_may_be_added_within_a_day(flowkit_cluster: Cluster):
    async def add_worker() -> None:
        await flowkit_cluster.clock.sleep(20 * HOUR)
        await flowkit_cluster.add_worker([work])

    async with anyio.create_task_group() as group:
        group.start_soon(add_worker)
        assert (await flowkit_cluster.run(graph(node("a")))).status == "finished"


LIMITED = node("a", "wrok", timeouts={"schedule_to_start_sec": 1.2 * DAY}, retry_policy={"max": 1})


@pytest.mark.parametrize(
    ("flow", "fields", "status"),
    [
        (graph(node("a", "sleep", io={"for_sec": 30 * DAY})), {}, "finished"),
        (graph(LIMITED), {}, "failed"),
        (graph(node("a", "wrok")), {"deadline_sec": 1.2 * DAY}, "failed"),
    ],
    ids=["sleep", "time limit of the node", "deadline"],
)
async def test_what_ends_by_itself_may_take_longer(
    flow: dict[str, Any], fields: dict[str, Any], status: str, flowkit_cluster: Cluster
):
    view = await flowkit_cluster.run(flow, **fields)
    assert view.status == status
    assert flowkit_cluster.clock.monotonic() >= 1.2 * DAY


@pytest.mark.parametrize("is_paused", [True, False])
async def test_a_test_may_continue_a_task_after_days(is_paused: bool, flowkit_cluster: Cluster):
    clock, client = flowkit_cluster.clock, flowkit_cluster.client
    flow = graph(node("w", "wait_signal", io={"signal": "go"}), node("a", "work", "w"))

    async def go_on() -> None:
        await clock.sleep(HOUR)
        if is_paused:
            await client.pause("t")
            await client.signal("t", "go")
            await clock.sleep(3 * DAY)
            await client.resume("t")
        else:
            await clock.sleep(3 * DAY)
            await client.signal("t", "go")

    async with anyio.create_task_group() as group:
        group.start_soon(go_on)
        view = await flowkit_cluster.run(flow, handlers=[work], task_id="t")
    assert view.status == "finished"
