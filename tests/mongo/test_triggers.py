"""Triggers in a real MongoDB."""

import pytest

from flowkit import Client, Coordinator
from flowkit_mongo import MongoStore
from flowkit_testing import InMemoryBus
from tests.triggers.restarts import each_end_makes_one_task

pytestmark = pytest.mark.services


async def test_each_end_of_a_task_makes_one_task_of_the_trigger(store: MongoStore) -> None:
    async with InMemoryBus() as bus:
        await each_end_makes_one_task(
            lambda: Coordinator(store=store, bus=bus), lambda: Client(store=store, bus=bus)
        )
