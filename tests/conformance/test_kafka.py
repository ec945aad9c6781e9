"""The bus on a real Kafka keeps every promise of :class:`flowkit.protocols.Bus`."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import anyio.to_thread
import pytest

from flowkit import CoordinatorConfig
from flowkit_kafka import KafkaBus
from flowkit_testing.conformance import BusDeliveryConformance, BusFailureConformance
from flowkit_testing.conformance.members import MemberProcesses
from tests.chaos.proxy import CLEAR, Behaviour, Link, Proxy
from tests.kafka.support import QUICK, bus_at, unique
from tests.servers.kafka_fixtures import start_kafka
from tests.servers.ports import LOOPBACK

pytestmark = pytest.mark.services


class TestKafkaBus(BusDeliveryConformance):
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
        async with KafkaBus(
            kafka_address, CoordinatorConfig(options={"kafka": {"create_topics": False}})
        ) as bus:
            yield bus

    @pytest.fixture
    async def bus_without_dead_letters(
        self, anyio_backend: str, kafka_address: str
    ) -> AsyncIterator[KafkaBus]:
        config = CoordinatorConfig(
            topic_dlq_fmt=unique("nowhere"), options={"kafka": {"create_topics": False}}
        )
        async with KafkaBus(kafka_address, config) as bus:
            yield bus


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    """A proxy in front of a broker that only this module uses."""
    with Proxy() as proxy:
        link = proxy.link()
        with start_kafka(advertised_listeners=f"PLAINTEXT://{LOOPBACK}:{link.port}") as kafka:
            link.target = int(kafka.address.rpartition(":")[2])
            yield link


class TestKafkaBusThroughFailures(BusFailureConformance):
    """The suite with short time limits, on a server that fails on demand."""

    quiet_sec = 0.6
    silence_sec = QUICK["session_timeout_sec"]

    @pytest.fixture
    def open_bus(self, link: Link) -> Callable[[], KafkaBus]:
        return lambda: bus_at(f"{LOOPBACK}:{link.port}", patience_sec=1.5)

    @pytest.fixture
    async def bus(
        self, anyio_backend: str, open_bus: Callable[[], KafkaBus]
    ) -> AsyncIterator[KafkaBus]:
        async with open_bus() as bus:
            yield bus

    @pytest.fixture
    def members(self, link: Link) -> MemberProcesses:
        return MemberProcesses("tests.kafka.support:bus_at", f"{LOOPBACK}:{link.port}")

    @pytest.fixture
    def kill_member(self, members: MemberProcesses) -> object:
        return members.kill

    @pytest.fixture
    def pause_member(self, members: MemberProcesses) -> object:
        return members.pause

    @pytest.fixture
    def stop_server(self, link: Link) -> object:
        @asynccontextmanager
        async def stop() -> AsyncIterator[None]:
            await anyio.to_thread.run_sync(link.behave, Behaviour(cut=True))
            try:
                yield
            finally:
                link.behave(CLEAR)

        return stop

    @pytest.fixture
    def cut_connection(self, link: Link) -> object:
        async def cut() -> None:
            for behaviour in (Behaviour(cut=True), CLEAR):
                await anyio.to_thread.run_sync(link.behave, behaviour)

        return cut
