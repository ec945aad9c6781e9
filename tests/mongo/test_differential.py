"""MongoStore answers any sequence of calls like InMemoryStore.

``FLOWKIT_TEST_STORE_SEQUENCES=2000`` compares more sequences than 250.
"""

import os
import uuid
from typing import Any

import anyio
import pytest
from pymongo import AsyncMongoClient

from flowkit_mongo import MongoConfig, MongoStore
from tests.store_comparison import compare

# Other tests cover all these lines, and measuring coverage takes longer than the comparisons.
pytestmark = [pytest.mark.services, pytest.mark.no_cover]

LONG, SHORT = 250, 5
SEQUENCES = int(os.environ.get("FLOWKIT_TEST_STORE_SEQUENCES", 250))
FIRST, SHARES, AT_ONCE = 1000, 4, 8


@pytest.fixture
def config() -> MongoConfig:
    return MongoConfig(blob_threshold_bytes=1024)


@pytest.mark.parametrize("seed", range(2))
async def test_both_stores_give_the_same_answers(store: MongoStore, seed: int) -> None:
    await compare(store, seed, steps=LONG)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("share", range(SHARES))
async def test_both_stores_give_the_same_answers_from_the_beginning(
    mongo_address: str, config: MongoConfig, share: int
) -> None:
    seeds = iter(range(FIRST + share, FIRST + SEQUENCES, SHARES))

    async def compare_some(client: AsyncMongoClient[Any]) -> None:
        database = client[f"flowkit-{uuid.uuid4().hex[:12]}"]
        for seed in seeds:
            async with MongoStore(database, config=config) as store:
                await compare(store, seed, steps=SHORT)
            for name in await database.list_collection_names():
                await database[name].delete_many({})
        await client.drop_database(database.name)

    async with AsyncMongoClient(mongo_address) as client, anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(compare_some, client)
