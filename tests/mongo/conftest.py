"""Stores on a MongoDB that the tests share, each test in a database of its own."""

import uuid
from collections.abc import AsyncIterator

import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from flowkit_mongo import MongoConfig, MongoStore
from tests.mongo.recording import Commands


@pytest.fixture
def commands() -> Commands:
    """Return the recorder of the commands that the database receives."""
    return Commands()


@pytest.fixture
async def database(mongo_address: str, commands: Commands) -> AsyncIterator[AsyncDatabase]:
    async with AsyncMongoClient(mongo_address, event_listeners=[commands]) as client:
        name = f"flowkit-{uuid.uuid4().hex[:12]}"
        yield client[name]
        await client.drop_database(name)


@pytest.fixture
def config() -> MongoConfig:
    """Return the configuration; some tests override it."""
    return MongoConfig(retry_for_sec=2)


@pytest.fixture
async def store(database: AsyncDatabase, config: MongoConfig) -> AsyncIterator[MongoStore]:
    async with MongoStore(database, config=config) as store:
        yield store
