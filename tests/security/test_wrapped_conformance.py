"""A bus with signatures and a store with a codec keep every promise of the protocols."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, nullcontext

import pytest

from examples.encryption.codec import Encryption
from flowkit._codecs.bus_codec import SealedBus, Signatures
from flowkit._codecs.store_codec import EncodedStore
from flowkit.plugins import Plugins
from flowkit.protocols import ArtifactStore, Bus, Store
from flowkit_testing import InMemoryBus, InMemoryStore
from flowkit_testing.conformance import ArtifactStoreConformance, BusConformance, StoreConformance

LIMIT = 4 * 1024 * 1024
QUIET_SEC = 0.02
PLUGINS = Plugins([Encryption({"k": bytes(32)}, encrypt_with="k")], discover=False)


def wrapped(bus: InMemoryBus) -> Bus:
    return SealedBus(
        bus, [Signatures([b"a signing key to test with"])], plain={bus.dead_letter_topic}
    )


class TestSealedBus(BusConformance):
    patience = 5.0
    quiet_sec = QUIET_SEC

    @pytest.fixture
    def inner(self) -> InMemoryBus:
        return InMemoryBus()

    @pytest.fixture
    async def bus(self, inner: InMemoryBus) -> AsyncIterator[Bus]:
        async with wrapped(inner) as bus:
            yield bus

    @pytest.fixture
    def open_bus(self, inner: InMemoryBus) -> Callable[[], Bus]:
        return lambda: wrapped(InMemoryBus(broker=inner.broker))

    @pytest.fixture
    async def closed_bus(self) -> AsyncIterator[Bus]:
        async with wrapped(InMemoryBus(create_topics=False)) as bus:
            yield bus


class TestEncodedStore(StoreConformance):
    patience = 5.0
    quiet_sec = QUIET_SEC
    oversize_bytes = LIMIT + 1

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with EncodedStore(InMemoryStore(max_record_bytes=LIMIT), PLUGINS) as store:
            yield store

    @pytest.fixture
    def open_store(self, store: Store) -> Callable[[], Store]:
        return lambda: store


class TestEncodedArtifactStore(ArtifactStoreConformance):
    patience = 5.0
    quiet_sec = QUIET_SEC
    oversize_bytes = LIMIT + 1

    @pytest.fixture
    def artifacts(self) -> ArtifactStore:
        return EncodedStore(InMemoryStore(max_record_bytes=LIMIT), PLUGINS).artifacts

    @pytest.fixture
    def open_artifacts(
        self, artifacts: ArtifactStore
    ) -> Callable[[], AbstractAsyncContextManager[ArtifactStore]]:
        return lambda: nullcontext(artifacts)
