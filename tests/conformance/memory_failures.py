"""Failures of members and servers in memory: fixtures of the bus suite on an in-memory bus."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, ClassVar

import pytest

from flowkit.protocols import Delivery
from flowkit_testing import InMemoryBus
from flowkit_testing._broker import Member
from flowkit_testing.conformance import BusFailureConformance

LETTERS_NOWHERE = "conformance.no-such-topic"


class PausedMember:
    """A member that the broker has removed from its group, as after missing heartbeats."""

    def __init__(self, subscription: Any, deliveries: Sequence[Delivery]) -> None:
        self._subscription = subscription
        self._deliveries = deliveries
        self.values = [delivery.message.value for delivery in deliveries]

    async def acknowledge(self) -> None:
        await self._subscription.ack(self._deliveries)


class FailsInMemory(BusFailureConformance):
    """All fixtures that cause a failure."""

    silence_sec = 0.03
    prefetch = 0
    many: ClassVar[int] = 1500

    @pytest.fixture
    async def silent(self, bus: InMemoryBus) -> AsyncIterator[Any]:
        """Return a function that starts a member, which receives messages and is removed then."""
        async with AsyncExitStack() as stack:

            async def silent(topic: str, group: str, count: int) -> PausedMember:
                subscription = await stack.enter_async_context(
                    bus.subscribe([topic], group=group, max_unacked=count)
                )
                deliveries: list[Delivery] = []
                while len(deliveries) < count:
                    deliveries += await subscription.receive(max_messages=count)
                self.expire(bus, source_of(subscription))
                return PausedMember(subscription, deliveries)

            yield silent

    def expire(self, bus: InMemoryBus, member: Member) -> None:
        """Remove a member from its group, as a broker does after missing heartbeats."""
        bus.broker.leave(member)

    @pytest.fixture
    def kill_member(self, silent: Any) -> Any:
        async def kill(topic: str, group: str, count: int) -> Sequence[bytes]:
            member: PausedMember = await silent(topic, group, count)
            return member.values

        return kill

    @pytest.fixture
    def pause_member(self, silent: Any) -> Any:
        @asynccontextmanager
        async def pause(topic: str, group: str, count: int) -> AsyncIterator[PausedMember]:
            yield await silent(topic, group, count)

        return pause

    @pytest.fixture
    def stop_server(self, bus: InMemoryBus) -> Any:
        @asynccontextmanager
        async def stop() -> AsyncIterator[None]:
            bus.broker.stop()
            try:
                yield
            finally:
                bus.broker.start()

        return stop

    @pytest.fixture
    def cut_connection(self, bus: InMemoryBus) -> Any:
        async def cut() -> None:
            bus.broker.cut()

        return cut

    @pytest.fixture
    def count_kept(self, bus: InMemoryBus) -> Any:
        async def count(topic: str) -> int:
            return sum(len(log.entries) for log in bus.broker.topics[topic].partitions)

        return count

    @pytest.fixture
    def count_taken(self, bus: InMemoryBus) -> Any:
        async def count(topic: str, group: str) -> int:
            return sum(len(cursor.out) for cursor in bus.broker.groups[group].cursors[topic])

        return count

    @pytest.fixture
    async def bus_without_dead_letters(self, bus: InMemoryBus) -> AsyncIterator[InMemoryBus]:
        async with self.connect(
            bus, dead_letter_topic=LETTERS_NOWHERE, create_topics=False
        ) as other:
            yield other

    def connect(self, bus: InMemoryBus, **options: Any) -> InMemoryBus:
        """Return another bus on the same broker."""
        return InMemoryBus(broker=bus.broker, **options)


def source_of(subscription: Any) -> Any:
    """Return the broker's side of a subscription, which may be wrapped."""
    while hasattr(subscription, "inner"):
        subscription = subscription.inner
    return subscription.source
