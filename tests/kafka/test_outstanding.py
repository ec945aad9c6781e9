"""Offsets of groups, also when they no longer fit the topic."""

import gc
import warnings
from collections.abc import AsyncIterator

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import RecordMetadata

from flowkit.protocols import TopicSpec
from flowkit_kafka import KafkaBus
from flowkit_kafka._publish_batch import _place
from tests.kafka.support import bus_at, numbered, take, unique

pytestmark = pytest.mark.services


@pytest.fixture
async def bus(anyio_backend: str, kafka_address: str) -> AsyncIterator[KafkaBus]:
    async with bus_at(kafka_address, partitions=1, commit_interval_sec=0.05) as bus:
        yield bus


async def topic_of(bus: KafkaBus, messages: int) -> str:
    topic = unique("outstanding")
    await bus.ensure_topics([TopicSpec(topic)])
    await bus.publish(numbered(topic, range(messages)))
    return topic


async def commit(address: str, topic: str, group: str, offset: int) -> None:
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=address, group_id=group, enable_auto_commit=False
    ) as consumer:
        consumer.assign([partition])
        await consumer.commit({partition: offset})


async def delete(address: str, topic: str, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.delete_records(
            {TopicPartition(topic, 0): RecordsToDelete(before_offset=before)}
        )
    finally:
        await admin.close()


async def test_a_group_whose_offset_is_above_the_end_starts_at_the_beginning(
    bus: KafkaBus, kafka_address: str
) -> None:
    """Such a topic was created again, or has lost its tail: the members read it from the start."""
    topic = await topic_of(bus, 5)
    await commit(kafka_address, topic, "g", 100)
    assert await bus.outstanding(topic, "g") == {0: (0, 5)}


async def test_what_was_deleted_is_not_to_come(bus: KafkaBus, kafka_address: str) -> None:
    topic = await topic_of(bus, 5)
    await commit(kafka_address, topic, "g", 1)
    await delete(kafka_address, topic, 3)
    assert await bus.outstanding(topic, "g") == {0: (3, 5)}
    assert await bus.outstanding(topic, "unknown") == {0: (3, 5)}


async def test_a_topic_that_is_new_is_known_at_once(bus: KafkaBus) -> None:
    for _ in range(3):
        topic = await topic_of(bus, 2)
        assert await bus.outstanding(topic, "g") == {0: (0, 2)}


async def test_reading_offsets_does_not_join_the_group(bus: KafkaBus) -> None:
    topic = await topic_of(bus, 20)
    async with bus.subscribe([topic], group="members") as subscription:
        for _ in range(5):
            await bus.outstanding(topic, "members")
        await take(subscription, 20, within=20)
        with anyio.fail_after(20):
            while await bus.outstanding(topic, "members") != {0: (20, 20)}:
                await anyio.sleep(0.05)


async def test_many_may_ask_at_once(bus: KafkaBus) -> None:
    topic = await topic_of(bus, 2)
    found = []

    async def ask() -> None:
        found.append(await bus.outstanding(topic, "g"))

    async with anyio.create_task_group() as group:
        for _ in range(20):
            group.start_soon(ask)
    assert found == [{0: (0, 2)}] * 20


async def test_a_cancelled_read_does_not_disturb_the_others(bus: KafkaBus) -> None:
    topic = await topic_of(bus, 2)
    for delay in (0.0, 0.001, 0.003, 0.01):
        with anyio.move_on_after(delay):
            await bus.outstanding(topic, "g")
    assert await bus.outstanding(topic, "g") == {0: (0, 2)}


async def test_a_cancelled_read_leaves_no_open_connection(bus: KafkaBus) -> None:
    topic = await topic_of(bus, 2)
    gc.collect()
    with warnings.catch_warnings(record=True) as complaints:
        warnings.simplefilter("always")
        for half_ms in range(40):
            with anyio.move_on_after(half_ms / 2000):
                await bus.outstanding(topic, "g")
        gc.collect()
    assert [str(complaint.message) for complaint in complaints] == []


def test_a_place_that_the_brokers_no_longer_know_is_none() -> None:
    """A batch that is retried late may be known to the brokers by its sequence number alone."""
    partition = TopicPartition("t", 3)
    assert _place(RecordMetadata("t", 3, partition, 17, 0, 0, 5)) == (3, 17)
    assert _place(RecordMetadata("t", 3, partition, 1, 0, 0, -1)) is None
