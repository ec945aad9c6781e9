"""The bus suite: receiving, and the window of unacknowledged messages."""

import anyio
import pytest

from flowkit.protocols import Bus, Delivery, Subscription
from flowkit_testing.conformance._bus_base import (
    BusSuite,
    contents,
    message,
    messages,
    needs_key_affinity,
    spread,
    sweep,
    values,
)


class Receiving(BusSuite):
    """Receipt of messages."""

    @pytest.mark.parametrize("limit", [1, 3])
    async def test_no_more_messages_come_than_were_asked_for(
        self, bus: Bus, topic: str, group: str, limit: int
    ) -> None:
        sent = spread(topic, 10)
        await bus.publish(sent)
        missing = set(values(sent))
        async with bus.subscribe([topic], group=group) as subscription:
            with anyio.fail_after(self.patience):
                while missing:
                    batch = await subscription.receive(max_messages=limit)
                    assert 1 <= len(batch) <= limit
                    missing -= set(contents(batch))

    async def test_receive_waits_while_there_is_no_message(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        async with bus.subscribe([topic], group=group) as subscription:
            with anyio.move_on_after(self.quiet_sec) as scope:
                await subscription.receive(max_messages=1)
            assert scope.cancelled_caught, "receive came back without a message"

    async def test_receive_returns_when_there_is_a_message(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        async with (
            bus.subscribe([topic], group=group) as subscription,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(self.take, subscription, [b"late"])
            await anyio.sleep(self.quiet_sec)
            await bus.publish([message(topic, "late")])

    @pytest.mark.parametrize("grouped", [True, False], ids=["member", "listener"])
    async def test_cancelling_a_receive_loses_no_message(
        self, bus: Bus, topic: str, group: str, grouped: bool
    ) -> None:
        sent = messages(topic, 60)
        got: list[Delivery] = []
        async with bus.subscribe([topic], group=group if grouped else None) as subscription:
            took = await self.time_of_a_message(bus, subscription, topic)

            async def attempt(number: int, seconds: float) -> None:
                # Each round cancels a little later, while the message is on its way.
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(bus.publish, sent[number : number + 1])
                    with anyio.move_on_after(seconds):
                        got.extend(await subscription.receive(max_messages=1))

            await sweep(2 * took, len(sent), attempt)
            got += await self.take(subscription, set(values(sent)) - set(contents(got)))
        assert sorted(set(contents(got))) == sorted(values(sent))

    async def time_of_a_message(self, bus: Bus, subscription: Subscription, topic: str) -> float:
        """Latency of a message over open connections."""
        took = []
        for name in ("first", "second", "third", "fourth"):
            began = anyio.current_time()
            await bus.publish([message(topic, name)])
            await subscription.ack(await self.take(subscription, [name.encode()]))
            took.append(anyio.current_time() - began)
        return min(took)

    async def test_a_subscription_hears_all_its_topics(
        self, bus: Bus, topic: str, second_topic: str, group: str
    ) -> None:
        async with bus.subscribe([topic, second_topic], group=group) as subscription:
            await bus.publish([message(topic, "one")])
            await bus.publish([message(second_topic, "two")])
            await self.take(subscription, [b"one", b"two"])

    async def test_a_subscription_hears_only_its_topics(
        self, bus: Bus, topic: str, second_topic: str, group: str
    ) -> None:
        await bus.publish([message(second_topic, "foreign"), message(topic, "own")])
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, [b"own"]) + await self.rest(subscription)
        assert contents(got) == [b"own"]

    async def test_messages_of_a_key_come_from_one_partition_with_growing_positions(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        needs_key_affinity(bus)
        sent = messages(topic, 10)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
        positions = [delivery.position for delivery in got]
        assert len({delivery.partition for delivery in got}) == 1
        assert positions == sorted(set(positions))

    async def test_within_a_partition_messages_come_in_order(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = spread(topic, 100)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
        for partition in {delivery.partition for delivery in got}:
            positions = [delivery.position for delivery in got if delivery.partition == partition]
            assert positions == sorted(set(positions))
            assert 0 <= partition < 2**63
            assert all(0 <= position < 2**63 for position in positions)

    async def test_no_more_than_the_window_is_given_unacknowledged(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish(spread(topic, 20))
        async with bus.subscribe([topic], group=group, max_unacked=5) as subscription:
            got = await self.fill(subscription, 5)
            assert len(got) == 5

    @pytest.mark.parametrize("answer", ["ack", "release", "reject"])
    async def test_answering_makes_room_in_the_window(
        self, bus: Bus, topic: str, group: str, answer: str
    ) -> None:
        sent = spread(topic, 12)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group, max_unacked=4) as subscription:
            first = await self.fill(subscription, 4)
            match answer:
                case "ack":
                    await subscription.ack(first[:2])
                case "release":
                    await subscription.release(first[:2])
                case _:
                    await subscription.reject(first[:2], "no")
            more = await self.fill(subscription, 2)
            assert len(first) + len(more) == 6

    @pytest.mark.parametrize("answer", ["ack", "release"])
    async def test_a_receive_that_waits_for_room_goes_on_when_there_is_some(
        self, bus: Bus, topic: str, group: str, answer: str
    ) -> None:
        await bus.publish(messages(topic, 4))
        async with bus.subscribe([topic], group=group, max_unacked=2) as subscription:
            first = await self.fill(subscription, 2)
            more: list[Delivery] = []

            async def receive() -> None:
                more.extend(await subscription.receive(max_messages=1))

            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(receive)
                    await anyio.sleep(self.quiet_sec)
                    assert more == []
                    await (
                        subscription.ack(first) if answer == "ack" else subscription.release(first)
                    )
            assert len(more) == 1

    async def test_a_window_that_empties_again_and_again_lets_everything_through(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = spread(topic, 60)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group, max_unacked=3) as subscription:
            got = await self.take(subscription, values(sent), ack=True)
        assert sorted(contents(got)) == sorted(values(sent))

    async def fill(self, subscription: Subscription, count: int) -> list[Delivery]:
        """Receive ``count`` messages, and any others that arrive within ``quiet_sec``."""
        got: list[Delivery] = []
        with anyio.fail_after(self.patience):
            while len(got) < count:
                got += await subscription.receive(max_messages=100)
        return got + await self.rest(subscription)
