"""Messages of other programs: garbage, oversize and foreign forms, and their dead letters."""

from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from flowkit import CoordinatorConfig
from flowkit.errors import BusError, MessageTooLarge
from flowkit.protocols import Message, TopicSpec
from flowkit_kafka import KafkaBus
from tests.kafka.support import QUICK, bus_at, contents, nothing_comes, take, unique

pytestmark = pytest.mark.services

LARGE = {"max_message_bytes": 10_000, "topic_settings": {"max.message.bytes": "3000000"}}


@pytest.fixture
async def foreign(anyio_backend, kafka_address) -> AsyncIterator[AIOKafkaProducer]:
    """Yield a producer that does not use FlowKit."""
    async with AIOKafkaProducer(
        bootstrap_servers=kafka_address, max_request_size=3_000_000
    ) as producer:
        yield producer


def bus_with_letters(address: str, letters: str, **options: object) -> KafkaBus:
    return KafkaBus(
        address, CoordinatorConfig(topic_dlq_fmt=letters, options={"kafka": {**QUICK, **options}})
    )


async def test_garbage_is_delivered_as_it_is_and_the_partition_goes_on(kafka_address, foreign):
    topic = unique("garbage")
    async with bus_at(kafka_address) as bus, bus.subscribe([topic], group="g") as subscription:
        await bus.ensure_topics([TopicSpec(topic)])
        garbage = [b"\x00\xff\xfe", b"{", b"", b'{"kind": "nothing"}']
        for value in garbage:
            await foreign.send_and_wait(topic, value, partition=0)
        await foreign.send_and_wait(
            topic,
            None,
            key=b"\xff\xfe",
            partition=0,
            headers=[("a", None), ("a", b"2"), ("b", b"\xff")],
        )
        await foreign.send_and_wait(topic, b"behind", partition=0)
        came = await take(subscription, 6)
    assert contents(came) == [*garbage, b"", b"behind"]
    assert came[0].message.key == ""
    assert came[4].message.headers == {"a": b"2", "b": b"\xff"}


async def test_a_dead_letter_keeps_a_key_that_is_no_text(kafka_address, foreign):
    topic, letters = unique("keys"), unique("letters")
    async with bus_with_letters(kafka_address, letters) as bus:
        await bus.ensure_topics([TopicSpec(topic), TopicSpec(letters)])
        async with (
            bus.subscribe([topic], group="g") as subscription,
            bus.subscribe([letters], group="g") as parked,
        ):
            await foreign.send_and_wait(topic, b"value", key=b"\xff\xfe", headers=[("own", b"1")])
            given = await take(subscription, 1, ack=False)
            await subscription.reject(given, "not a message")
            (letter,) = await take(parked, 1)
    assert letter.message.value == b"value"
    assert letter.message.key == given[0].message.key
    assert letter.message.headers == {
        "own": b"1",
        "flowkit-reason": b"not a message",
        "flowkit-topic": topic.encode(),
        "flowkit-partition": str(given[0].partition).encode(),
        "flowkit-position": b"0",
    }


async def test_an_oversize_message_of_others_is_delivered_and_its_dead_letter_is_cut(
    kafka_address, foreign
):
    topic, letters = unique("oversize"), unique("letters")
    async with bus_with_letters(kafka_address, letters, **LARGE) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        async with bus.subscribe([topic], group="g") as subscription:
            await foreign.send_and_wait(topic, b"x" * 2_000_000, partition=0)
            await foreign.send_and_wait(topic, b"behind", partition=0)
            large, behind = await take(subscription, 2, ack=False)
            assert len(large.message.value) == 2_000_000
            await subscription.reject([large], "too large")
            await subscription.ack([behind])
            async with bus.subscribe([letters], group="g") as parked:
                (letter,) = await take(parked, 1)
    assert letter.message.value == b"x" * 10_000
    assert letter.message.headers["flowkit-truncated"] == b"2000000"


async def test_key_and_headers_have_a_limit_too_and_nothing_is_sent(kafka_address):
    topic = unique("headers")
    async with bus_at(kafka_address) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        for bad in (
            Message(topic, b"", "k" * 70_000),
            Message(topic, b"", "", {"h": b"v" * 70_000}),
        ):
            with pytest.raises(MessageTooLarge):
                await bus.publish([Message(topic, b"fits"), bad])
        async with bus.subscribe([topic], group="g") as subscription:
            assert await nothing_comes(subscription)


async def test_a_message_is_acknowledged_only_when_its_dead_letter_is_confirmed(kafka_address):
    topic, letters = unique("rejecting"), unique("letters")
    async with bus_at(kafka_address) as bus:
        await bus.ensure_topics([TopicSpec(topic)])
        await bus.publish([Message(topic, b"poison")])
    async with bus_with_letters(kafka_address, letters, create_topics=False) as bus:
        async with bus.subscribe([topic], group="g") as subscription:
            given = await take(subscription, 1, ack=False)
            with pytest.raises(BusError, match=letters):
                await subscription.reject(given, "poison")
        async with bus.subscribe([topic], group="g") as subscription:
            assert contents(await take(subscription, 1)) == [b"poison"]


async def test_a_compressed_batch_arrives(kafka_address):
    topic = unique("compressed")
    async with (
        bus_at(kafka_address, compression="gzip") as bus,
        bus.subscribe([topic], group="g") as subscription,
    ):
        await bus.ensure_topics([TopicSpec(topic)])
        await bus.publish([Message(topic, b"x" * 5_000)])
        assert contents(await take(subscription, 1)) == [b"x" * 5_000]


async def test_messages_that_fill_several_batches_keep_their_order_and_have_their_places(
    kafka_address,
):
    topic = unique("large")
    values = [bytes([number]) * size for number, size in enumerate([10, 200_000, 300_000, 10] * 2)]
    async with (
        bus_at(kafka_address) as bus,
        bus.subscribe([topic], group="g") as subscription,
    ):
        await bus.ensure_topics([TopicSpec(topic)])
        places = await bus.publish([Message(topic, value, "key") for value in values])
        got = await take(subscription, len(values))
    assert contents(got) == values
    assert [(each.partition, each.position) for each in got] == places
