"""The bus on Apache Kafka."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Self

from flowkit.adapters import Lifecycle
from flowkit.config import CommonConfig
from flowkit.errors import BusError, BusUnavailable, TopicUnavailable
from flowkit.protocols import CheckResult, Delivery, Message, Place, TopicSpec
from flowkit_kafka._address import bootstrap_servers
from flowkit_kafka._config import KafkaConfig
from flowkit_kafka._consumer import SupervisedConsumer
from flowkit_kafka._dead_letters import dead_letter
from flowkit_kafka._doctor import check
from flowkit_kafka._group_member import GroupMember
from flowkit_kafka._group_offsets import GroupOffsets
from flowkit_kafka._inbox import Inbox
from flowkit_kafka._listener import Listener
from flowkit_kafka._messages import check_size
from flowkit_kafka._producer import SupervisedProducer
from flowkit_kafka._subscription import KafkaSubscription
from flowkit_kafka._topics import Topics


class KafkaBus:
    """A :class:`~flowkit.protocols.Bus` on Kafka, at ``kafka://host:9092,host2:9092``."""

    places = key_affinity = replay_for_new_groups = True

    def __init__(self, address: str, config: CommonConfig | None = None) -> None:
        """Check address and settings; the bus connects when it is entered.

        Raises:
            ConfigError: the address, or a field of ``config.options["kafka"]``, is wrong.
        """
        common = config or CommonConfig()
        self._config = KafkaConfig.of(common)
        self._config.connection()
        self._servers = bootstrap_servers(address)
        self._dead_letter_topic = common.dead_letter_topic
        self._topics = Topics(self._servers, self._config)
        self._topics.need([TopicSpec(self._dead_letter_topic)])
        self._life = Lifecycle[SupervisedProducer]("this bus", error=BusError)
        self._offsets = GroupOffsets(self._servers, self._config)
        self.max_message_bytes = self._config.max_message_bytes

    async def __aenter__(self) -> Self:
        self._life.check_not_open()
        self._life.open(await SupervisedProducer(self._servers, self._config).__aenter__())
        return self

    async def __aexit__(self, *exc: object) -> None:
        producer = self._life.close()
        try:
            await self._offsets.close()
        finally:
            if producer is not None:
                await producer.__aexit__(*exc)

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        await self._topics.ensure(topics)

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        for message in messages:
            check_size(message, self.max_message_bytes)
        return await self._send(messages) if messages else []

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        self._life.check_open()
        return await self._offsets.outstanding(topic, group)

    @asynccontextmanager
    async def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AsyncIterator[KafkaSubscription]:
        self._life.check_open()
        inbox = Inbox(
            max_unacked=None if group is None else max_unacked, capacity=self._config.prefetch
        )
        consumer: SupervisedConsumer
        if group is None:
            consumer = listener = Listener(self._servers, self._config, inbox, topics, self._topics)
        else:
            consumer = GroupMember(self._servers, self._config, inbox, topics, self._topics, group)
        consumer.start()
        try:
            if group is None:
                await self._wait_until_located(listener)
            yield KafkaSubscription(inbox, consumer, self._park)
        finally:
            await consumer.stop()

    async def check(self, topics: Sequence[TopicSpec]) -> Sequence[CheckResult]:
        wanted = {spec.name: spec for spec in [*topics, TopicSpec(self._dead_letter_topic)]}
        return await check(self._topics, self._config, self._servers, list(wanted.values()))

    async def _wait_until_located(self, listener: Listener) -> None:
        try:
            async with asyncio.timeout(self._config.patience_sec):
                await listener.located.wait()
        except TimeoutError:
            listener.check()
            raise BusUnavailable(
                f"listening to {', '.join(listener.topics)}: the brokers did not give the end"
                " offsets in time"
            ) from None

    async def _park(self, deliveries: Sequence[Delivery], reason: str) -> None:
        limit = self.max_message_bytes
        await self._send(
            [
                dead_letter(each, reason, topic=self._dead_letter_topic, limit=limit)
                for each in deliveries
            ]
        )

    async def _send(self, messages: Sequence[Message]) -> list[Place | None]:
        """Send messages; if a topic is unavailable, create it again if allowed and retry once."""
        producer = self._life.resource
        try:
            return await producer.send(messages)
        except TopicUnavailable:
            await self._topics.restore({message.topic for message in messages})
            return await producer.send(messages)
