"""Schedules in a real MongoDB."""

import pytest

from flowkit import Client, Coordinator
from flowkit_mongo import MongoStore
from flowkit_testing import InMemoryBus
from tests.schedules.restarts import each_time_makes_one_task

pytestmark = pytest.mark.services


async def test_each_time_of_a_schedule_makes_one_task_over_a_restart(store: MongoStore) -> None:
    async with InMemoryBus() as bus:
        await each_time_makes_one_task(
            lambda: Coordinator(store=store, bus=bus), lambda: Client(store=store, bus=bus)
        )
