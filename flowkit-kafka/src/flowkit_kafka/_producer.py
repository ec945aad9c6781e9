"""A producer that is replaced when it dies."""

import asyncio
import logging
from asyncio import Future
from collections.abc import Collection, Sequence
from typing import Any, Self

import anyio
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import RecordMetadata

from flowkit.errors import BusUnavailable, MessageTooLarge
from flowkit.protocols import Message, Place
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._driver_closing import close_producer
from flowkit_kafka._driver_start import start
from flowkit_kafka._errors import DRIVER_ERRORS, HARMLESS_TO_PRODUCER, translated
from flowkit_kafka._partitions import key_bytes, partition_of

logger = logging.getLogger(__name__)

# Key, headers and the record's own frame, beside the value; also the room that new topics leave
# above the largest value.
OVERHEAD_BYTES = 65_536
_FRAME_BYTES = 256
_BATCH_BYTES = 256 * 1024
# No time of ours: a broker refuses a time that is far ahead, and deletes messages early whose time
# is far back.
_NO_TIMESTAMP = -1
_LOOK_SEC = 0.5
_LOOKS_WITHOUT_LEADER = 10
_TRIES_TO_FIND = 5
_FIND_PAUSE_SEC = 0.1
_STUCK_CLOSE_SEC = 2.0


