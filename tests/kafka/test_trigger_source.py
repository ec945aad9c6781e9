"""Topics of a real Kafka as sources of triggers."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flowkit import Client, Coordinator, CoordinatorConfig, Trigger
from flowkit._records.trigger_records import KIND, decode_trigger
from flowkit.errors import ConfigError, TopicUnavailable
from flowkit.protocols import Delivery, EventStream
from flowkit.task import TaskView
from flowkit_kafka._trigger_source import KafkaTriggerSource
from flowkit_testing import InMemoryBus, InMemoryStore
from tests.builders import graph
from tests.kafka.support import QUICK, WITHIN_SEC, contents, unique

pytestmark = pytest.mark.services

OPTIONS = {"kafka": {**QUICK, "commit_interval_sec": 0.05}}


def source_at(address: str, topic: str, query: str = "") -> KafkaTriggerSource:
    config = CoordinatorConfig(options=OPTIONS)
    return KafkaTriggerSource(f"kafka://{address}/{topic}{query}", config)


class Server:
    """The brokers of a test, as a program that knows nothing of FlowKit uses them."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def __aenter__(self) -> "Server":
        self._stack = AsyncExitStack()
        self._admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await self._admin.start()
        self._stack.push_async_callback(self._admin.close)
        self._producer = AIOKafkaProducer(bootstrap_servers=self.address)
        await self._producer.start()
        self._stack.push_async_callback(self._producer.stop)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._stack.aclose()

    async def create(self, topic: str, *, partitions: int = 1) -> None:
        await self._admin.create_topics([NewTopic(topic, partitions, 1)])

    async def rewind(self, topic: str, group: str, *, partitions: int) -> None:
        """Set a group back to the oldest records, as if none of its offsets had been committed."""
        consumer = AIOKafkaConsumer(bootstrap_servers=self.address, group_id=group)
        await consumer.start()
        try:
            places = [TopicPartition(topic, number) for number in range(partitions)]
            consumer.assign(places)
            await consumer.commit(dict.fromkeys(places, 0))
        finally:
            await consumer.stop()

    async def topics(self) -> list[str]:
        return await self._admin.list_topics()

    async def send(self, topic: str, *values: str, at: float | None = None) -> None:
        for value in values:
            await self._producer.send_and_wait(
                topic,
                value.encode(),
                key=f"k{value}".encode(),
                timestamp_ms=None if at is None else round(at * 1000),
                headers=[("h", b"x")],
            )


@pytest.fixture
async def server(anyio_backend: str, kafka_address: str) -> AsyncIterator[Server]:
    async with Server(kafka_address) as server:
        yield server


async def take(stream: EventStream, count: int, *, ack: bool = True) -> list[Delivery]:
    got: list[Delivery] = []
    with anyio.fail_after(WITHIN_SEC):
        while len(got) < count:
            some = await stream.receive(max_messages=100)
            got += some
            if ack:
                await stream.ack(some)
    return got


async def until_behind(source: KafkaTriggerSource, group: str, since: float, count: int) -> None:
    with anyio.fail_after(WITHIN_SEC):
        while await source.behind(group, since=since) != count:
            await anyio.sleep(0.05)


async def test_a_group_begins_at_its_time_goes_on_where_it_was_and_knows_how_far_it_is_behind(
    server: Server,
) -> None:
    topic, group = unique("source"), unique("group")
    await server.create(topic)
    since = time.time()
    await server.send(topic, "old", at=since - 10)
    await server.send(topic, "1", "2", at=since + 1)
    source = source_at(server.address, topic)
    assert await source.behind(group, since=since) == 2
    async with source.subscribe(group, since=since) as stream:
        first, second = await take(stream, 2, ack=False)
        await stream.ack([first])
    assert (first.message.value, first.message.key, first.message.headers) == (
        b"1",
        "k1",
        {"h": b"x"},
    )
    assert (first.message.topic, first.partition, first.position) == (topic, 0, 1)
    assert first.timestamp == pytest.approx(since + 1, abs=0.001)
    assert await source.behind(group, since=since) == 1
    await server.send(topic, "3", at=since - 10)  # the position counts, and no longer the time
    async with source.subscribe(group, since=since) as stream:
        again, third = await take(stream, 2)
    assert (again.position, again.timestamp) == (second.position, second.timestamp)
    assert contents([again, third]) == [b"2", b"3"]
    assert await source.behind(group, since=since) == 0
    everything = source_at(server.address, topic, "?from=beginning")
    assert await everything.behind(unique("group"), since=since) == 4
    async with everything.subscribe(unique("group"), since=since) as stream:
        assert contents(await take(stream, 4)) == [b"old", b"1", b"2", b"3"]


async def test_a_group_that_finds_nothing_at_its_time_keeps_the_position_that_it_found(
    server: Server,
) -> None:
    topic, group = unique("source"), unique("group")
    await server.create(topic)
    await server.send(topic, "old")
    source, since = source_at(server.address, topic), time.time() + 3600
    async with source.subscribe(group, since=since):
        await until_behind(source, group, since, 0)
        # The position is committed: what comes now counts, although its time is earlier.
        with anyio.fail_after(WITHIN_SEC):
            while await source.behind(group, since=since) < 1:
                await server.send(topic, "new")
                await anyio.sleep(0.05)
    async with source.subscribe(group, since=since) as stream:
        assert set(contents(await take(stream, 1))) == {b"new"}


