"""A client with the coordinators' configuration applies it."""

from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster

HOUR = 3600


@pytest.mark.parametrize("submitter", ["a client", "a coordinator"])
async def test_no_more_nodes_of_a_task_are_dispatched_at_a_time_than_it_says(
    submitter: str,
) -> None:
    running = most = 0

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await ctx.clock.sleep(1)
        running -= 1

    async with Cluster(workers=0, coordinator_config=CoordinatorConfig(max_in_flight=3)) as cluster:
        await cluster.add_worker([work], WorkerConfig(max_concurrency=100))
        client = cluster.client if submitter == "a client" else cluster.coordinators[0]
        task_id = await client.create_task(
            graph={"nodes": [{"node_id": f"n{i}", "type": "work"} for i in range(20)]}
        )
        assert (await cluster.client.wait(task_id, timeout=HOUR)).status == "finished"
    assert most == 3


async def test_a_node_that_is_cancelled_has_the_grace_it_says() -> None:
    ended: list[float] = []

    @handler("stubborn")
    async def stubborn(item: Any, ctx: RunContext) -> None:
        while not ctx.cancelled():
            await ctx.clock.sleep(1)
        await ctx.clock.sleep(20)
        ended.append(ctx.clock.now())

    async with Cluster(
        workers=0, coordinator_config=CoordinatorConfig(cancel_grace_sec=60)
    ) as cluster:
        await cluster.add_worker([stubborn], WorkerConfig(cancel_grace_sec=60))
        task_id = await cluster.client.create_task(
            graph={"nodes": [{"node_id": "a", "type": "stubborn"}]}
        )
        await cluster.clock.sleep(5)
        await cluster.client.cancel(task_id)
        view = await cluster.client.wait(task_id, timeout=HOUR)
    assert view.status == "cancelled"
    assert view.finished_at.timestamp() == pytest.approx(ended[0], abs=1)
