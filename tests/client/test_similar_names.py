"""Names of flows, schedules and triggers that do not exist, beside similar ones that do."""

import pytest

from flowkit import Schedule, Trigger
from flowkit.errors import FlowNotFound, ScheduleNotFound, TriggerNotFound
from flowkit_testing import Cluster
from tests.builders import graph, node

ONE = graph(node("a"))


async def test_a_name_that_does_not_exist_is_reported_with_a_similar_one() -> None:
    async with Cluster(coordinators=0) as cluster:
        client = cluster.client
        await client.put_flow("nightly", ONE)
        await client.put_schedule(Schedule("nightly", graph=ONE, every_sec=60))
        await client.put_trigger(Trigger("nightly", graph=ONE, source="task:p"))
        for verb in (client.get_flow, lambda name: client.create_task(flow=name)):
            with pytest.raises(FlowNotFound, match="no flow 'nigtly'; did you mean 'nightly'\\?$"):
                await verb("nigtly")
        for verb in (client.get_schedule, client.delete_schedule, client.pause_schedule):
            with pytest.raises(ScheduleNotFound, match="did you mean 'nightly'\\?$"):
                await verb("nigtly")
        for verb in (client.delete_trigger, client.pause_trigger):
            with pytest.raises(TriggerNotFound, match="did you mean 'nightly'\\?$"):
                await verb("nigtly")


async def test_a_name_that_is_like_no_other_is_reported_alone() -> None:
    async with Cluster(coordinators=0) as cluster:
        await cluster.client.put_flow("nightly", ONE)
        for name in ("report", "x" * 150):
            with pytest.raises(FlowNotFound, match="'$"):
                await cluster.client.get_flow(name)
