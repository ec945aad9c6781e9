"""The bus suite: acknowledging, releasing and rejecting messages, and receiving without a group."""

from collections.abc import Iterable

import anyio
import pytest

from flowkit.errors import BusError
from flowkit.protocols import Bus, Delivery, Message, Subscription
from flowkit_testing.conformance._bus_base import (
    BusSuite,
    CountKept,
    contents,
    message,
    messages,
    needed,
    spread,
    sweep,
    values,
)


class Acknowledging(BusSuite):
    """Answers to deliveries, and their effects."""

    async def test_acknowledged_messages_do_not_come_again(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = spread(topic, 10)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as first:
            await self.take(first, values(sent), ack=True)
        await bus.publish([message(topic, "new")])
        async with bus.subscribe([topic], group=group) as second:
            got = await self.take(second, [b"new"]) + await self.rest(second)
        assert contents(got) == [b"new"]

    async def test_unacknowledged_messages_are_not_given_twice_to_a_member(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = spread(topic, 10)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent)) + await self.rest(subscription)
        assert sorted(contents(got)) == sorted(values(sent))

    async def test_acknowledging_a_later_message_does_not_acknowledge_an_earlier_one(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, 5)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as first:
            got = await self.take(first, values(sent))
            await first.ack([got[4], got[2]])
            await first.ack([got[0]])
        async with bus.subscribe([topic], group=group) as second:
            again = await self.take(second, [b"m1", b"m3"])
        assert b"m0" not in contents(again)

    async def test_a_gap_that_is_closed_later_is_closed(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, 5)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as first:
            got = await self.take(first, values(sent))
            for delivery in reversed(got):
                await first.ack([delivery])
        await bus.publish([message(topic, "new")])
        async with bus.subscribe([topic], group=group) as second:
            assert contents(await self.take(second, [b"new"])) == [b"new"]

    async def test_acknowledging_twice_does_nothing(self, bus: Bus, topic: str, group: str) -> None:
        sent = messages(topic, 3)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as first:
            got = await self.take(first, values(sent))
            await first.ack([got[0], got[0]])
            await first.ack([got[0]])
        async with bus.subscribe([topic], group=group) as second:
            assert sorted(contents(await self.take(second, [b"m1", b"m2"]))) == [b"m1", b"m2"]

    async def test_acknowledging_nothing_is_allowed(self, bus: Bus, topic: str, group: str) -> None:
        async with bus.subscribe([topic], group=group) as subscription:
            await subscription.ack([])
            await subscription.release([])
            await subscription.reject([], "nothing")

    @pytest.mark.parametrize("answer", ["ack", "release", "reject"])
    async def test_acknowledging_after_the_partition_moved_on_does_nothing(
        self, bus: Bus, topic: str, group: str, answer: str
    ) -> None:
        await bus.publish([message(topic, "moved")])
        async with bus.subscribe([topic], group=group) as first:
            stale = await self.take(first, [b"moved"])
        async with bus.subscribe([topic], group=group) as second:
            await self.take(second, [b"moved"])
            match answer:
                case "ack":
                    await first.ack(stale)
                case "release":
                    await first.release(stale)
                case _:
                    await first.reject(stale, "bad")
            await bus.publish([message(topic, "new")])
            assert contents(await self.take(second, [b"new"]) + await self.rest(second)) == [b"new"]
        async with bus.subscribe([topic], group=group) as third:
            await self.take(third, [b"moved"])

    async def test_acknowledging_twice_makes_room_once(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish(messages(topic, 8))
        async with bus.subscribe([topic], group=group, max_unacked=3) as subscription:
            got = await self.take(subscription, [b"m0", b"m1", b"m2"])
            await subscription.ack([got[0], got[0]])
            await subscription.ack([got[0]])
            assert contents(
                await self.take(subscription, [b"m3"]) + await self.rest(subscription)
            ) == [b"m3"]

    async def test_releasing_what_was_acknowledged_does_nothing(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "done")])
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, [b"done"], ack=True)
            await subscription.release(got)
            await bus.publish([message(topic, "new")])
            assert contents(
                await self.take(subscription, [b"new"]) + await self.rest(subscription)
            ) == [b"new"]

    async def test_another_task_may_acknowledge(self, bus: Bus, topic: str, group: str) -> None:
        await bus.publish([message(topic, "handed over")])
        async with bus.subscribe([topic], group=group) as first:
            got = await self.take(first, [b"handed over"])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(first.ack, got)
        await bus.publish([message(topic, "new")])
        async with bus.subscribe([topic], group=group) as second:
            assert contents(await self.take(second, [b"new"])) == [b"new"]

    async def test_acknowledging_while_a_receive_waits_is_allowed(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "one")])
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, [b"one"])
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.take, subscription, [b"two"])
                await subscription.ack(got)
                await bus.publish([message(topic, "two")])

    async def test_released_messages_come_again(self, bus: Bus, topic: str, group: str) -> None:
        sent = [
            Message(topic, b"m%d" % number, "k", {"number": b"%d" % number}) for number in range(3)
        ]
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
            await subscription.release(got)
            again = await self.take(subscription, values(sent))
            await subscription.ack(again)
        assert whole(again) == whole(got)

    async def test_what_comes_again_to_another_member_is_the_same_message(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = [
            Message(topic, b"m%d" % number, "k", {"number": b"%d" % number}) for number in range(3)
        ]
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as first:
            got = await self.take(first, values(sent))
        async with bus.subscribe([topic], group=group) as second:
            assert whole(await self.take(second, values(sent))) == whole(got)

    async def test_only_what_was_released_comes_again(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, 4)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
            await subscription.ack([got[0]])
            await subscription.release([got[1]])
            again = await self.take(subscription, [b"m1"])
        assert b"m0" not in contents(again)

    async def test_what_was_released_before_leaving_comes_to_the_next_member(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "handed back")])
        async with bus.subscribe([topic], group=group) as first:
            await first.release(await self.take(first, [b"handed back"]))
        async with bus.subscribe([topic], group=group) as second:
            await self.take(second, [b"handed back"])


