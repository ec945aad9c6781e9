"""The in-memory bus and store pass the published suites."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import pytest

from flowkit.config import CommonConfig
from flowkit.plugins import Plugins
from flowkit.protocols import ArtifactStore, Store
from flowkit_testing import InMemoryBus, InMemoryStore
from flowkit_testing.conformance import ArtifactStoreConformance, BusConformance, StoreConformance
from tests.conformance.memory_failures import FailsInMemory

LIMIT = 4 * 1024 * 1024
QUIET_SEC = 0.02


class TestInMemoryBus(FailsInMemory, BusConformance):
    patience = 5.0
    quiet_sec = QUIET_SEC

    @pytest.fixture
    async def bus(self) -> AsyncIterator[InMemoryBus]:
        async with InMemoryBus() as bus:
            yield bus

    @pytest.fixture
    def open_bus(self, bus: InMemoryBus) -> Callable[[], InMemoryBus]:
        return lambda: InMemoryBus(broker=bus.broker)

    @pytest.fixture
    async def closed_bus(self) -> AsyncIterator[InMemoryBus]:
        async with InMemoryBus(create_topics=False) as bus:
            yield bus


class TestInMemoryBusThatKnowsLess(TestInMemoryBus):
    """A bus without places; its members compete for messages, its groups start at the end."""

    @pytest.fixture
    async def bus(self) -> AsyncIterator[InMemoryBus]:
        async with InMemoryBus(
            places=False, key_affinity=False, replay_for_new_groups=False
        ) as bus:
            yield bus


class TestInMemoryStore(StoreConformance):
    patience = 5.0
    quiet_sec = QUIET_SEC
    oversize_bytes = LIMIT + 1

    @pytest.fixture
    async def store(self) -> AsyncIterator[InMemoryStore]:
        async with InMemoryStore(max_record_bytes=LIMIT) as store:
            yield store

    @pytest.fixture
    def open_store(self, store: InMemoryStore) -> Callable[[], InMemoryStore]:
        return lambda: store

    @pytest.fixture
    def open_namespace(self, unique: str) -> Callable[[str], Store]:
        plugins = Plugins()
        return lambda namespace: plugins.open_store(
            f"memory://{unique}", CommonConfig(namespace=namespace)
        )


class TestInMemoryArtifactStore(ArtifactStoreConformance):
    patience = 5.0
    quiet_sec = QUIET_SEC
    oversize_bytes = LIMIT + 1

    @pytest.fixture
    def artifacts(self) -> ArtifactStore:
        return InMemoryStore(max_record_bytes=LIMIT).artifacts

    @pytest.fixture
    def open_artifacts(
        self, artifacts: ArtifactStore
    ) -> Callable[[], AbstractAsyncContextManager[ArtifactStore]]:
        return lambda: nullcontext(artifacts)