async def test_the_readers_of_a_group_share_the_records(server: Server) -> None:
    topic, group = unique("source"), unique("group")
    await server.create(topic, partitions=4)
    source, since = source_at(server.address, topic), time.time() - 60
    came: dict[str, list[Delivery]] = {"a": [], "b": []}

    async def read(name: str) -> None:
        async with source.subscribe(group, since=since) as stream:
            while True:
                some = await stream.receive(max_messages=10)
                came[name] += some
                await stream.ack(some)

    with anyio.fail_after(WITHIN_SEC):
        async with anyio.create_task_group() as readers:
            readers.start_soon(read, "a")
            readers.start_soon(read, "b")
            number = 0
            while not (came["a"] and came["b"]):
                await server.send(topic, str(number))
                number += 1
            await until_behind(source, group, since, 0)
            readers.cancel_scope.cancel()
    assert {one.message.value for some in came.values() for one in some} == {
        str(one).encode() for one in range(number)
    }


async def test_a_topic_that_does_not_exist_is_waited_for_and_not_created(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    topic, group = unique("source"), unique("group")
    source, since = source_at(server.address, topic), time.time()
    with pytest.raises(TopicUnavailable, match=f"topic {topic} does not exist"):
        await source.behind(group, since=since)
    async with source.subscribe(group, since=since) as stream:
        with anyio.fail_after(WITHIN_SEC):
            while "does not exist" not in caplog.text:
                await anyio.sleep(0.05)
        assert topic not in await server.topics()
        await server.create(topic)
        await server.send(topic, "1")
        assert contents(await take(stream, 1)) == [b"1"]


async def test_a_trigger_makes_one_task_for_each_record_also_for_those_that_come_again(
    server: Server,
) -> None:
    topic = unique("source")
    await server.create(topic, partitions=3)
    cfg = CoordinatorConfig(options=OPTIONS)
    async with (
        InMemoryStore() as store,
        InMemoryBus() as bus,
        Client(cfg=cfg, store=store, bus=bus) as client,
    ):
        trigger = Trigger(
            "t",
            source=f"kafka://{server.address}/{topic}",
            graph=graph({"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}}),
            params={"n": "${event.value}", "key": "${event.key}"},
        )
        await client.put_trigger(trigger)
        await server.send(topic, "0", "1", "no json", "2", "3")

        async def until_made(count: int) -> list[TaskView]:
            with anyio.fail_after(WITHIN_SEC):
                while len(page := (await client.list_tasks()).items) < count:
                    await anyio.sleep(0.05)
            return list(page)

        def coordinator() -> Coordinator:
            return Coordinator(cfg=cfg, store=store, bus=bus)

        async with coordinator(), coordinator():
            await until_made(4)
            with anyio.fail_after(WITHIN_SEC):
                while not (letters := (await client.dead_letters()).items):
                    await anyio.sleep(0.05)
        (record,) = (await store.records.get(KIND, ["t"])).values()
        await server.rewind(topic, decode_trigger(record).group_in("flowkit"), partitions=3)
        async with coordinator():
            await server.send(topic, "4")
            (source, stored) = source_at(server.address, topic), decode_trigger(record)
            await until_behind(source, stored.group_in("flowkit"), stored.since, 0)
            made = await until_made(5)
        assert sorted((one.params["n"], one.params["key"]) for one in made) == [
            (number, f"k{number}") for number in range(5)
        ]
        assert [(one.trigger, one.kind) for one in letters] == [("t", "trigger")]


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("kafka://host", "names no topic; write kafka://host:9092,host2:9092/topic"),
        ("kafka://host/", "names no topic"),
        ("kafka://host/a/b", "^source: 'a/b' is not a topic name; use letters, digits"),
        ("kafka://host/..", "'..' is not a topic name"),
        (f"kafka://host/{'a' * 250}", "has 250 characters; the limit is 249"),
        ("kafka://host/__consumer_offsets", "^source: '__consumer_offsets' holds the state of the"),
        ("kafka:///topic", "is not a Kafka address"),
        ("kafka://host:0/topic", "is not a Kafka address"),
        ("kafka://user:pw@host/topic", "^source: a Kafka address cannot hold a user"),
        ("kafka://host/topic?from=then", "write from=beginning or from=now"),
        ("kafka://host/topic?since=now", "write from=beginning or from=now"),
        ("kafka://host/topic?from", "write from=beginning or from=now"),
        ("kafka://host/topic?from=now&from=beginning", "write from=beginning or from=now"),
        ("kafka://host/flowkit.events", "'flowkit.events' is a topic of this FlowKit installation"),
        ("kafka://host/flowkit.cmd.resize", "is a topic of this FlowKit installation"),
    ],
)
def test_a_wrong_address_is_refused(address: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        KafkaTriggerSource(address, CoordinatorConfig())