def whole(deliveries: Iterable[Delivery]) -> list[tuple[object, ...]]:
    """Return the visible fields of deliveries, sorted by place."""
    parts = [(item.partition, item.position, item.message) for item in deliveries]
    return sorted(
        (*place, sent.topic, sent.value, sent.key, sorted(sent.headers.items()))
        for *place, sent in parts
    )


class Rejecting(BusSuite):
    """Rejected messages."""

    @pytest.mark.parametrize("reason", ["bad", "nicht lesbar: ✗"])
    async def test_a_rejected_message_is_parked_with_its_origin_and_the_reason(
        self, bus: Bus, topic: str, group: str, unique: str, reason: str
    ) -> None:
        value = f"poison {unique}".encode()
        await bus.publish([Message(topic, value, f"key-{unique}", {"own": b"header"})])
        async with bus.subscribe([topic], group=group) as subscription:
            (delivery,) = await self.take(subscription, [value])
            await subscription.reject([delivery], reason)
        async with bus.subscribe([self.dead_letter_topic], group=f"{group}-dead") as letters:
            got = await self.take(letters, [value])
        (letter,) = (item.message for item in got if item.message.value == value)
        assert letter.key == f"key-{unique}"
        assert letter.headers["flowkit-reason"].decode() == reason
        assert letter.headers["flowkit-topic"].decode() == topic
        assert int(letter.headers["flowkit-partition"]) == delivery.partition
        assert int(letter.headers["flowkit-position"]) == delivery.position

    async def test_a_rejected_message_does_not_come_again(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "poison")])
        async with bus.subscribe([topic], group=group) as first:
            await first.reject(await self.take(first, [b"poison"]), "bad")
        await bus.publish([message(topic, "good")])
        async with bus.subscribe([topic], group=group) as second:
            assert contents(await self.take(second, [b"good"])) == [b"good"]

    async def test_each_of_several_rejected_messages_is_parked(
        self, bus: Bus, topic: str, group: str, unique: str
    ) -> None:
        sent = spread(topic, 5, prefix=f"{unique}-")
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as subscription:
            await subscription.reject(await self.take(subscription, values(sent)), "bad")
        async with bus.subscribe([self.dead_letter_topic], group=f"{group}-dead") as letters:
            await self.take(letters, values(sent))

    async def test_the_partition_goes_on_behind_a_rejected_message(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "poison"), message(topic, "good")])
        async with bus.subscribe([topic], group=group, max_unacked=1) as subscription:
            await subscription.reject(await self.take(subscription, [b"poison"]), "bad")
            await self.take(subscription, [b"good"])

    async def test_a_dead_letter_that_cannot_be_stored_leaves_its_message(
        self, bus: Bus, bus_without_dead_letters: Bus | None, topic: str, group: str
    ) -> None:
        broken = needed(bus_without_dead_letters, "bus_without_dead_letters")
        await bus.publish([message(topic, "poison")])
        async with broken.subscribe([topic], group=group) as first:
            got = await self.take(first, [b"poison"])
            with pytest.raises(BusError):
                await first.reject(got, "bad")
        async with bus.subscribe([topic], group=group) as second:
            await self.take(second, [b"poison"])

    async def test_a_cancelled_reject_loses_no_message(
        self, bus: Bus, topic: str, group: str, unique: str
    ) -> None:
        sent = spread(topic, 20, prefix=f"{unique}-")
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as first:
            got = await self.take(first, values(sent))
            began = anyio.current_time()
            await first.reject(got[:1], "bad")
            took = anyio.current_time() - began

            async def attempt(number: int, seconds: float) -> None:
                with anyio.move_on_after(seconds):
                    await first.reject(got[number + 1 : number + 2], "bad")

            await sweep(2 * took, len(got) - 1, attempt)
        async with (
            bus.subscribe([topic], group=group) as second,
            bus.subscribe([self.dead_letter_topic], group=f"{group}-dead") as letters,
        ):
            missing = set(values(sent))

            async def collect(subscription: Subscription) -> None:
                while missing:
                    missing.difference_update(
                        contents(await subscription.receive(max_messages=100))
                    )
                tasks.cancel_scope.cancel()

            with anyio.move_on_after(self.patience):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(collect, second)
                    tasks.start_soon(collect, letters)
        assert not missing, (
            f"neither delivered again nor in the dead-letter topic: {sorted(missing)}"
        )


