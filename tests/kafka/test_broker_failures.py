"""Brokers that restart, crash and hang: no message is lost, and work continues."""

import logging
from collections.abc import Callable, Mapping

import anyio
import anyio.to_thread
import pytest

from flowkit.errors import BusUnavailable
from flowkit.protocols import Bus, Message, Subscription, TopicSpec
from tests.kafka.support import WITHIN_SEC, bus_at, comes, contents, numbered, take, unique
from tests.servers.kafka import KafkaServer
from tests.servers.kafka_fixtures import start_kafka
from tests.servers.ports import LOOPBACK, free_ports

pytestmark = pytest.mark.services


class Load:
    """Messages that are published all the time, and those that were received."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.sent = 0
        self.refused = 0
        self.came: set[bytes] = set()
        self._stopping = False
        self._stopped = anyio.Event()
        self._more = anyio.Event()

    async def publish(self, bus: Bus) -> None:
        while not self._stopping:
            batch = numbered(self.topic, range(self.sent, self.sent + 20))
            try:
                await bus.publish(batch)
            except BusUnavailable:
                self.refused += 1
            else:
                self.sent += len(batch)
                await anyio.sleep(0.01)
        self._stopped.set()

    async def receive(self, subscription: Subscription) -> None:
        while True:
            try:
                batch = await subscription.receive(max_messages=100)
            except BusUnavailable:
                continue
            self.came.update(contents(batch))
            await subscription.ack(batch)
            self._more.set()
            self._more = anyio.Event()

    async def progress(self, count: int) -> None:
        """Return when ``count`` more messages were received."""
        wanted = len(self.came) + count
        while len(self.came) < wanted:
            await self._more.wait()

    async def complete(self) -> None:
        """Stop publishing, and return when all confirmed messages were received."""
        self._stopping = True
        await self._stopped.wait()
        while not self._sent_numbers() <= self.came:
            await self._more.wait()

    def _sent_numbers(self) -> set[bytes]:
        return {str(number).encode() for number in range(self.sent)}


async def survives(server: KafkaServer, *disasters: Callable[[], None]) -> None:
    """Run a group and a listener under load through failures; check that both get all messages."""
    shared, heard = Load(unique("shared")), Load(unique("heard"))
    async with bus_at(server.address) as bus, bus_at(server.address) as other:
        await bus.ensure_topics([TopicSpec(shared.topic), TopicSpec(heard.topic, broadcast=True)])
        async with (
            other.subscribe([shared.topic], group="g") as member,
            other.subscribe([heard.topic], group=None) as listener,
        ):
            with anyio.fail_after(90):
                async with anyio.create_task_group() as tasks:
                    for load, subscription in ((shared, member), (heard, listener)):
                        tasks.start_soon(load.publish, bus)
                        tasks.start_soon(load.receive, subscription)
                    for disaster in disasters:
                        await shared.progress(200)
                        await anyio.to_thread.run_sync(disaster)
                    await shared.progress(200)
                    await heard.progress(200)
                    await shared.complete()
                    await heard.complete()
                    tasks.cancel_scope.cancel()


async def test_the_first_group_of_a_new_broker_starts_without_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with start_kafka() as server:
        async with bus_at(server.address) as bus:
            topic = unique("first")
            await bus.ensure_topics([TopicSpec(topic)])
            async with bus.subscribe([topic], group="g") as subscription:
                await bus.publish(numbered(topic, range(3)))
                assert len(await take(subscription, 3)) == 3
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR] == []


async def test_nothing_is_lost_when_the_broker_is_restarted_and_killed_under_load(own_kafka):
    def kill() -> None:
        own_kafka.kill()
        own_kafka.start_again()

    await survives(own_kafka, own_kafka.restart, kill)


async def test_nothing_is_lost_when_one_of_three_brokers_dies_under_load():
    with start_kafka(brokers=3) as server:
        await survives(server, lambda: server.kill(2))


async def test_a_broker_that_hangs_is_reported_and_work_goes_on_behind_it(own_kafka):
    topic = unique("hanging")
    async with bus_at(own_kafka.address, patience_sec=1.5) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        async with bus.subscribe([topic], group="g") as subscription:
            await bus.publish([Message(topic, b"before")])
            await take(subscription, 1)
            own_kafka.suspend()
            try:
                with anyio.fail_after(20):
                    with pytest.raises(BusUnavailable, match="publishing 1 messages"):
                        await bus.publish([Message(topic, b"maybe")])
                    with pytest.raises(BusUnavailable, match="receiving from"):
                        await subscription.receive(max_messages=1)
            finally:
                own_kafka.resume()
            with anyio.fail_after(30):
                while True:
                    try:
                        await bus.publish([Message(topic, b"after")])
                        break
                    except BusUnavailable:
                        continue
                came: list[bytes] = []
                while b"after" not in came:
                    try:
                        came += contents(await subscription.receive(max_messages=10))
                    except BusUnavailable:
                        continue


async def test_a_broker_that_comes_back_is_asked_again_how_far_a_group_is(
    own_kafka: KafkaServer,
) -> None:
    async with bus_at(own_kafka.address, partitions=1, patience_sec=8.0) as bus:
        topic = unique("outstanding")
        await bus.ensure_topics([TopicSpec(topic)])
        await bus.publish(numbered(topic, range(2)))
        assert await bus.outstanding(topic, "g") == {0: (0, 2)}
        await anyio.to_thread.run_sync(own_kafka.kill)
        with pytest.raises(BusUnavailable, match="the offsets of group g in"):
            await bus.outstanding(topic, "g")
        await anyio.to_thread.run_sync(own_kafka.start_again)
        with anyio.fail_after(20):
            while True:
                try:
                    assert await bus.outstanding(topic, "g") == {0: (0, 2)}
                    break
                except BusUnavailable:
                    await anyio.sleep(0.2)


async def test_leaving_takes_no_longer_than_its_limit_when_the_broker_hangs(own_kafka):
    topic = unique("leaving")
    async with bus_at(own_kafka.address, close_timeout_sec=1.0, request_timeout_sec=30) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        async with bus.subscribe([topic], group="g") as subscription:
            await bus.publish([Message(topic, b"one")])
            await take(subscription, 1)
            own_kafka.suspend()
            begun = anyio.current_time()
    try:
        assert anyio.current_time() - begun < 20
    finally:
        own_kafka.resume()


async def test_a_bus_without_a_broker_says_so_within_its_patience():
    (port,) = free_ports(1)
    begun = anyio.current_time()
    with pytest.raises(BusUnavailable, match=f"connecting to {LOOPBACK}:{port}"):
        await bus_at(f"{LOOPBACK}:{port}", patience_sec=0.5).__aenter__()
    assert anyio.current_time() - begun < 15


async def positions(bus: Bus, topic: str) -> Mapping[int, tuple[int, int]]:
    """Return the outstanding messages, or None while the bus is unavailable."""
    try:
        return await bus.outstanding(topic, "g")
    except BusUnavailable:
        return {}


async def test_a_broker_that_lost_everything_is_used_again_without_a_restart(
    own_kafka: KafkaServer,
) -> None:
    shared, heard = unique("shared"), unique("heard")
    specs = [TopicSpec(shared), TopicSpec(heard, broadcast=True)]
    async with bus_at(own_kafka.address) as bus, bus_at(own_kafka.address) as other:
        for one in (bus, other):
            await one.ensure_topics(specs)
        async with (
            other.subscribe([shared], group="g") as member,
            other.subscribe([heard], group=None) as listener,
        ):
            for value in (b"before", b"after"):
                await comes(bus, member, shared, value)
                await comes(bus, listener, heard, value)
                with anyio.fail_after(WITHIN_SEC):
                    while not await positions(bus, shared):
                        await anyio.sleep(0.1)
                if value == b"before":
                    await anyio.to_thread.run_sync(own_kafka.wipe)
