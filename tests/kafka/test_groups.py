"""Members of groups that join, leave, crash, hang and hold messages for a long time."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from anyio.abc import Process

from flowkit.protocols import Message, TopicSpec
from flowkit_kafka import KafkaBus
from tests.kafka.support import QUICK, bus_at, contents, nothing_comes, numbered, take, unique

pytestmark = pytest.mark.services

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
async def bus(anyio_backend, kafka_address) -> AsyncIterator[KafkaBus]:
    async with bus_at(kafka_address) as bus:
        yield bus


@pytest.fixture
async def topic(bus) -> str:
    name = unique("groups")
    await bus.ensure_topics([TopicSpec(name)])
    return name


@asynccontextmanager
async def member_process(
    address: str, topic: str, group: str, *, acknowledge: int, received: int
) -> AsyncIterator[Process]:
    """Run a member in its own process until it has received and acknowledged some messages."""
    command = [
        sys.executable,
        "-m",
        "tests.kafka.crashing_member",
        address,
        topic,
        group,
        str(acknowledge),
    ]
    async with await anyio.open_process(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        try:
            lines = b""
            while lines.count(b"\n") < received:
                lines += await process.stdout.receive()
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def committed(address: str, topic: str, group: str, partition: int) -> int | None:
    consumer = AIOKafkaConsumer(bootstrap_servers=address, group_id=group)
    await consumer.start()
    try:
        return await consumer.committed(TopicPartition(topic, partition))
    finally:
        await consumer.stop()


async def test_nothing_is_lost_while_members_join_and_leave_all_the_time(bus, topic):
    came: set[bytes] = set()
    done = anyio.Event()

    async def receive(subscription) -> None:
        batch = await subscription.receive(max_messages=20)
        came.update(contents(batch))
        await subscription.ack(batch)
        if len(came) == 2000:
            done.set()

    async def visit() -> None:
        while True:
            async with bus.subscribe([topic], group="visitors") as subscription:
                await receive(subscription)  # on a busy machine, this alone may take seconds
                with anyio.move_on_after(0.7):
                    while True:
                        await receive(subscription)

    async def publish() -> None:
        for start in range(0, 2000, 50):
            await bus.publish(numbered(topic, range(start, start + 50)))
            await anyio.sleep(0.05)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(publish)
            for _ in range(3):
                tasks.start_soon(visit)
            await done.wait()
            tasks.cancel_scope.cancel()


async def test_messages_of_a_crashed_member_are_delivered_to_another(bus, topic, kafka_address):
    await bus.publish([Message(topic, str(number).encode(), "key") for number in range(10)])
    async with member_process(kafka_address, topic, "g", acknowledge=5, received=10) as process:
        process.send_signal(signal.SIGKILL)
        async with bus.subscribe([topic], group="g") as subscription:
            assert contents(await take(subscription, 10, within=20)) == [
                str(number).encode() for number in range(10)
            ]


async def test_a_member_that_was_removed_does_not_move_the_group_back(bus, topic, kafka_address):
    await bus.publish([Message(topic, str(number).encode(), "key") for number in range(10)])
    async with member_process(kafka_address, topic, "g", acknowledge=5, received=10) as process:
        process.send_signal(signal.SIGSTOP)
        async with bus.subscribe([topic], group="g") as subscription:
            (*_, last) = await take(subscription, 10, within=20)
        assert await committed(kafka_address, topic, "g", last.partition) == 10
        process.send_signal(signal.SIGCONT)
        # It learns that it was removed, may commit for its old partitions, and joins again.
        await anyio.sleep(2.0)
    assert await committed(kafka_address, topic, "g", last.partition) == 10


async def test_a_message_may_be_held_for_longer_than_the_session(bus, topic, kafka_address):
    await bus.publish([Message(topic, b"slow", "key")])
    async with (
        bus.subscribe([topic], group="g", max_unacked=1) as slow,
        bus_at(kafka_address) as other_bus,
    ):
        given = await take(slow, 1, ack=False)
        async with other_bus.subscribe([topic], group="other"):
            await anyio.sleep(2.5 * QUICK["session_timeout_sec"])
        await slow.ack(given)
    async with bus.subscribe([topic], group="g") as next_one:
        assert await nothing_comes(next_one)


async def test_messages_that_are_unacknowledged_at_a_rebalance_are_delivered_again(
    bus, topic, kafka_address
):
    await bus.publish(numbered(topic, range(40)))
    wanted = {str(number).encode() for number in range(40)}
    async with bus.subscribe([topic], group="g") as first, bus_at(kafka_address) as other_bus:
        held = await take(first, 40, ack=False)
        async with other_bus.subscribe([topic], group="g") as second:
            came: list[bytes] = []
            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:

                    async def receive(subscription) -> None:
                        while not wanted.issubset(came):
                            with anyio.move_on_after(0.3):
                                batch = await subscription.receive(max_messages=10)
                                came.extend(contents(batch))
                                await subscription.ack(batch)

                    tasks.start_soon(receive, first)
                    tasks.start_soon(receive, second)
            # Late acknowledgements do not affect the new owner of the partitions.
            await first.ack(held)
    async with bus.subscribe([topic], group="g") as after:
        assert await nothing_comes(after)


async def test_acknowledgements_are_committed_within_the_interval(bus, topic, kafka_address):
    await bus.publish([Message(topic, b"one", "key")])
    async with bus.subscribe([topic], group="g") as subscription:
        (given,) = await take(subscription, 1)
        with anyio.fail_after(20):
            while await committed(kafka_address, topic, "g", given.partition) != 1:
                await anyio.sleep(0.1)


async def test_an_error_of_the_caller_is_raised_unchanged(bus, topic):
    with pytest.raises(ZeroDivisionError):
        async with bus.subscribe([topic], group="g"):
            raise ZeroDivisionError