class Broadcasting(BusSuite):
    """Subscriptions without a group."""

    async def test_every_listener_gets_every_message(self, bus: Bus, broadcast: str) -> None:
        sent = spread(broadcast, 10)
        async with (
            bus.subscribe([broadcast], group=None) as first,
            bus.subscribe([broadcast], group=None) as second,
        ):
            await bus.publish(sent)
            await self.take(first, values(sent))
            await self.take(second, values(sent))

    async def test_a_listener_gets_what_is_published_right_after_it_was_entered(
        self, bus: Bus, broadcast: str
    ) -> None:
        for number in range(3):
            async with bus.subscribe([broadcast], group=None) as subscription:
                await bus.publish([message(broadcast, f"now{number}")])
                await self.take(subscription, [b"now%d" % number])

    async def test_a_listener_does_not_get_what_was_published_before(
        self, bus: Bus, broadcast: str
    ) -> None:
        await bus.publish(spread(broadcast, 10, "before"))
        async with bus.subscribe([broadcast], group=None) as subscription:
            await bus.publish([message(broadcast, "after")])
            got = await self.take(subscription, [b"after"]) + await self.rest(subscription)
        assert contents(got) == [b"after"]

    async def test_nothing_is_kept_for_a_listener_that_left(self, bus: Bus, broadcast: str) -> None:
        async with bus.subscribe([broadcast], group=None) as first:
            await bus.publish([message(broadcast, "seen")])
            await self.take(first, [b"seen"])
        await bus.publish([message(broadcast, "missed")])
        async with bus.subscribe([broadcast], group=None) as second:
            await bus.publish([message(broadcast, "after")])
            got = await self.take(second, [b"after"]) + await self.rest(second)
        assert contents(got) == [b"after"]

    async def test_a_listener_gets_the_messages_of_a_key_in_order(
        self, bus: Bus, broadcast: str
    ) -> None:
        sent = messages(broadcast, 30)
        async with bus.subscribe([broadcast], group=None) as subscription:
            await bus.publish(sent)
            assert contents(await self.take(subscription, values(sent))) == values(sent)

    async def test_a_listener_has_nothing_to_acknowledge(self, bus: Bus, broadcast: str) -> None:
        sent = spread(broadcast, 10)
        async with bus.subscribe([broadcast], group=None, max_unacked=2) as subscription:
            await bus.publish(sent)
            got = await self.take(subscription, values(sent))
            await subscription.ack(got)
            assert await self.rest(subscription) == []

    async def test_a_listener_does_not_take_messages_from_a_group(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        async with bus.subscribe([topic], group=None) as listener:
            await bus.publish([message(topic, "for both")])
            await self.take(listener, [b"for both"])
            async with bus.subscribe([topic], group=group) as subscription:
                await self.take(subscription, [b"for both"])

    async def test_the_server_keeps_a_bounded_number_of_broadcast_messages(
        self, bus: Bus, broadcast: str, count_kept: CountKept | None
    ) -> None:
        count = needed(count_kept, "count_kept")
        async with bus.subscribe([broadcast], group=None) as subscription:
            for start in range(0, self.many, 100):
                sent = messages(broadcast, 100, prefix=f"{start}-")
                await bus.publish(sent)
                await self.take(subscription, values(sent))
        await anyio.sleep(self.quiet_sec)
        assert await count(broadcast) < self.many
