"""Clients of the driver that fail in a way from which the driver does not recover.

These tests end the driver's inner tasks, because the faults that do so in production cannot be
caused at will.
"""

import asyncio
import gc

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, OutOfOrderSequenceNumber

from flowkit.errors import BusUnavailable
from flowkit.protocols import Message, TopicSpec
from tests.kafka.support import bus_at, contents, take, unique

pytestmark = pytest.mark.services


@pytest.fixture(params=["group", None], ids=["member", "listener"])
async def heard(request, anyio_backend, kafka_address):
    """Yield a bus, a topic, and a subscription to it that has read a message."""
    topic = unique("dying")
    async with bus_at(kafka_address, patience_sec=5.0) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        async with bus.subscribe([topic], group=request.param) as subscription:
            await bus.publish([Message(topic, b"before")])
            await take(subscription, 1)
            yield bus, topic, subscription


async def test_a_consumer_that_silently_fetches_no_more_is_replaced(heard):
    bus, topic, subscription = heard
    consumer = subscription._consumer.current
    consumer._fetcher._fetch_task.cancel()
    # The running fetch is still answered, but no later one.
    for value in (b"first", b"second"):
        await bus.publish([Message(topic, value)])
        assert value in contents(await take(subscription, 1))
    assert subscription._consumer.current is not consumer


async def test_a_consumer_whose_poll_raises_is_replaced(heard):
    bus, topic, subscription = heard
    consumer = subscription._consumer.current
    for waiter in list(consumer._fetcher._fetch_waiters):
        waiter.set_exception(GroupAuthorizationFailedError("g"))
    await bus.publish([Message(topic, b"after")])
    assert b"after" in contents(await take(subscription, 1))
    assert subscription._consumer.current is not consumer


@pytest.mark.parametrize("heard", ["group"], indirect=True)
async def test_a_consumer_whose_driver_task_was_cancelled_is_replaced(heard):
    bus, topic, subscription = heard
    coordinator = subscription._consumer.current._coordinator
    coordinator._coordination_task.cancel()
    # The running poll still sees the first message.
    for value in (b"first", b"second"):
        await bus.publish([Message(topic, value)])
        assert value in contents(await take(subscription, 1))


async def test_a_producer_that_is_dead_for_good_is_replaced(heard):
    bus, topic, subscription = heard
    bus._life.resource._producer._message_accumulator.fail_all(OutOfOrderSequenceNumber())
    with pytest.raises(BusUnavailable):
        await bus.publish([Message(topic, b"refused")])
    await bus.publish([Message(topic, b"after")])
    assert b"after" in contents(await take(subscription, 1))


async def test_the_error_of_messages_whose_publisher_was_cancelled_is_not_reported_as_lost(
    anyio_backend, kafka_address
):
    topic = unique("cancelled")
    async with bus_at(kafka_address) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        await bus.publish([Message(topic, b"before")])
        accumulator = bus._life.resource._producer._message_accumulator
        publishing = asyncio.create_task(
            bus.publish([Message(topic, b"one"), Message(topic, b"2")])
        )
        while not accumulator._pending_batches:
            await asyncio.sleep(0)
        publishing.cancel()
        await asyncio.wait([publishing])
        await asyncio.sleep(0)
        accumulator.fail_all(OutOfOrderSequenceNumber())
        gc.collect()  # asyncio reports a lost error when its future is deleted
