"""Helpers that the tests of the Kafka bus share."""

import uuid
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import anyio

from flowkit import CoordinatorConfig
from flowkit.errors import BusUnavailable
from flowkit.protocols import Bus, Delivery, Message, Subscription
from flowkit_kafka import KafkaBus

WITHIN_SEC = 60

QUICK: dict[str, Any] = {
    "session_timeout_sec": 2.0,
    "heartbeat_interval_sec": 0.3,
    "rebalance_timeout_sec": 5.0,
    "request_timeout_sec": 6.0,
    "metadata_max_age_sec": 0.5,
    "close_timeout_sec": 2.0,
}


def bus_at(address: str, **options: Any) -> KafkaBus:
    """Return a bus whose time limits are a tenth of the defaults."""
    return KafkaBus(
        f"kafka://{address}", CoordinatorConfig(options={"kafka": {**QUICK, **options}})
    )


def unique(name: str) -> str:
    return f"{name}.{uuid.uuid4().hex[:12]}"


def numbered(topic: str, numbers: Iterable[int], *, keys: int = 50) -> list[Message]:
    return [Message(topic, str(number).encode(), f"key-{number % keys}") for number in numbers]


def contents(deliveries: Iterable[Delivery]) -> list[bytes]:
    return [delivery.message.value for delivery in deliveries]


async def take(
    subscription: Subscription, count: int, *, ack: bool = True, within: float = 30
) -> list[Delivery]:
    """Receive ``count`` messages or more."""
    got: list[Delivery] = []
    with anyio.fail_after(within):
        while len(got) < count:
            batch = await subscription.receive(max_messages=500)
            got += batch
            if ack:
                await subscription.ack(batch)
    return got


async def nothing_comes(subscription: Subscription, *, for_sec: float = 1.0) -> bool:
    """Return whether nothing is delivered for a while."""
    with anyio.move_on_after(for_sec) as scope:
        await subscription.receive(max_messages=1)
    return scope.cancelled_caught


async def comes(bus: Bus, subscription: Subscription, topic: str, value: bytes) -> None:
    """Publish until the message comes; a topic may have been deleted with the message in it."""
    with anyio.fail_after(WITHIN_SEC):
        async with anyio.create_task_group() as group:

            async def publish() -> None:
                while True:
                    with suppress(BusUnavailable):
                        await bus.publish([Message(topic, value)])
                    await anyio.sleep(0.5)

            group.start_soon(publish)
            while True:
                try:
                    batch = await subscription.receive(max_messages=10)
                except BusUnavailable:
                    continue
                await subscription.ack(batch)
                if value in contents(batch):
                    break
            group.cancel_scope.cancel()
