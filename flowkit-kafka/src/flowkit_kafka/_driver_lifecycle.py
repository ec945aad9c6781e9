"""Start and close of the driver's clients within time limits."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import anyio
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from flowkit_kafka._errors import DRIVER_ERRORS

logger = logging.getLogger(__name__)

_CANCELLED_START_SEC = 2.0
"""Time that a cancelled start has to finish."""
_FORCED_CLOSE_SEC = 1


async def start(begin: Callable[[], Awaitable[None]]) -> None:
    """Start a client of the driver without leaking a connection when this is cancelled.

    The caller closes the client, also after a cancellation. If ``AIOKafkaClient.bootstrap`` is
    cancelled between two answers of its first broker, it forgets that connection without closing
    it. So the start runs in a task of its own, and a cancelled caller waits a little for its end.
    """
    starting = asyncio.ensure_future(begin())
    starting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    try:
        await asyncio.shield(starting)
    except asyncio.CancelledError:
        with anyio.move_on_after(_CANCELLED_START_SEC, shield=True):
            await asyncio.wait([starting])
        raise
    finally:
        starting.cancel()


async def close_consumer(consumer: AIOKafkaConsumer, limit_sec: float) -> None:
    """Leave the group and close the connections."""
    if not await _within(consumer.stop, limit_sec, "consumer"):
        # The driver cannot give up: without this, the connections would stay open for ever.
        await _within(consumer._client.close, _FORCED_CLOSE_SEC, "consumer's connections")  # noqa: SLF001


async def close_producer(producer: AIOKafkaProducer, limit_sec: float) -> None:
    """Send the buffered messages and close the connections."""
    if not await _within(producer.stop, limit_sec, "producer"):
        # An idempotent producer retries a batch for ever: without this, its sender would go on
        # after the producer is closed.
        await _within(producer._sender.close, _FORCED_CLOSE_SEC, "producer's sender")  # noqa: SLF001
        await _within(producer.client.close, _FORCED_CLOSE_SEC, "producer's connections")


async def _within(close: Callable[[], Awaitable[None]], limit_sec: float, subject: str) -> bool:
    """Close within the limit and return whether that succeeded."""
    try:
        # Shielded: a caller that is being cancelled has to leave the group too.
        with anyio.move_on_after(limit_sec, shield=True) as scope:
            await close()
    except DRIVER_ERRORS as error:
        logger.warning(
            "Closing the %s failed: %r", subject, error, extra={"action": "kafka_close_failed"}
        )
        return False
    except asyncio.CancelledError:
        # The driver passes on the cancellation of its own tasks.
        return False
    if scope.cancelled_caught:
        logger.warning(
            "Closing the %s took longer than %g s",
            subject,
            limit_sec,
            extra={"action": "kafka_close_timeout"},
        )
    return not scope.cancelled_caught
