"""The published suites on MongoDB: on a replica set and a standalone server, Motor and PyMongo."""

import gc
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo import AsyncMongoClient

from flowkit.protocols import ArtifactStore
from flowkit_mongo import MongoStore
from flowkit_testing.conformance import ArtifactStoreConformance, Opener, StoreConformance
from flowkit_testing.conformance._artifact_suite import OpenArtifacts
from tests.servers.mongo_fixtures import drop_from_given_server

pytestmark = [
    pytest.mark.services,
    # A connection attempt that is cancelled leaves its socket to the garbage collector. That is
    # PyMongo's, and harmless.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def _collected_at_last() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture(autouse=True)
def _collected(request: pytest.FixtureRequest) -> Iterator[None]:
    """Collect the sockets of cancelled connections now, because their warning is expected here."""
    yield
    if "cancel" in request.node.name:
        gc.collect()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    name = f"flowkit-{uuid.uuid4().hex[:8]}"
    yield name
    drop_from_given_server(name)


@dataclass(frozen=True, slots=True)
class Place:
    """A server, and the driver with which the tests connect."""

    address: str
    driver: str


@pytest.fixture(params=["replica set, pymongo", "standalone, motor"])
def place(request: pytest.FixtureRequest) -> Place:
    server, driver = request.param.split(", ")
    return Place(
        request.getfixturevalue("mongo_address" if server == "replica set" else "mongo_standalone"),
        driver,
    )


@pytest.fixture
async def client(anyio_backend: str, place: Place) -> AsyncIterator[Any]:
    client: Any = (
        AsyncIOMotorClient(place.address)
        if place.driver == "motor"
        else AsyncMongoClient(place.address)
    )
    yield client
    if place.driver == "motor":
        client.close()
    else:
        await client.close()


@pytest.fixture
def open_store(client: Any, database: str) -> Callable[[], MongoStore]:
    return lambda: MongoStore(client[database])


def opener_of(place: Place, database: str, function: str) -> Opener | None:
    """The fixtures for other processes, which start slowly and behave the same with all drivers."""
    if place.driver == "motor":
        return None
    parts = urlsplit(place.address)
    return Opener(
        f"tests.conformance.openers:{function}", (urlunsplit(parts._replace(path=f"/{database}")),)
    )


@pytest.fixture
async def store(open_store: Callable[[], MongoStore]) -> AsyncIterator[MongoStore]:
    async with open_store() as store:
        yield store


class TestMongoStore(StoreConformance):
    """The suite of stores, on MongoDB."""

    @pytest.fixture
    async def store(self, store: MongoStore) -> MongoStore:
        return store

    @pytest.fixture
    def open_store(self, open_store: Callable[[], MongoStore]) -> Callable[[], MongoStore]:
        return open_store

    @pytest.fixture
    def open_namespace(self, client: Any, database: str) -> Callable[[str], MongoStore]:
        return lambda namespace: MongoStore(client[database], namespace=namespace)

    @pytest.fixture
    def opener(self, place: Place, database: str) -> Opener | None:
        return opener_of(place, database, "open_mongo")


class TestMongoArtifactStore(ArtifactStoreConformance):
    """The suite of artifact stores, on MongoDB."""

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

    @pytest.fixture
    def opener(self, place: Place, database: str) -> Opener | None:
        return opener_of(place, database, "open_mongo_artifacts")
