"""One call of ``publish``: its messages and their confirmations by the driver."""

import asyncio
from asyncio import Future
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.structs import RecordMetadata

from flowkit.protocols import Message, Place
from flowkit_kafka._messages import key_bytes, partition_of

_NO_TIMESTAMP = -1
"""Messages of FlowKit's own topics carry no time of this machine, whose clock may be wrong.

A broker refuses a time far in the future, and deletes early what has a time far in the past.
"""
_CHECK_SEC = 0.5
_CHECKS_WITHOUT_LEADER = 10
_METADATA_TRIES = 5
_METADATA_PAUSE_SEC = 0.1


@dataclass(frozen=True, slots=True)
class _Sending:
    """Messages that are confirmed together: those of one partition, or a single one."""

    topic: str
    numbers: Sequence[int]
    """Positions of the messages in the call, in the order of sending."""
    confirmation: Future[RecordMetadata] | Future[list[Place | None]]
    """The metadata of the single message, or the places of the messages."""


class PublishBatch:
    """The messages of one call. Those of each partition are sent in order.

    Several messages for one partition are sent in batches that are filled here, because the driver
    needs several times as long to take them one by one. A single message is given to the driver,
    which sends it together with those of other calls.
    """

    def __init__(
        self,
        producer: AIOKafkaProducer,
        messages: Sequence[Message],
        *,
        as_other_clients: bool,
    ) -> None:
        self._producer = producer
        self._as_other_clients = as_other_clients
        self._messages = messages
        self._sendings: list[_Sending] = []

    async def buffer(self) -> None:
        """Hand all messages to the driver, which sends them.

        Raises:
            KafkaError: a topic is missing, or this user may not see it.
            TimeoutError: no broker answered.
        """
        counts: dict[str, int] = {}
        by_partition: dict[tuple[str, int], list[int]] = {}
        for number, message in enumerate(self._messages):
            topic = message.topic
            if topic not in counts:
                counts[topic] = await _partition_count(self._producer, topic)
            if self._as_other_clients:
                await self._send(number, None)
                continue
            partition = partition_of(key_bytes(message.key), counts[topic])
            by_partition.setdefault((topic, partition), []).append(number)
        for (topic, partition), numbers in by_partition.items():
            if len(numbers) == 1:
                await self._send(numbers[0], partition)
            else:
                delivery = self._deliver(topic, partition, self._filled(numbers))
                self._sendings.append(_Sending(topic, numbers, asyncio.create_task(delivery)))

    async def _send(self, number: int, partition: int | None) -> None:
        """Send one message. Without a partition, it has the partition and the time that Kafka's own
        clients give it.
        """
        message = self._messages[number]
        confirmation = await self._producer.send(
            message.topic,
            message.value,
            key_bytes(message.key) or None,
            partition,
            timestamp_ms=None if partition is None else _NO_TIMESTAMP,
            headers=list(message.headers.items()),
        )
        self._sendings.append(_Sending(message.topic, [number], confirmation))

    def _filled(self, numbers: Sequence[int]) -> list[BatchBuilder]:
        """Return batches with these messages."""
        batches = [self._producer.create_batch()]
        for number in numbers:
            message = self._messages[number]
            # An empty batch takes a message of any size.
            while not batches[-1].append(
                timestamp=_NO_TIMESTAMP,
                key=key_bytes(message.key) or None,
                value=message.value,
                headers=list(message.headers.items()),
            ):
                batches.append(self._producer.create_batch())
        return batches

    async def _deliver(
        self, topic: str, partition: int, batches: Sequence[BatchBuilder]
    ) -> list[Place | None]:
        """Send batches to a partition, and return the places of their messages."""
        confirmations = []
        for batch in batches:
            confirmation = await self._producer.send_batch(batch, topic, partition=partition)
            confirmation.add_done_callback(_retrieve)
            confirmations.append(confirmation)
        # If this is cancelled, the wait leaves the confirmations alone: the driver shields them, so
        # nothing would retrieve the error of one that was cancelled.
        await asyncio.wait(confirmations)
        places: list[Place | None] = []
        for first, batch in zip(confirmations, batches, strict=True):
            place = _place(first.result())
            places += [
                None if place is None else (partition, place[1] + number)
                for number in range(batch.record_count())
            ]
        return places

    async def confirmed(self) -> list[Place | None]:
        """Wait until all are confirmed and return their places.

        Raises:
            StuckTopic: a topic was deleted or lost its leaders; the driver would wait for ever.
            KafkaError: the brokers refused a message.
        """
        checks = 0
        confirmations = [sending.confirmation for sending in self._sendings]
        while True:
            done, waiting = await asyncio.wait(
                confirmations, timeout=_CHECK_SEC, return_when=asyncio.FIRST_EXCEPTION
            )
            for confirmation in done:
                confirmation.result()
            if not waiting:
                break
            checks += 1
            self._check_topics(wait_for_leaders=checks < _CHECKS_WITHOUT_LEADER)
        places: list[Place | None] = [None] * len(self._messages)
        for sending in self._sendings:
            confirmed = sending.confirmation.result()
            found = confirmed if isinstance(confirmed, list) else [_place(confirmed)]
            for number, place in zip(sending.numbers, found, strict=True):
                places[number] = place
        return places

    def _check_topics(self, *, wait_for_leaders: bool) -> None:
        unconfirmed = {
            sending.topic for sending in self._sendings if not sending.confirmation.done()
        }
        fault = _topic_fault(self._producer, unconfirmed, wait_for_leaders=wait_for_leaders)
        if fault is not None:
            raise StuckTopic(fault)

    def abandon(self) -> None:
        """Stop waiting, and retrieve all errors so that asyncio reports none of them as lost."""
        for sending in self._sendings:
            if not sending.confirmation.done():
                sending.confirmation.cancel()
            else:
                _retrieve(sending.confirmation)


