"""Topics that are deleted: they are created again, and other topics are not affected."""

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient

from flowkit.errors import BusError, BusUnavailable, TopicUnavailable
from flowkit.protocols import Message, TopicSpec
from tests.kafka.support import WITHIN_SEC, bus_at, comes, contents, unique

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]


async def delete(address: str, *topics: str) -> None:
    """Delete topics and return when no broker lists them."""
    client = AIOKafkaAdminClient(bootstrap_servers=address)
    await client.start()
    try:
        await client.delete_topics(list(topics))
        while {topic["topic"] for topic in await client.describe_topics()} & set(topics):
            await anyio.sleep(0.05)
    finally:
        await client.close()


@pytest.mark.parametrize("group", ["g", None])
async def test_a_topic_that_is_deleted_is_created_again_and_read(
    kafka_address: str, group: str | None
) -> None:
    topic = unique("deleted")
    async with bus_at(kafka_address) as bus, bus_at(kafka_address) as reader:
        for one in (bus, reader):
            await one.ensure_topics([TopicSpec(topic, broadcast=group is None)])
        async with reader.subscribe([topic], group=group) as subscription:
            for number in range(30):
                await bus.publish([Message(topic, str(number).encode())])
            await comes(bus, subscription, topic, b"before")
            await delete(kafka_address, topic)
            await comes(bus, subscription, topic, b"after")


async def test_a_topic_without_writers_is_created_again_by_its_readers(
    kafka_address: str,
) -> None:
    topic = unique("quiet")
    async with bus_at(kafka_address) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        async with bus.subscribe([topic], group="g"):
            await delete(kafka_address, topic)
            with anyio.fail_after(WITHIN_SEC):
                while not await bus.outstanding(topic, "g"):
                    await anyio.sleep(0.1)


async def test_a_topic_that_is_missing_delays_no_messages_of_others(kafka_address: str) -> None:
    gone, there = unique("gone"), unique("there")
    async with bus_at(kafka_address) as maker:
        await maker.ensure_topics([TopicSpec(gone), TopicSpec(there)])
        async with bus_at(kafka_address, create_topics=False) as bus:
            await bus.ensure_topics([TopicSpec(gone), TopicSpec(there)])
            await bus.publish([Message(gone, b"1"), Message(there, b"1")])
            async with bus.subscribe([gone, there], group="g") as subscription:
                await comes(bus, subscription, gone, b"before")
                await delete(kafka_address, gone)
                failures: list[BusError] = []

                async def fail() -> None:
                    while True:
                        try:
                            await bus.publish([Message(gone, b"2")])
                        except BusUnavailable as error:
                            failures.append(error)

                async with anyio.create_task_group() as group:
                    group.start_soon(fail)
                    with anyio.fail_after(WITHIN_SEC):
                        while len(failures) < 3:
                            await anyio.sleep(0.05)
                    await comes(bus, subscription, there, b"after")
                    group.cancel_scope.cancel()
                assert all(
                    isinstance(error, TopicUnavailable) and gone in str(error) for error in failures
                )
                await maker.ensure_topics([TopicSpec(gone)])
                await comes(bus, subscription, gone, b"back")


async def test_dead_letters_are_parked_though_their_topic_was_deleted(kafka_address: str) -> None:
    topic = unique("parked")
    async with bus_at(kafka_address) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        async with (
            bus.subscribe([topic], group="g") as subscription,
            bus.subscribe(["flowkit.dlq"], group=unique("dead")) as dead,
        ):
            for value in (b"one", b"two"):
                await bus.publish([Message(topic, value)])
                with anyio.fail_after(WITHIN_SEC):
                    batch = await subscription.receive(max_messages=1)
                    await subscription.reject(batch, "no")
                    while value not in contents(await dead.receive(max_messages=100)):
                        pass
                if value == b"one":
                    await delete(kafka_address, "flowkit.dlq")
