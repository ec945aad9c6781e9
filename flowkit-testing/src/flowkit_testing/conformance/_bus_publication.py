"""The bus suite: connecting, topics, publishing."""

import anyio
import pytest

from flowkit.errors import BusError, MessageTooLarge
from flowkit.protocols import Bus, Message, TopicSpec
from flowkit_testing.conformance._bus_base import (
    BusSuite,
    OpenBus,
    contents,
    message,
    messages,
    needs_key_affinity,
    open_another,
    spread,
    values,
)
from flowkit_testing.conformance._common import assert_well_formed


class Publishing(BusSuite):
    """Published messages are received unchanged."""

    async def test_entering_gives_the_bus_itself(self, open_bus: OpenBus | None) -> None:
        another = open_another(open_bus)
        async with another as entered:
            assert entered is another

    async def test_leaving_sends_what_is_buffered(
        self, bus: Bus, open_bus: OpenBus | None, topic: str, group: str
    ) -> None:
        sent = messages(topic, 20)
        async with open_another(open_bus) as other:
            await other.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, values(sent))

    async def test_what_was_published_outlives_the_connection(
        self, open_bus: OpenBus | None, topic: str, group: str
    ) -> None:
        async with open_another(open_bus) as first:
            await first.publish([message(topic, "kept")])
        async with (
            open_another(open_bus) as second,
            second.subscribe([topic], group=group) as subscription,
        ):
            await self.take(subscription, [b"kept"])

    async def test_two_connections_meet(
        self, bus: Bus, open_bus: OpenBus | None, topic: str, group: str
    ) -> None:
        async with (
            open_another(open_bus) as other,
            other.subscribe([topic], group=group) as subscription,
        ):
            await bus.publish([message(topic, "hello")])
            await self.take(subscription, [b"hello"])

    async def test_ensuring_topics_twice_changes_nothing(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "kept")])
        await bus.ensure_topics([TopicSpec(topic), TopicSpec(topic)])
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, [b"kept"])

    async def test_ensuring_no_topics_is_allowed(self, bus: Bus) -> None:
        await bus.ensure_topics([])

    async def test_a_topic_that_may_not_be_created_is_an_error_that_names_it(
        self, closed_bus: Bus | None, unique: str
    ) -> None:
        if closed_bus is None:
            pytest.skip("needs the fixture closed_bus")
        with pytest.raises(BusError, match=unique):
            await closed_bus.ensure_topics([TopicSpec(f"conformance.{unique}.forbidden")])

    async def test_publishing_nothing_is_allowed(self, bus: Bus) -> None:
        await bus.publish([])

    @pytest.mark.parametrize(
        "value",
        [
            b"",
            b"{}",
            b"\x00\xff\xfe",
            "grün ✓".encode(),
            b' {"b": 1.0, "a": "\\u00e9"}\r\n',
            b"\x00 \r\n \x00",
            b"x" * 100_000,
        ],
        ids=lambda value: f"{len(value)}-bytes",
    )
    async def test_a_value_arrives_as_it_was_sent(
        self, bus: Bus, topic: str, group: str, value: bytes
    ) -> None:
        await bus.publish([Message(topic, value, "k")])
        async with bus.subscribe([topic], group=group) as subscription:
            (delivery,) = await self.take(subscription, [value])
        assert delivery.message.value == value
        assert type(delivery.message.value) is bytes

    @pytest.mark.parametrize(
        "key", ["", "plain", "with space/and.dot", "ключ-✓", " MiXeD e\u0301 ", "k" * 200]
    )
    async def test_a_key_arrives_as_it_was_sent(
        self, bus: Bus, topic: str, group: str, key: str
    ) -> None:
        await bus.publish([Message(topic, b"v", key)])
        async with bus.subscribe([topic], group=group) as subscription:
            (delivery,) = await self.take(subscription, [b"v"])
        assert delivery.message.key == key
        assert delivery.message.topic == topic

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"one": b"1"},
            {"a": b"", "b": b"\x00\xff", "trace-id": b"x" * 100},
            {"Trace-Id": b" 1 ", "trace-id": b"2"},
        ],
        ids=["none", "one", "many", "case"],
    )
    async def test_headers_arrive_as_they_were_sent(
        self, bus: Bus, topic: str, group: str, headers: dict[str, bytes]
    ) -> None:
        await bus.publish([Message(topic, b"v", "k", headers)])
        async with bus.subscribe([topic], group=group) as subscription:
            (delivery,) = await self.take(subscription, [b"v"])
        assert dict(delivery.message.headers) == headers

    async def test_what_the_publisher_changes_afterwards_is_not_seen(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        headers = {"h": b"before"}
        await bus.publish([Message(topic, b"v", "k", headers)])
        headers["h"] = b"after"
        async with bus.subscribe([topic], group=group) as subscription:
            (delivery,) = await self.take(subscription, [b"v"])
        assert dict(delivery.message.headers) == {"h": b"before"}

    async def test_a_value_of_the_limit_is_taken(self, bus: Bus, topic: str, group: str) -> None:
        largest = b"x" * bus.max_message_bytes
        await bus.publish([Message(topic, largest, "k")])
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, [largest])

    async def test_a_value_above_the_limit_is_refused_and_nothing_is_sent(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        too_large = Message(topic, b"x" * (bus.max_message_bytes + 1), "k")
        with pytest.raises(MessageTooLarge):
            await bus.publish([message(topic, "before"), too_large, message(topic, "behind")])
        await bus.publish([message(topic, "later")])
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, [b"later"])
        assert contents(got) == [b"later"]

    async def test_messages_of_a_key_keep_their_order_within_a_call(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        needs_key_affinity(bus)
        sent = messages(topic, 50)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            assert contents(await self.take(subscription, values(sent))) == values(sent)

    async def test_messages_of_a_key_keep_their_order_over_several_calls(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        needs_key_affinity(bus)
        sent = messages(topic, 20)
        for item in sent:
            await bus.publish([item])
        async with bus.subscribe([topic], group=group) as subscription:
            assert contents(await self.take(subscription, values(sent))) == values(sent)

    async def test_each_key_keeps_its_order_among_others(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        needs_key_affinity(bus)
        sent = [
            message(topic, f"{key}:{number}", key)
            for number in range(10)
            for key in ("a", "b", "c")
        ]
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
        for key in ("a", "b", "c"):
            assert contents(item for item in got if item.message.key == key) == [
                b"%s:%d" % (key.encode(), number) for number in range(10)
            ]

    async def test_one_call_may_publish_to_several_topics(
        self, bus: Bus, topic: str, second_topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "one"), message(second_topic, "two")])
        async with bus.subscribe([topic, second_topic], group=group) as subscription:
            got = await self.take(subscription, [b"one", b"two"])
        assert {item.message.topic: item.message.value for item in got} == {
            topic: b"one",
            second_topic: b"two",
        }

    async def test_messages_published_at_the_same_time_all_arrive(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        batches = [spread(topic, 10, prefix=f"task{number}-") for number in range(10)]
        async with anyio.create_task_group() as tasks:
            for batch in batches:
                tasks.start_soon(bus.publish, batch)
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, [value for batch in batches for value in values(batch)])

    async def test_equal_messages_all_arrive(self, bus: Bus, topic: str, group: str) -> None:
        equal = message(topic, "equal")
        await bus.publish([equal, equal])
        await bus.publish([equal])
        places: set[tuple[int, int]] = set()
        async with bus.subscribe([topic], group=group) as subscription:
            with anyio.fail_after(self.patience):
                while len(places) < 3:
                    places |= {
                        (item.partition, item.position)
                        for item in await subscription.receive(max_messages=100)
                    }

    async def test_the_names_of_topics_are_compared_exactly(
        self, bus: Bus, unique: str, group: str
    ) -> None:
        names = [f"conformance.{unique}.{ending}" for ending in ("role1", "Role1", "role01")]
        await bus.ensure_topics([TopicSpec(name) for name in names])
        for name in names:
            await self.found_groups(bus, name, [group])
        await bus.publish([message(name, name) for name in names])
        for name in names:
            async with bus.subscribe([name], group=group) as subscription:
                got = await self.take(subscription, [name.encode()], ack=True) + await self.rest(
                    subscription
                )
            assert [(item.message.topic, item.message.value) for item in got] == [
                (name, name.encode())
            ]

    async def test_check_answers_for_topics_that_exist(self, bus: Bus, topic: str) -> None:
        results = await bus.check([TopicSpec(topic)])
        assert_well_formed(results)
        assert all(result.ok for result in results), results

    async def test_check_raises_nothing_for_a_topic_that_does_not_exist(
        self, bus: Bus, unique: str
    ) -> None:
        assert_well_formed(await bus.check([TopicSpec(f"conformance.{unique}.missing")]))
