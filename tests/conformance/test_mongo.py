"""The published suites on MongoDB: a replica set and a standalone server, Motor and PyMongo."""

import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from flowkit.protocols import ArtifactStore
from flowkit_mongo import MongoStore
from flowkit_testing.conformance import ArtifactStoreConformance, StoreConformance
from flowkit_testing.conformance.artifacts import OpenArtifacts
from tests.servers.mongo_fixtures import drop_from_given_server

pytestmark = pytest.mark.services


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    name = f"flowkit-{uuid.uuid4().hex[:8]}"
    yield name
    drop_from_given_server(name)


@pytest.fixture(params=["replica set, pymongo", "standalone, motor"])
async def open_store(anyio_backend: str, request: pytest.FixtureRequest, database: str) -> AsyncIterator[Callable[[], MongoStore]]:
    server, driver = request.param.split(", ")
    address = request.getfixturevalue("mongo_address" if server == "replica set" else "mongo_standalone")
    client: Any = AsyncIOMotorClient(address) if driver == "motor" else AsyncMongoClient(address)
    yield lambda: MongoStore(client[database])
    if driver == "motor":
        client.close()
    else:
        await client.close()


@pytest.fixture
async def store(open_store: Callable[[], MongoStore]) -> AsyncIterator[MongoStore]:
    async with open_store() as store:
        yield store


class TestMongoStore(StoreConformance):
    """The store."""

    @pytest.fixture
    async def store(self, store: MongoStore) -> MongoStore:
        return store

    @pytest.fixture
    def open_store(self, open_store: Callable[[], MongoStore]) -> Callable[[], MongoStore]:
        return open_store


class TestMongoArtifactStore(ArtifactStoreConformance):
    """The artifact store."""

    @pytest.fixture
    async def artifacts(self, store: MongoStore) -> ArtifactStore:
        return store.artifacts

    @pytest.fixture
    def open_artifacts(self, open_store: Callable[[], MongoStore]) -> OpenArtifacts:
        @asynccontextmanager
        async def another() -> AsyncIterator[ArtifactStore]:
            async with open_store() as store:
                yield store.artifacts

        return another
