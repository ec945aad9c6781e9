"""A consumer that reads all messages that are published to its topics."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._consumer import SupervisedConsumer
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._topics import Topics


class Listener(SupervisedConsumer):
    """Reads each partition from its end at the time when ``located`` is set.

    It keeps its positions in memory; Kafka stores no offsets for it. A partition or topic that
    appears later is read from its beginning, because all its messages are new.
    """

    def __init__(
        self,
        servers: Sequence[str],
        config: KafkaConfig,
        inbox: Inbox,
        topics: Sequence[str],
        administration: Topics,
    ) -> None:
        super().__init__(servers, config, inbox, topics, administration)
        self.located = asyncio.Event()
        self._positions: dict[TopicPartition, int] = {}
        self._refreshed_at = 0.0

    def group_settings(self) -> Mapping[str, Any]:
        return {"group_id": None}

    async def attach(self, consumer: AIOKafkaConsumer) -> None:
        if not self.located.is_set():
            found = await self._partitions()
            if found:
                consumer.assign(found)
                self._positions = await consumer.end_offsets(found)
        self._assign(consumer)
        self.located.set()

    async def refresh(self, consumer: AIOKafkaConsumer) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._refreshed_at < self.config.metadata_max_age_sec:
            return
        self._refreshed_at = now
        if all(consumer.partitions_for_topic(topic) for topic in self.topics):
            # The driver itself refreshes the metadata of the topics that it reads.
            present = [
                TopicPartition(topic, number)
                for topic in self.topics
                for number in consumer.partitions_for_topic(topic)
            ]
        else:
            present = await self._partitions()
        # A missing partition is dropped, because the driver would ask for it without a pause. If it
        # comes back, it is read from its beginning like a new one.
        positions = {partition: self._positions.get(partition, 0) for partition in present}
        if positions.keys() != self._positions.keys():
            self._positions = positions
            self._assign(consumer)

    def fetched(self, records: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        for partition, of_partition in records.items():
            self._positions[partition] = of_partition[-1].offset + 1

    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        """Do nothing: a listener has no offsets to commit."""

    def consumer_ended(self) -> None:
        """Keep the inbox: the next consumer continues after its messages."""

    def _assign(self, consumer: AIOKafkaConsumer) -> None:
        if self._positions:
            consumer.assign(list(self._positions))
            for partition, position in self._positions.items():
                consumer.seek(partition, position)
        else:
            consumer.unsubscribe()

    async def _partitions(self) -> list[TopicPartition]:
        found = await self.administration.existing(self.topics)
        return [
            TopicPartition(topic.name, number)
            for topic in found.values()
            for number in range(topic.partitions)
        ]
