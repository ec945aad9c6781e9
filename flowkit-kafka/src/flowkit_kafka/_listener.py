"""A consumer that reads everything that is published to some topics."""

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
    """Reads every partition from where it ended when ``located`` was set, and remembers by itself
    how far it is.

    Kafka keeps no offsets for it. A partition or topic that appears later is read from its
    beginning, for all that is in it is new.
    """

    def __init__(
        self,
        servers: Sequence[str],
        config: KafkaConfig,
        inbox: Inbox,
        names: Sequence[str],
        topics: Topics,
    ) -> None:
        super().__init__(servers, config, inbox, names, topics)
        self.located = asyncio.Event()
        self._positions: dict[TopicPartition, int] = {}
        self._looked = 0.0

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
        if now - self._looked < self.config.metadata_max_age_sec:
            return
        self._looked = now
        if all(consumer.partitions_for_topic(topic) for topic in self.topics):
            # The driver keeps the metadata of what it reads fresh by itself.
            there = [
                TopicPartition(topic, number)
                for topic in self.topics
                for number in consumer.partitions_for_topic(topic)
            ]
        else:
            there = await self._partitions()
        # The driver asks for a missing partition without a pause. One that comes back is read from
        # its beginning, as a new one is.
        positions = {partition: self._positions.get(partition, 0) for partition in there}
        if positions.keys() != self._positions.keys():
            self._positions = positions
            self._assign(consumer)

    def took(self, fetched: Mapping[TopicPartition, Sequence[ConsumerRecord[Any, Any]]]) -> None:
        for partition, records in fetched.items():
            self._positions[partition] = records[-1].offset + 1

    async def commit(self, consumer: AIOKafkaConsumer) -> None:
        """Nothing is kept for a listener."""

    def lost(self) -> None:
        """What is in the inbox stays: the next consumer goes on behind it."""

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