def _retrieve(confirmation: Future[Any]) -> None:
    if not confirmation.cancelled():
        confirmation.exception()


class StuckTopic(Exception):
    """The fault of a topic for which the driver would retry for ever."""

    def __init__(self, fault: KafkaError) -> None:
        super().__init__(fault)
        self.fault = fault


async def _partition_count(producer: AIOKafkaProducer, topic: str) -> int:
    """Return the number of partitions of a topic.

    The driver's own method waits for a missing topic, which would hold up the other topics.

    Raises:
        UnknownTopicOrPartitionError, TopicAuthorizationFailedError: the topic is missing, or hidden
            from this user.
        TimeoutError: no broker answered.
    """
    client = producer.client
    for _ in range(_METADATA_TRIES):
        partitions = client.cluster.partitions_for_topic(topic)
        if partitions:
            return len(partitions)
        client.add_topic(topic)
        if not await client.force_metadata_update():
            raise TimeoutError
        if topic in client.cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(topic)
        # The other brokers learn of a new topic a moment later.
        await asyncio.sleep(_METADATA_PAUSE_SEC)
    raise UnknownTopicOrPartitionError(topic)


def _topic_fault(
    producer: AIOKafkaProducer, topics: Collection[str], *, wait_for_leaders: bool
) -> KafkaError | None:
    """Return the reason why messages for one of these topics cannot be sent.

    With ``wait_for_leaders``, partitions without a leader are no fault: an election may follow.
    """
    cluster = producer.client.cluster
    for topic in topics:
        partitions = cluster.partitions_for_topic(topic)
        if not partitions:
            return UnknownTopicOrPartitionError(topic)
        if not wait_for_leaders and any(
            cluster.leader_for_partition(TopicPartition(topic, number)) in {None, -1}
            for number in partitions
        ):
            return LeaderNotAvailableError(topic)
    return None


def _place(metadata: RecordMetadata) -> Place | None:
    """Return the place of a confirmed message, or None if the brokers do not know it.

    They may not know it for a message that an earlier try stored: then there is no log start.
    """
    return None if metadata.log_start_offset == -1 else (metadata.partition, metadata.offset)
