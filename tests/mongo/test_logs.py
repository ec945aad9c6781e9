"""Log lines in a real MongoDB."""

import pytest

from flowkit import Client, Coordinator
from flowkit.worker import Worker
from flowkit_mongo import MongoStore
from flowkit_testing import InMemoryBus
from tests.client.followed_logs import lines_are_kept_and_followed

pytestmark = pytest.mark.services


async def test_log_lines_are_kept_and_followed(store: MongoStore) -> None:
    async with InMemoryBus() as bus:
        await lines_are_kept_and_followed(
            lambda: Coordinator(store=store, bus=bus),
            lambda handlers: Worker(store=store, bus=bus, handlers=handlers),
            lambda: Client(store=store, bus=bus),
        )
