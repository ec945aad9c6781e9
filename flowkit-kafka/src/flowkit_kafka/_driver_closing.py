"""Closing the driver's objects within a time limit, whatever state the brokers are in."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from flowkit_kafka._errors import DRIVER_ERRORS

logger = logging.getLogger(__name__)


async def close_consumer(consumer: AIOKafkaConsumer, limit_sec: float) -> None:
    """Leave the group and close the connections."""
    if not await _within(consumer.stop, limit_sec, "consumer"):
        # The driver has no way to give up; what is left of it would hold its connections for ever.
        await _within(consumer._client.close, 1, "consumer's connections")  # noqa: SLF001


async def close_producer(producer: AIOKafkaProducer, limit_sec: float) -> None:
    """Send what is buffered and close the connections."""
    if not await _within(producer.stop, limit_sec, "producer"):
        # An idempotent producer tries a batch again for ever: without this its sender would outlive
        # it.
        await _within(producer._sender.close, 1, "producer's sender")  # noqa: SLF001
        await _within(producer.client.close, 1, "producer's connections")


async def _within(close: Callable[[], Awaitable[None]], limit_sec: float, what: str) -> bool:
    try:
        # Leaving must be done also by who is being cancelled.
        with anyio.move_on_after(limit_sec, shield=True) as scope:
            await close()
    except DRIVER_ERRORS as error:
        logger.warning(
            "The %s did not close in good order: %r",
            what,
            error,
            extra={"action": "kafka_close_failed"},
        )
        return False
    except asyncio.CancelledError:
        # The driver lets the cancellation of its own tasks through.
        return False
    if scope.cancelled_caught:
        logger.warning(
            "The %s did not close within %g s",
            what,
            limit_sec,
            extra={"action": "kafka_close_timeout"},
        )
    return not scope.cancelled_caught
