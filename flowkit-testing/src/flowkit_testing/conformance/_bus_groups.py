"""The bus suite: distribution of messages within a group."""

import anyio
import pytest

from flowkit.protocols import Bus, Delivery, Subscription
from flowkit_testing.conformance._bus_base import (
    WAVE,
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


class Groups(BusSuite):
    """Distribution of messages to groups and their members."""

    async def test_a_new_group_starts_with_the_oldest_message_kept(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        expected = [b"old", b"new"] if bus.replay_for_new_groups else [b"new"]
        await bus.publish([message(topic, "old")])
        async with bus.subscribe([topic], group=f"{group}-new") as subscription:
            await bus.publish([message(topic, "new")])
            assert sorted(contents(await self.take(subscription, expected))) == sorted(expected)

    async def test_a_group_that_is_new_to_a_topic_starts_with_the_oldest_message_kept(
        self, bus: Bus, topic: str, second_topic: str, group: str
    ) -> None:
        if not bus.replay_for_new_groups:
            pytest.skip("this bus has no replay for new groups")
        await bus.publish([message(topic, "old"), message(second_topic, "other")])
        async with bus.subscribe([second_topic], group=f"{group}-new") as first:
            await self.take(first, [b"other"], ack=True)
            async with bus.subscribe([topic], group=f"{group}-new") as second:
                await self.take(second, [b"old"])

    async def test_the_names_of_groups_are_compared_exactly(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await self._check_both_get_all(bus, topic, f"{group}-a", f"{group}-A")

    async def test_every_group_gets_every_message(self, bus: Bus, topic: str, group: str) -> None:
        await self._check_both_get_all(bus, topic, f"{group}-a", f"{group}-b")

    async def _check_both_get_all(self, bus: Bus, topic: str, group: str, other_group: str) -> None:
        sent = spread(topic, 20)
        async with (
            bus.subscribe([topic], group=group) as first,
            bus.subscribe([topic], group=other_group) as second,
        ):
            await bus.publish(sent)
            await self.take(first, values(sent), ack=True)
            await self.take(second, values(sent), ack=True)

    async def test_an_acknowledgement_counts_for_its_group_only(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        async with bus.subscribe([topic], group=f"{group}-b"):
            await bus.publish([message(topic, "both")])
            async with bus.subscribe([topic], group=f"{group}-a") as first:
                await self.take(first, [b"both"], ack=True)
        async with bus.subscribe([topic], group=f"{group}-b") as second:
            await self.take(second, [b"both"])

    async def test_the_members_of_a_group_share_the_messages(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        async with (
            bus.subscribe([topic], group=group) as first,
            bus.subscribe([topic], group=group) as second,
        ):
            shares = await self.settled(bus, topic, [first, second])
            for member, others in ((first, shares[1]), (second, shares[0])):
                late: list[Delivery] = []
                while batch := await self.rest(member):
                    await member.ack(batch)
                    late += batch
                assert set(contents(late)).isdisjoint(others), (
                    "a message was delivered to two members of one group"
                )
        print(f"Of {WAVE} messages, the members received {len(shares[0])} and {len(shares[1])}.")  # noqa: T201

    async def test_the_messages_of_a_key_go_to_one_member(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        needs_key_affinity(bus)
        async with (
            bus.subscribe([topic], group=group) as first,
            bus.subscribe([topic], group=group) as second,
        ):
            await self.settled(bus, topic, [first, second])
            shares = await self.share(bus, topic, "one-key-", [first, second], key="k")
        assert sorted(map(len, shares)) == [0, WAVE]

    async def test_what_a_leaving_member_had_not_acknowledged_comes_to_another(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = spread(topic, 20)
        async with bus.subscribe([topic], group=group) as staying:
            async with bus.subscribe([topic], group=group) as leaving:
                await bus.publish(sent)
                kept: list[Delivery] = []
                with anyio.move_on_after(self.quiet_sec):
                    await leaving.receive(max_messages=100)
                with anyio.move_on_after(self.quiet_sec):
                    kept += await staying.receive(max_messages=1)
            await self.take(staying, set(values(sent)) - set(contents(kept)))

    async def test_unacknowledged_messages_wait_for_the_next_member(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, 5)
        await bus.publish(sent)
        async with bus.subscribe([topic], group=group) as first:
            await self.take(first, values(sent))
        async with bus.subscribe([topic], group=group) as second:
            assert sorted(contents(await self.take(second, values(sent)))) == values(sent)

    async def test_a_member_whose_task_is_cancelled_gives_back_what_it_had(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, 5)
        await bus.publish(sent)
        taken = anyio.Event()

        async def crash() -> None:
            async with bus.subscribe([topic], group=group) as subscription:
                await self.take(subscription, values(sent))
                taken.set()
                await anyio.sleep_forever()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(crash)
            await taken.wait()
            tasks.cancel_scope.cancel()
        async with bus.subscribe([topic], group=group) as second:
            await self.take(second, values(sent))

    async def test_a_connection_that_closes_gives_its_messages_back(
        self, bus: Bus, open_bus: OpenBus | None, topic: str, group: str
    ) -> None:
        sent = messages(topic, 5)
        await bus.publish(sent)
        async with open_another(open_bus) as other, other.subscribe([topic], group=group) as first:
            await self.take(first, values(sent))
        async with bus.subscribe([topic], group=group) as second:
            await self.take(second, values(sent))

    async def test_messages_published_while_no_member_listens_are_kept_for_the_group(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        await bus.publish([message(topic, "before")])
        async with bus.subscribe([topic], group=group) as first:
            await self.take(first, [b"before"], ack=True)
        await bus.publish([message(topic, "meanwhile")])
        async with bus.subscribe([topic], group=group) as second:
            await self.take(second, [b"meanwhile"])

    @pytest.mark.parametrize("wanted", ["first", "second"])
    async def test_members_may_listen_to_different_topics(
        self, bus: Bus, topic: str, second_topic: str, group: str, wanted: str
    ) -> None:
        async with (
            bus.subscribe([topic], group=group) as first,
            bus.subscribe([second_topic], group=group) as second,
        ):
            await bus.publish([message(topic, "first"), message(second_topic, "second")])
            member = first if wanted == "first" else second
            got = await self.take(member, [wanted.encode()])
        assert set(contents(got)) == {wanted.encode()}

    async def test_a_member_may_listen_to_more_topics_than_another(
        self, bus: Bus, topic: str, second_topic: str, group: str
    ) -> None:
        async with (
            bus.subscribe([topic, second_topic], group=group) as wide,
            bus.subscribe([topic], group=group) as narrow,
        ):
            await bus.publish([*spread(topic, 20, "one-"), *spread(second_topic, 20, "two-")])
            got: list[bytes] = []

            async def collect(member: Subscription) -> None:
                while len(set(got)) < 40:
                    batch = await member.receive(max_messages=100)
                    await member.ack(batch)
                    got.extend(contents(batch))
                    assert member is wide or not any(
                        value.startswith(b"two-") for value in contents(batch)
                    )
                tasks.cancel_scope.cancel()

            with anyio.fail_after(self.patience):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(collect, wide)
                    tasks.start_soon(collect, narrow)

    async def test_nothing_is_lost_while_members_come_and_go(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = spread(topic, 60)
        missing = set(values(sent))

        async def visit() -> None:
            while missing:
                async with bus.subscribe([topic], group=group) as member:
                    for _ in range(3):
                        with anyio.move_on_after(self.quiet_sec):
                            batch = await member.receive(max_messages=4)
                            await member.ack(batch[:3])
                            missing.difference_update(contents(batch[:3]))

        with anyio.fail_after(self.patience * 2):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(visit)
                for item in sent:
                    await bus.publish([item])
