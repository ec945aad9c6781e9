"""Checks of commands that wait for long: their frequency, and the cost of an unanswered one."""

import pytest

from flowkit import CoordinatorConfig
from flowkit.messages import RunNode
from flowkit_testing import Cluster, InMemoryBus
from tests.builders import chain
from tests.coordinator.lost_messages import (
    COMMANDS,
    PARTITIONS,
    Recording,
    Work,
    cluster_of,
    wide,
)


async def version_of(cluster: Cluster, task_id: str) -> int:
    (record,) = (await cluster.store.load([task_id])).values()
    return record.version


async def check_and_kill(cluster: Cluster, task_id: str) -> None:
    """Let a new coordinator begin the next check of a task's command.

    End it before the bus has answered.
    """
    version = await version_of(cluster, task_id)
    await cluster.add_coordinator()
    while await version_of(cluster, task_id) == version:
        await cluster.clock.sleep(0.1)
    await cluster.coordinators.pop().stop()


@pytest.mark.parametrize("killed", [1, 3])
async def test_a_command_lost_after_a_long_wait_is_resent_soon_although_coordinators_are_killed(
    killed: int,
) -> None:
    bus, work = Recording(), Work()
    async with cluster_of(bus, work, workers=0) as cluster:
        task_id = await cluster.client.create_task(graph=chain("work"))
        await cluster.clock.sleep(2000)
        await cluster.coordinators.pop().stop()
        for partition in PARTITIONS:
            bus.broker.lose_tail(COMMANDS, partition, 100)
        await check_and_kill(cluster, task_id)
        began = cluster.clock.monotonic()
        for _ in range(killed - 1):
            await check_and_kill(cluster, task_id)
        assert bus.count(RunNode) == 1
        await cluster.add_coordinator()
        await cluster.add_worker(work.handlers)
        assert (await cluster.client.wait(task_id, 7200)).status == "finished"
        took = cluster.clock.monotonic() - began
    assert (work.runs, bus.count(RunNode)) == ({"n0": 1}, 2)
    assert took < 60 * killed


@pytest.mark.parametrize(
    ("capabilities", "coordinators", "most"),
    [
        # Each check takes two commits, and in the end the checks are ten minutes apart.
        ({}, 1, 26),
        ({}, 3, 26),
        ({"places": False}, 1, 26),
        # A copy is sent every minute until the first worker of the role starts, and each copy is
        # checked.
        ({"replay_for_new_groups": False}, 1, 260),
    ],
)
async def test_commands_that_wait_80_minutes_for_an_absent_worker_cost_few_commits(
    capabilities: dict[str, bool], coordinators: int, most: int
) -> None:
    bus = InMemoryBus(**capabilities)
    async with Cluster(
        bus=bus, coordinators=coordinators, coordinator_config=CoordinatorConfig()
    ) as cluster:
        task_id = await cluster.client.create_task(graph=wide(20))
        await cluster.clock.sleep(4800)
        assert await version_of(cluster, task_id) <= most
