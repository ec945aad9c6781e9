"""Fixtures and helpers of the bus suite."""

from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

import anyio
import pytest

from flowkit.protocols import Bus, Delivery, Message, Subscription, TopicSpec

from ._common import Conformance

OpenBus = Callable[[], Bus]


class BusSuite(Conformance):
    """What the parts of the bus suite have in common."""

    dead_letter_topic: ClassVar[str] = "flowkit.dlq"
    """The topic to which the bus rejects."""

    @pytest.fixture
    def open_bus(self) -> OpenBus | None:
        """A callable that gives another bus, not yet entered, over the same server; tests that need one are skipped without."""
        return None

    @pytest.fixture
    def closed_bus(self) -> Bus | None:
        """An entered bus that may not create topics; the test that needs it is skipped without."""
        return None

    @pytest.fixture
    async def topic(self, bus: Bus, unique: str) -> str:
        """A topic of the test's own."""
        name = f"conformance.{unique}"
        await bus.ensure_topics([TopicSpec(name), TopicSpec(self.dead_letter_topic)])
        return name

    @pytest.fixture
    async def second_topic(self, bus: Bus, unique: str) -> str:
        """Another topic of the test's own."""
        name = f"conformance.{unique}.second"
        await bus.ensure_topics([TopicSpec(name)])
        return name

    @pytest.fixture
    async def broadcast(self, bus: Bus, unique: str) -> str:
        """A broadcast topic of the test's own."""
        name = f"conformance.{unique}.broadcast"
        await bus.ensure_topics([TopicSpec(name, broadcast=True)])
        return name

    @pytest.fixture
    def group(self, unique: str) -> str:
        """A consumer group of the test's own."""
        return f"group-{unique}"

    async def take(self, subscription: Subscription, values: Iterable[bytes], *, ack: bool = False) -> list[Delivery]:
        """Receive until each of ``values`` was seen; all that came meanwhile."""
        missing, got = set(values), list[Delivery]()
        with anyio.move_on_after(self.patience):
            while missing:
                batch = await subscription.receive(max_messages=100)
                got += batch
                missing -= set(contents(batch))
                if ack:
                    await subscription.ack(batch)
        assert not missing, f"not delivered within {self.patience} s: {sorted(missing)}; delivered: {contents(got)}"
        return got

    async def rest(self, subscription: Subscription) -> list[Delivery]:
        """What still comes, until nothing has come for a while."""
        got: list[Delivery] = []
        while True:
            batch: Sequence[Delivery] = ()
            with anyio.move_on_after(self.quiet_sec):
                batch = await subscription.receive(max_messages=100)
            if not batch:
                return got
            got += batch


def open_another(open_bus: OpenBus | None) -> Bus:
    """Another connection, or the reason why the test is skipped."""
    if open_bus is None:
        pytest.skip("needs the fixture open_bus")
    return open_bus()


def message(topic: str, value: bytes | str, key: str = "k") -> Message:
    return Message(topic, value if isinstance(value, bytes) else value.encode(), key)


def messages(topic: str, count: int, key: str = "k", prefix: str = "m") -> list[Message]:
    """Numbered messages with one key, so that they have an order."""
    return [message(topic, f"{prefix}{number}", key) for number in range(count)]


def spread(topic: str, count: int, prefix: str = "m") -> list[Message]:
    """Numbered messages with different keys, so that they meet all partitions."""
    return [message(topic, f"{prefix}{number}", f"key-{number}") for number in range(count)]


def values(sent: Iterable[Message]) -> list[bytes]:
    return [item.value for item in sent]


def contents(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.value for delivery in deliveries]
