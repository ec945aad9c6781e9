"""A producer that is replaced when it fails."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import anyio
from aiokafka import AIOKafkaProducer

from flowkit.adapters import Backoff, retry
from flowkit.errors import BusUnavailable
from flowkit.protocols import Message, Place
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_lifecycle import close_producer, start
from flowkit_kafka._errors import DRIVER_ERRORS, HARMLESS_TO_PRODUCER, translated
from flowkit_kafka._messages import OVERHEAD_BYTES
from flowkit_kafka._publish_batch import PublishBatch, StuckTopic

_BATCH_BYTES = 256 * 1024
_STUCK_CLOSE_SEC = 2.0
_FAILED_START_CLOSE_SEC = 1
_CONNECT_PAUSE_SEC = 0.2


class SupervisedProducer:
    """Producer that sends in order and waits for the confirmation of all replicas.

    After some errors, the driver's idempotent producer stays unusable, and it retries an
    unconfirmed batch for ever. So each call has a time limit, and a failed producer is replaced by
    a new one. The messages that the failed one still holds may be sent later.
    """

    def __init__(
        self,
        servers: Sequence[str],
        config: KafkaConfig,
        *,
        as_other_clients: bool = False,
    ) -> None:
        """With ``as_other_clients``, messages have the partitions and times that Kafka's own
        clients give them: they are for topics that other programs read.
        """
        self._as_other_clients = as_other_clients
        self._servers = list(servers)
        self._config = config
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Connect within the configured patience.

        Raises:
            BusUnavailable: no broker answered.
        """
        last: BaseException = TimeoutError()

        def remember(error: Exception) -> None:
            nonlocal last
            last = error

        with anyio.move_on_after(self._config.patience_sec):
            await retry(
                self._ready,
                on=lambda error: isinstance(error, DRIVER_ERRORS),
                sleep=anyio.sleep,
                backoff=Backoff(first_sec=_CONNECT_PAUSE_SEC, longest_sec=_CONNECT_PAUSE_SEC),
                on_retry=remember,
            )
            return self
        raise translated(last, f"connecting to {', '.join(self._servers)}") from last

    async def __aexit__(self, *exc: object) -> None:
        if self._producer is not None:
            self._retire(self._producer, self._config.close_timeout_sec)
        if self._retiring:
            # Each of these tasks has its own time limit.
            with anyio.CancelScope(shield=True):
                await asyncio.wait(self._retiring)

    async def send(self, messages: Sequence[Message]) -> list[Place | None]:
        """Send all messages, wait for all confirmations and return the places.

        Raises:
            MessageTooLarge: the brokers accept no message of this size.
            TopicUnavailable: a topic is missing, has no leader, or may not be written.
            BusUnavailable: not all messages were confirmed in time.
        """
        producer: AIOKafkaProducer | None = None
        try:
            async with asyncio.timeout(self._config.patience_sec):
                producer = await self._ready()
                return await self._publish(producer, messages)
        except DRIVER_ERRORS as error:
            if producer is not None and not isinstance(error, HARMLESS_TO_PRODUCER):
                self._retire(producer, self._config.close_timeout_sec)
            ours = translated(error, f"publishing {len(messages)} messages")
            # Other errors mean that nothing was sent. With several messages, some may have been
            # sent before one was refused.
            raise (
                ours
                if isinstance(ours, BusUnavailable) or len(messages) == 1
                else BusUnavailable(str(ours))
            ) from error

    async def _publish(
        self, producer: AIOKafkaProducer, messages: Sequence[Message]
    ) -> list[Place | None]:
        batch = PublishBatch(producer, messages, as_other_clients=self._as_other_clients)
        try:
            await batch.buffer()
            return await batch.confirmed()
        except StuckTopic as stuck:
            # The messages for the topic stay in this producer, which would ask the brokers for the
            # topic without a pause.
            self._retire(producer, min(_STUCK_CLOSE_SEC, self._config.close_timeout_sec))
            raise stuck.fault from None
        finally:
            batch.abandon()

    async def _ready(self) -> AIOKafkaProducer:
        if self._producer is None:
            async with self._opening:
                if self._producer is None:
                    self._producer = await self._opened()
        return self._producer

    async def _opened(self) -> AIOKafkaProducer:
        config = self._config
        settings: dict[str, Any] = config.connection()
        producer = AIOKafkaProducer(
            bootstrap_servers=self._servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=config.linger_ms,
            compression_type=config.compression,
            max_batch_size=_BATCH_BYTES,
            max_request_size=config.max_message_bytes + OVERHEAD_BYTES,
            request_timeout_ms=round(config.request_timeout_sec * 1000),
            **settings,
        )
        try:
            await start(producer.start)
        except BaseException:
            await close_producer(producer, _FAILED_START_CLOSE_SEC)
            raise
        return producer

    def _retire(self, producer: AIOKafkaProducer, limit_sec: float) -> None:
        """Close a producer in the background: other calls may still wait for its messages."""
        if self._producer is not producer:
            return
        self._producer = None
        task = asyncio.create_task(close_producer(producer, limit_sec))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
