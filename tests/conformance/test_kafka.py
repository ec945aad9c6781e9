"""The bus on a real Kafka keeps every promise of :class:`flowkit.protocols.Bus`."""

from collections.abc import AsyncIterator

import pytest

from flowkit import CoordinatorConfig
from flowkit_kafka import KafkaBus
from flowkit_testing.conformance import BusConformance

pytestmark = pytest.mark.services


class TestKafkaBus(BusConformance):
    quiet_sec = 0.6

    @pytest.fixture
    async def bus(self, anyio_backend: str, kafka_address: str) -> AsyncIterator[KafkaBus]:
        async with KafkaBus(kafka_address) as bus:
            yield bus

    @pytest.fixture
    def open_bus(self, bus: KafkaBus, kafka_address: str) -> object:
        return lambda: KafkaBus(kafka_address)

    @pytest.fixture
    async def closed_bus(self, anyio_backend: str, kafka_address: str) -> AsyncIterator[KafkaBus]:
        async with KafkaBus(kafka_address, CoordinatorConfig(options={"kafka": {"create_topics": False}})) as bus:
            yield bus
