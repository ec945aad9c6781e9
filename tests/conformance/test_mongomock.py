"""The published suites on mongomock-motor, which has no server and no limit, and lets nothing happen at the same time."""

from collections.abc import AsyncIterator, Callable

import pytest
from mongomock_motor import AsyncMongoMockClient

from flowkit.protocols import ArtifactStore
from flowkit_mongo import MongoStore
from flowkit_testing.conformance import ArtifactStoreConformance, StoreConformance


class TestMockedStore(StoreConformance):
    """The store."""

    @pytest.fixture
    def open_store(self) -> Callable[[], MongoStore]:
        database = AsyncMongoMockClient()["flowkit"]
        return lambda: MongoStore(database)

    @pytest.fixture
    async def store(self, open_store: Callable[[], MongoStore]) -> AsyncIterator[MongoStore]:
        async with open_store() as store:
            yield store


class TestMockedArtifactStore(ArtifactStoreConformance):
    """The artifact store."""

    @pytest.fixture
    async def artifacts(self) -> AsyncIterator[ArtifactStore]:
        async with MongoStore(AsyncMongoMockClient()["flowkit"]) as store:
            yield store.artifacts