class SupervisedProducer:
    """Sends, in order and confirmed by all replicas.

    The idempotent producer of the driver is useless for good after some errors, and tries an
    unconfirmed batch again for ever. So every call has a time limit, and a producer that failed is
    put aside for a new one; what it still holds may be sent yet.
    """

    def __init__(self, servers: Sequence[str], config: KafkaConfig) -> None:
        self._servers = list(servers)
        self._config = config
        self._producer: AIOKafkaProducer | None = None
        self._opening = asyncio.Lock()
        self._retiring: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Connect, as long as the configuration has patience.

        Raises:
            BusUnavailable: no broker answered.
        """
        last: BaseException = TimeoutError()
        with anyio.move_on_after(self._config.patience_sec):
            while True:
                try:
                    await self._ready()
                except DRIVER_ERRORS as error:
                    last = error
                    await anyio.sleep(0.2)
                else:
                    return self
        raise translated(last, f"connecting to {', '.join(self._servers)}") from last

    async def __aexit__(self, *exc: object) -> None:
        if self._producer is not None:
            self._retire(self._producer)
        if self._retiring:
            # Each has its own time limit.
            with anyio.CancelScope(shield=True):
                await asyncio.wait(self._retiring)

    async def send(self, messages: Sequence[Message]) -> list[Place | None]:
        """Send all of these, wait for the confirmation of each, and say where they are.

        Raises:
            MessageTooLarge: the brokers take none of this size.
            TopicUnavailable: a topic is missing, has no leader, or may not be written.
            BusUnavailable: not all were confirmed in time.
        """
        producer: AIOKafkaProducer | None = None
        pending: list[Future[RecordMetadata]] = []
        try:
            async with asyncio.timeout(self._config.patience_sec):
                producer = await self._ready()
                await self._buffer(producer, messages, pending)
                await self._settled(producer, messages, pending)
                return [_place(future.result()) for future in pending]
        except DRIVER_ERRORS as error:
            if producer is not None and not isinstance(error, HARMLESS_TO_PRODUCER):
                self._retire(producer)
            ours = translated(error, f"publishing {len(messages)} messages")
            # Some of a call may have been sent before another was refused: then it is not true that
            # nothing was.
            raise (
                ours
                if isinstance(ours, BusUnavailable) or len(messages) == 1
                else BusUnavailable(str(ours))
            ) from error
        finally:
            _abandon(pending)

    async def _buffer(
        self,
        producer: AIOKafkaProducer,
        messages: Sequence[Message],
        pending: list[Future[RecordMetadata]],
    ) -> None:
        partitions: dict[str, int] = {}
        for message in messages:
            topic = message.topic
            if topic not in partitions:
                partitions[topic] = await _partition_count(producer, topic)
            key = key_bytes(message.key)
            headers = list(message.headers.items()) if message.headers else None
            partition = partition_of(key, partitions[topic])
            pending.append(
                await producer.send(
                    topic,
                    message.value,
                    key or None,
                    partition,
                    timestamp_ms=_NO_TIMESTAMP,
                    headers=headers,
                )
            )

    async def _settled(
        self,
        producer: AIOKafkaProducer,
        messages: Sequence[Message],
        pending: Sequence["Future[RecordMetadata]"],
    ) -> None:
        """Return when all are confirmed or one is refused. The driver never gives up on a topic
        that was deleted: that is seen here.
        """
        looks = 0
        while True:
            done, waiting = await asyncio.wait(
                pending, timeout=_LOOK_SEC, return_when=asyncio.FIRST_EXCEPTION
            )
            if not waiting or any(future.exception() for future in done):
                for future in done:
                    future.result()
                return
            looks += 1
            topics = {
                message.topic
                for message, future in zip(messages, pending, strict=True)
                if not future.done()
            }
            trouble = _trouble(producer, topics, patient=looks < _LOOKS_WITHOUT_LEADER)
            if trouble is not None:
                # What waits for the topic stays in the producer, which asks the brokers about it
                # without a pause.
                self._retire(producer, _STUCK_CLOSE_SEC)
                raise trouble

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
            await close_producer(producer, 1)
            raise
        return producer

    def _retire(self, producer: AIOKafkaProducer, limit_sec: float | None = None) -> None:
        """Close a producer in the background; other calls may still wait for what it holds."""
        if self._producer is not producer:
            return
        self._producer = None
        task = asyncio.create_task(
            close_producer(
                producer,
                min(limit_sec or self._config.close_timeout_sec, self._config.close_timeout_sec),
            )
        )
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _partition_count(producer: AIOKafkaProducer, topic: str) -> int:
    """Return how many partitions a topic has. The driver's own question would wait for a missing
    topic, and hold up the others.

    Raises:
        UnknownTopicOrPartitionError, TopicAuthorizationFailedError: it is missing, or hidden from
        this user.
        TimeoutError: no broker answered.
    """
    client = producer.client
    for _ in range(_TRIES_TO_FIND):
        partitions = client.cluster.partitions_for_topic(topic)
        if partitions:
            return len(partitions)
        client.add_topic(topic)
        if not await client.force_metadata_update():
            raise TimeoutError
        if topic in client.cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(topic)
        # A topic that was just created is known to the other brokers a moment later.
        await asyncio.sleep(_FIND_PAUSE_SEC)
    raise UnknownTopicOrPartitionError(topic)


def _trouble(
    producer: AIOKafkaProducer, topics: Collection[str], *, patient: bool
) -> KafkaError | None:
    """What keeps messages for these topics from being sent. ``patient``: a partition without a
    leader may get one yet.
    """
    cluster = producer.client.cluster
    for topic in topics:
        partitions = cluster.partitions_for_topic(topic)
        if not partitions:
            return UnknownTopicOrPartitionError(topic)
        if not patient and any(
            cluster.leader_for_partition(TopicPartition(topic, number)) in {None, -1}
            for number in partitions
        ):
            return LeaderNotAvailableError(topic)
    return None


def check_size(message: Message, limit: int) -> None:
    """Refuse what a broker would refuse, before anything is sent.

    Raises:
        MessageTooLarge: the value is above ``limit``, or key and headers above what is left for
            them.
    """
    size = len(message.value)
    if size > limit:
        raise MessageTooLarge(
            f"a message for topic {message.topic!r} has {size:,} bytes; the limit is {limit:,}"
            " (max_message_bytes)"
        )
    if message.headers or len(message.key) > 1_000:
        extra = len(key_bytes(message.key)) + sum(
            len(name.encode()) + len(value) + 10 for name, value in message.headers.items()
        )
        if extra > OVERHEAD_BYTES - _FRAME_BYTES:
            raise MessageTooLarge(
                f"key and headers of a message for topic {message.topic!r} have {extra:,} bytes;"
                " the limit is 65,280"
            )


def _place(metadata: RecordMetadata) -> Place | None:
    """Where a message is. Of one that the brokers had already, from an earlier try, they may not
    know it: then there is no log start.
    """
    return None if metadata.log_start_offset == -1 else (metadata.partition, metadata.offset)


def _abandon(pending: Sequence["Future[RecordMetadata]"]) -> None:
    for future in pending:
        if not future.done():
            future.cancel()
        elif not future.cancelled():
            future.exception()
