"""Topics: their creation, added partitions, and the doctor's checks."""

import anyio
import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from flowkit.errors import BusError
from flowkit.protocols import Message, TopicSpec
from tests.kafka.support import bus_at, contents, take, unique
from tests.servers.ports import LOOPBACK, free_ports

pytestmark = pytest.mark.services


@pytest.fixture
async def admin(anyio_backend, kafka_address):
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_address)
    await client.start()
    yield client
    await client.close()


async def partitions(admin: AIOKafkaAdminClient, topic: str) -> int:
    (described,) = await admin.describe_topics([topic])
    return len(described["partitions"])


async def test_topics_are_made_as_configured_and_left_as_they_are(kafka_address, admin):
    shared, broadcast = unique("made"), unique("made")
    specs = [TopicSpec(shared), TopicSpec(broadcast, broadcast=True)]
    async with bus_at(kafka_address, partitions=3) as bus:
        await bus.ensure_topics(specs)
    async with bus_at(kafka_address, partitions=5) as bus:
        await bus.ensure_topics(specs)
    assert await partitions(admin, shared) == 3
    assert await partitions(admin, broadcast) == 1


async def test_several_processes_may_make_the_same_topics_at_once(kafka_address):
    specs = [TopicSpec(unique("race")) for _ in range(5)]
    async with bus_at(kafka_address) as bus, anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(bus.ensure_topics, specs)


async def test_a_topic_that_the_brokers_refuse_is_named(kafka_address):
    async with bus_at(kafka_address) as bus:
        with pytest.raises(BusError, match="'no good'"):
            await bus.ensure_topics([TopicSpec("no good")])


@pytest.mark.parametrize("group", ["g", None])
async def test_partitions_that_are_added_later_are_read_from_their_beginning(
    kafka_address, admin, group
):
    topic = unique("growing")
    await admin.create_topics([NewTopic(topic, 1, 1)])
    async with bus_at(kafka_address) as bus, bus.subscribe([topic], group=group) as subscription:
        await bus.publish([Message(topic, b"before")])
        await take(subscription, 1)
        await admin.create_partitions({topic: NewPartitions(4)})
        wanted = {str(number).encode() for number in range(30)}
        async with bus_at(kafka_address) as fresh:
            await fresh.publish(
                [Message(topic, value, f"key-{value.decode()}") for value in wanted]
            )
        came: set[bytes] = set()
        with anyio.fail_after(20):
            while not wanted <= came:
                came.update(contents(await subscription.receive(max_messages=50)))


@pytest.mark.parametrize("group", ["g", None])
async def test_a_topic_that_is_made_after_it_was_subscribed_to_is_read_from_its_beginning(
    kafka_address, group
):
    topic = unique("late")
    async with bus_at(kafka_address) as bus, bus.subscribe([topic], group=group) as subscription:
        async with bus_at(kafka_address) as other:
            await other.ensure_topics([TopicSpec(topic)])
            await other.publish([Message(topic, b"first")])
        assert contents(await take(subscription, 1)) == [b"first"]


async def test_the_doctor_finds_no_fault(kafka_address):
    topic = unique("well")
    async with bus_at(kafka_address) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        results = {result.name: result for result in await bus.check([TopicSpec(topic)])}
    assert all(result.ok for result in results.values())
    assert {"kafka", "kafka version", f"topic {topic}", "topic flowkit.dlq"} <= results.keys()


async def test_the_doctor_says_how_to_fix_each_fault(kafka_address, admin):
    missing, small, single = unique("missing"), unique("small"), unique("single")
    await admin.create_topics(
        [
            NewTopic(small, 1, 1, topic_configs={"max.message.bytes": "20000"}),
            NewTopic(single, 1, 1),
        ]
    )
    async with bus_at(kafka_address, create_topics=False) as bus:
        results = {
            result.name: result
            for result in await bus.check([TopicSpec(missing), TopicSpec(small)])
        }
    assert "kafka-topics.sh --create" in results[f"topic {missing}"].remedy
    assert "max.message.bytes" in results[f"topic {small}"].remedy
    await admin.create_topics(
        [NewTopic(compact := unique("compact"), 1, 1, topic_configs={"cleanup.policy": "compact"})]
    )
    async with bus_at(kafka_address) as bus:
        (*_, result, _) = await bus.check([TopicSpec(compact)])
    assert (result.ok, "cleanup.policy=delete" in result.remedy) == (False, True)
    async with bus_at(kafka_address, replication_factor=3) as bus:
        (*_, result, _) = await bus.check([TopicSpec(single)])
    assert not result.ok
    assert "replication_factor" in result.remedy


async def test_the_doctor_raises_nothing_when_there_is_no_broker():
    (port,) = free_ports(1)
    (result,) = await bus_at(f"{LOOPBACK}:{port}", patience_sec=0.5).check([])
    assert not result.ok
    assert result.remedy


@pytest.mark.parametrize(
    "settings",
    [{"message.timestamp.before.max.ms": "0"}, {"message.timestamp.type": "LogAppendTime"}],
)
async def test_a_broker_finds_no_time_in_messages_that_it_could_refuse(
    kafka_address, admin, settings
):
    """The first topic refuses each message that has a time of its own as too old.

    Likewise, a broker refuses the time of a clock that is far ahead.
    """
    topic = unique("clocks")
    await admin.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)])
    async with (
        bus_at(kafka_address, linger_ms=20) as bus,
        bus.subscribe([topic], group="g") as subscription,
    ):
        await bus.publish([Message(topic, b"one"), Message(topic, b"two")])
        assert contents(await take(subscription, 2)) == [b"one", b"two"]


async def test_topics_are_made_with_the_time_of_the_broker(kafka_address, admin):
    topic = unique("time")
    async with bus_at(kafka_address) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
    wanted = [
        ConfigResource(ConfigResourceType.TOPIC, topic, configs={"message.timestamp.type": None})
    ]
    ((answer,),) = [answer.resources for answer in await admin.describe_configs(wanted)]
    assert answer[4][0][1] == "LogAppendTime"
