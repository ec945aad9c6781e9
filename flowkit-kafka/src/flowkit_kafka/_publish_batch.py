"""One call of ``publish``: its messages and their confirmations by the driver."""

import asyncio
from asyncio import Future
from collections.abc import Collection, Sequence

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
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


class PublishBatch:
    """The messages of one call, sent in order and confirmed one by one."""

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
        self._confirmations: list[Future[RecordMetadata]] = []

    async def buffer(self) -> None:
        """Hand all messages to the driver, which sends them.

        Raises:
            KafkaError: a topic is missing, or this user may not see it.
            TimeoutError: no broker answered.
        """
        partitions: dict[str, int] = {}
        for message in self._messages:
            topic = message.topic
            if topic not in partitions:
                partitions[topic] = await _partition_count(self._producer, topic)
            key = key_bytes(message.key)
            headers = list(message.headers.items()) if message.headers else None
            as_others = self._as_other_clients
            self._confirmations.append(
                await self._producer.send(
                    topic,
                    message.value,
                    key or None,
                    None if as_others else partition_of(key, partitions[topic]),
                    timestamp_ms=None if as_others else _NO_TIMESTAMP,
                    headers=headers,
                )
            )

    async def confirmed(self) -> list[Place | None]:
        """Wait until all are confirmed and return their places.

        Raises:
            StuckTopic: a topic was deleted or lost its leaders; the driver would wait for ever.
            KafkaError: the brokers refused a message.
        """
        checks = 0
        while True:
            done, waiting = await asyncio.wait(
                self._confirmations, timeout=_CHECK_SEC, return_when=asyncio.FIRST_EXCEPTION
            )
            if not waiting or any(future.exception() for future in done):
                return [_place(future.result()) for future in self._confirmations if future in done]
            checks += 1
            self._check_topics(wait_for_leaders=checks < _CHECKS_WITHOUT_LEADER)

    def _check_topics(self, *, wait_for_leaders: bool) -> None:
        unconfirmed = {
            message.topic
            for message, future in zip(self._messages, self._confirmations, strict=True)
            if not future.done()
        }
        fault = _topic_fault(self._producer, unconfirmed, wait_for_leaders=wait_for_leaders)
        if fault is not None:
            raise StuckTopic(fault)

    def abandon(self) -> None:
        """Stop waiting, and retrieve all errors so that asyncio reports none of them as lost."""
        for future in self._confirmations:
            if not future.done():
                future.cancel()
            elif not future.cancelled():
                future.exception()


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
