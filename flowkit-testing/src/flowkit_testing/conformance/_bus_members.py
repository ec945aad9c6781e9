"""The bus suite: members that die, hang or do not receive."""

from collections.abc import Sequence

import anyio
import pytest

from flowkit.protocols import Bus, Delivery, Message, Subscription
from flowkit_testing.conformance._bus_base import (
    BusSuite,
    CountTaken,
    KillMember,
    PauseMember,
    contents,
    message,
    messages,
    needed,
    spread,
    values,
)


class Members(BusSuite):
    """Messages of members that die, hang or do not receive."""

    async def test_what_a_killed_member_had_comes_to_another(
        self, bus: Bus, topic: str, group: str, kill_member: KillMember | None
    ) -> None:
        kill = needed(kill_member, "kill_member")
        sent = spread(topic, 40)
        await bus.publish(sent)
        taken = await kill(topic, group, 3)
        assert len(taken) == 3
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, values(sent))

    async def test_a_member_that_was_suspended_does_not_acknowledge_for_another(
        self, bus: Bus, topic: str, group: str, pause_member: PauseMember | None
    ) -> None:
        pause = needed(pause_member, "pause_member")
        sent = messages(topic, 3)
        await bus.publish(sent)
        async with pause(topic, group, 3) as paused:
            assert sorted(paused.values) == values(sent)
            async with bus.subscribe([topic], group=group) as second:
                await self.take(second, values(sent))
                await paused.acknowledge()
        async with bus.subscribe([topic], group=group) as third:
            await self.take(third, values(sent))

    async def test_a_live_member_keeps_what_it_has_not_acknowledged(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        if self.silence_sec is None:
            pytest.skip("needs the attribute silence_sec")
        stolen: list[bytes] = []

        async def receive(member: Subscription) -> None:
            while True:
                batch = await member.receive(max_messages=100)
                stolen.extend(set(contents(batch)) & set(contents(held)))
                await member.ack(batch)

        async with (
            bus.subscribe([topic], group=group) as slow,
            bus.subscribe([topic], group=group) as quick,
        ):
            await self.settled(bus, topic, [slow, quick])
            await bus.publish(spread(topic, 40, "held-"))
            with anyio.fail_after(self.patience):
                held = await slow.receive(max_messages=5)
            with anyio.move_on_after(2 * self.silence_sec):
                await receive(quick)
            await slow.ack(held)
        assert stolen == []


class Keeping(BusSuite):
    """Messages that are kept for other members and other groups."""

    async def test_messages_that_an_idle_member_does_not_receive_go_to_others(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        if bus.key_affinity:
            pytest.skip("with key affinity, an idle member keeps the messages of its keys")
        sent = spread(topic, 200)
        async with bus.subscribe([topic], group=group, max_unacked=5) as idle:
            await bus.publish(sent)
            with anyio.fail_after(self.patience):
                held = await idle.receive(max_messages=1)
            async with bus.subscribe([topic], group=group) as busy:
                await self.take(busy, set(values(sent)) - set(contents(held)), ack=True)

    async def test_a_member_takes_a_bounded_number_of_messages_ahead(
        self, bus: Bus, topic: str, group: str, count_taken: CountTaken | None
    ) -> None:
        count = needed(count_taken, "count_taken")
        async with bus.subscribe([topic], group=group, max_unacked=5) as idle:
            await bus.publish(spread(topic, self.prefetch + 200))
            with anyio.fail_after(self.patience):
                await idle.receive(max_messages=1)
            await anyio.sleep(self.quiet_sec)
            assert await count(topic, group) <= 5 + self.prefetch

    async def test_no_number_of_messages_removes_one_that_is_not_acknowledged(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = [message(topic, "pending"), *messages(topic, self.many)]
        async with bus.subscribe([topic], group=group, max_unacked=self.many) as first:
            await bus.publish(sent)
            pending = await self.held_back(first, b"pending", sent)
        async with bus.subscribe([topic], group=group) as second:
            await self.take(second, contents(pending))

    async def test_acknowledgements_remove_no_message_that_another_group_has_not_acknowledged(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, self.many)
        async with bus.subscribe([topic], group=f"{group}-b"):
            pass
        async with bus.subscribe([topic], group=f"{group}-a") as first:
            await bus.publish(sent)
            await self.take(first, values(sent), ack=True)
        async with bus.subscribe([topic], group=f"{group}-b") as second:
            await self.take(second, values(sent), ack=True)

    async def held_back(
        self, subscription: Subscription, value: bytes, sent: Sequence[Message]
    ) -> list[Delivery]:
        """Receive all messages, and acknowledge all but those with one value.

        Return the deliveries that are not acknowledged.
        """
        missing, kept = set(values(sent)), list[Delivery]()
        with anyio.fail_after(self.patience):
            while missing:
                batch = await subscription.receive(max_messages=500)
                missing.difference_update(contents(batch))
                kept += [delivery for delivery in batch if delivery.message.value == value]
                await subscription.ack(
                    [delivery for delivery in batch if delivery.message.value != value]
                )
        return kept
