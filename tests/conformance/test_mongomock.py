"""The published suites on mongomock-motor, which has no server, no limits and no concurrency."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from mongomock_motor import AsyncMongoMockClient

from flowkit.protocols import ArtifactStore
from flowkit_mongo import MongoStore
from flowkit_testing.conformance import ArtifactStoreConformance, StoreConformance


class TestMockedStore(StoreConformance):
    """The suite of stores, on mongomock-motor."""

    @pytest.fixture
    def database(self) -> Any:
        return AsyncMongoMockClient()["flowkit"]

    @pytest.fixture
    def open_store(self, database: Any) -> Callable[[], MongoStore]:
        return lambda: MongoStore(database)

    @pytest.fixture
    def open_namespace(self, database: Any) -> Callable[[str], MongoStore]:
        return lambda namespace: MongoStore(database, namespace=namespace)

    @pytest.fixture
    async def store(self, open_store: Callable[[], MongoStore]) -> AsyncIterator[MongoStore]:
        async with open_store() as store:
            yield store


class TestMockedArtifactStore(ArtifactStoreConformance):
    """The suite of artifact stores, on mongomock-motor."""

    @pytest.fixture
    async def artifacts(self) -> AsyncIterator[ArtifactStore]:
        async with MongoStore(AsyncMongoMockClient()["flowkit"]) as store:
            yield store.artifacts
