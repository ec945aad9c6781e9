"""Properties of the in-memory bus beyond the protocol: memory, topics and several event loops."""

import asyncio
from collections import Counter

import anyio
import anyio.lowlevel
import pytest

from flowkit.errors import BusError
from flowkit.protocols import Message, TopicSpec
from flowkit_testing import InMemoryBus
from flowkit_testing._broker import Broker, Member, acknowledge, give_back


def spread(count: int) -> list[Message]:
    return [Message("t", b"%d" % number, f"key-{number}") for number in range(count)]


def kept(broker: Broker) -> int:
    return sum(len(log.entries) for log in broker.topics["t"].partitions)


def holders(broker: Broker, group: str = "g") -> list[Member | None]:
    return [cursor.lease and cursor.lease.member for cursor in broker.groups[group].cursors["t"]]


def join(broker: Broker) -> Member:
    return broker.join("g", ["t"], max_unacked=1000, wake=lambda: None)


@pytest.fixture
def broker() -> Broker:
    broker = Broker()
    broker.create(TopicSpec("t"))
    return broker


async def test_what_every_group_acknowledged_takes_no_memory():
    async with (
        InMemoryBus() as bus,
        bus.subscribe(["t"], group="a") as first,
        bus.subscribe(["t"], group="b") as second,
    ):
        for _ in range(100):
            await bus.publish(spread(1000))
            await first.ack(await first.receive(max_messages=1000))
        assert kept(bus.broker) == 100_000
        for _ in range(100):
            await second.ack(await second.receive(max_messages=1000))
        assert kept(bus.broker) < 8 * 600


async def test_a_group_that_comes_later_starts_behind_what_the_others_are_done_with():
    async with InMemoryBus() as bus:
        async with bus.subscribe(["t"], group="a") as first:
            await bus.publish(spread(10))
            await first.ack(await first.receive(max_messages=10))
            await bus.publish([Message("t", b"new")])
        async with bus.subscribe(["t"], group="b") as second:
            assert [item.message.value for item in await second.receive(max_messages=100)] == [
                b"new"
            ]


async def test_a_broadcast_without_subscribers_takes_no_memory():
    async with InMemoryBus() as bus:
        await bus.ensure_topics([TopicSpec("t", broadcast=True)])
        await bus.publish(spread(1000))
        assert kept(bus.broker) == 0


@pytest.mark.parametrize("members", [1, 2, 3, 5, 8, 11])
def test_partitions_are_spread_evenly(broker: Broker, members: int):
    for _ in range(members):
        join(broker)
    shares = Counter(holders(broker)).values()
    assert sum(shares) == 8
    assert len(shares) == min(members, 8)
    assert max(shares) - min(shares) <= 1


def test_a_member_that_joins_moves_no_more_partitions_than_it_gets(broker: Broker):
    join(broker)
    join(broker)
    before = holders(broker)
    newcomer = join(broker)
    moved = [after for was, after in zip(before, holders(broker), strict=True) if was is not after]
    assert moved
    assert set(moved) == {newcomer}


def test_a_member_keeps_what_it_has_out_of_partitions_that_stay(broker: Broker):
    first = join(broker)
    broker.publish(spread(80))
    out = first.fetch(80)
    second = join(broker)
    again = second.fetch(80)
    assert first.unacked + len(again) == 80
    assert second.unacked == len(again) > 0
    acknowledge(out)
    assert (first.unacked, second.unacked) == (0, len(again))


def test_partitions_that_move_take_their_unfetched_messages_along(broker: Broker):
    first = join(broker)
    broker.publish(spread(80))
    second = join(broker)
    got = [first.fetch(80), second.fetch(80)]
    assert all(got)
    assert sorted(int(item.message.value) for share in got for item in share) == list(range(80))
    for member, share in zip((first, second), got, strict=True):
        assert {holders(broker)[item.partition] for item in share} == {member}


def test_what_was_lost_cannot_be_given_back(broker: Broker):
    first = join(broker)
    broker.publish(spread(80))
    out = first.fetch(80)
    second = join(broker)
    again = second.fetch(80)
    give_back(out)
    assert (second.unacked, second.fetch(80)) == (len(again), [])


def test_a_full_partition_does_not_keep_the_others_waiting(broker: Broker):
    member = join(broker)
    broker.publish([*(Message("t", b"much", "busy") for _ in range(100)), *spread(50)])
    assert {delivery.partition for _ in range(8) for delivery in member.fetch(5)} == set(range(8))


async def test_receiving_lets_others_run_also_when_there_is_much_to_receive():
    async with InMemoryBus() as bus, bus.subscribe(["t"], group="g") as subscription:
        await bus.publish(spread(100))
        turns = 0
        async with anyio.create_task_group() as tasks:

            async def count() -> None:
                nonlocal turns
                while True:
                    await anyio.lowlevel.checkpoint()
                    turns += 1

            tasks.start_soon(count)
            for _ in range(100):
                await subscription.receive(max_messages=1)
            tasks.cancel_scope.cancel()
    assert turns >= 99


async def test_buffers_are_copied():
    buffer = bytearray(b"before")
    async with InMemoryBus() as bus, bus.subscribe(["t"], group="g") as subscription:
        await bus.publish([Message("t", buffer)])
        buffer[:] = b"behind"
        assert [item.message.value for item in await subscription.receive(max_messages=9)] == [
            b"before"
        ]


async def test_unknown_topics_are_made_unless_that_is_not_wanted():
    async with InMemoryBus() as bus:
        await bus.publish([Message("new", b"x")])
        assert "new" in bus.broker.topics
    async with InMemoryBus(auto_create=False) as bus:
        await bus.ensure_topics([TopicSpec("known")])
        with pytest.raises(BusError, match="there is no topic 'new'"):
            await bus.publish([Message("known", b"x"), Message("new", b"x")])
        for group in ("g", None):
            with pytest.raises(BusError, match="there is no topic 'new'"):
                async with bus.subscribe(["known", "new"], group=group):
                    pass
        async with bus.subscribe(["known"], group="g") as subscription:
            await bus.publish([Message("known", b"first")])
            assert [item.message.value for item in await subscription.receive(max_messages=9)] == [
                b"first"
            ]


async def test_a_bus_that_was_not_entered_yet_can_be_used():
    bus = InMemoryBus()
    await bus.publish([Message("t", b"x")])
    async with bus.subscribe(["t"], group="g") as subscription:
        assert [item.message.value for item in await subscription.receive(max_messages=9)] == [b"x"]


async def test_a_bus_that_is_closed_says_so():
    bus = InMemoryBus()
    async with bus:
        pass
    with pytest.raises(BusError, match="closed"):
        await bus.publish([])
    with pytest.raises(BusError, match="closed"):
        async with bus.subscribe(["t"], group="g"):
            pass


async def test_a_bus_may_be_entered_twice():
    bus = InMemoryBus()
    async with bus:
        async with bus:
            await bus.publish([Message("t", b"kept")])
        async with bus.subscribe(["t"], group="g") as subscription:
            assert [item.message.value for item in await subscription.receive(max_messages=9)] == [
                b"kept"
            ]


def test_a_bus_serves_one_event_loop_after_the_other():
    bus = InMemoryBus()

    async def cycle() -> list[bytes]:
        async with (
            bus,
            bus.subscribe(["t"], group="g") as subscription,
            asyncio.TaskGroup() as tasks,
        ):
            waiting = tasks.create_task(subscription.receive(max_messages=9))
            await anyio.sleep(0.001)
            await bus.publish([Message("t", b"x")])
            found = await waiting
            await subscription.ack(found)
            return [item.message.value for item in found]

    assert [asyncio.run(cycle()) for _ in range(3)] == [[b"x"]] * 3


# ---------------------------------------------------------------- going wrong


def one_partition() -> Broker:
    broker = Broker(partitions=1)
    broker.create(TopicSpec("t"))
    return broker


def numbered(broker: Broker, first: int, last: int) -> list[tuple[int, int]]:
    return broker.publish([Message("t", b"%d" % number) for number in range(first, last)])


def read(member: Member, *, ack: bool = True) -> list[int]:
    got = member.fetch(1000)
    if ack:
        acknowledge(got)
    return [int(delivery.message.value) for delivery in got]


def test_a_tail_that_is_lost_does_not_come_and_its_places_are_given_out_again():
    broker = one_partition()
    member = join(broker)
    numbered(broker, 0, 10)
    assert [message.value for message in broker.lose_tail("t", 0, 3)] == [b"7", b"8", b"9"]
    assert broker.outstanding("t", "g") == {0: (0, 7)}
    assert numbered(broker, 10, 11) == [(0, 7)]
    assert read(member) == [0, 1, 2, 3, 4, 5, 6, 10]


def test_a_tail_that_was_read_already_may_be_lost_as_well():
    broker = one_partition()
    member = join(broker)
    numbered(broker, 0, 10)
    assert len(read(member)) == 10
    broker.lose_tail("t", 0, 3)
    assert broker.outstanding("t", "g") == {0: (7, 7)}
    numbered(broker, 10, 12)
    assert read(member) == [10, 11]


def test_more_than_there_is_cannot_be_lost():
    broker = one_partition()
    member = join(broker)
    assert broker.lose_tail("t", 0, 5) == []
    numbered(broker, 0, 2)
    assert len(broker.lose_tail("t", 0, 5)) == 2
    assert (read(member), broker.outstanding("t", "g")) == ([], {0: (0, 0)})


def test_messages_in_transit_when_a_tail_was_lost_are_delivered_and_acknowledged_again():
    broker = one_partition()
    member = join(broker)
    numbered(broker, 0, 10)
    out = member.fetch(1000)
    acknowledge([out[4], out[8]])
    broker.lose_tail("t", 0, 3)
    assert member.unacked == 0
    numbered(broker, 10, 12)
    acknowledge(out)
    give_back(out)
    assert read(member, ack=False) == [0, 1, 2, 3, 5, 6, 10, 11]
    assert (member.unacked, broker.outstanding("t", "g")) == (8, {0: (0, 9)})


def test_a_tail_may_be_lost_while_there_is_no_subscriber():
    broker = one_partition()
    numbered(broker, 0, 3)
    member = join(broker)
    broker.leave(member)
    broker.lose_tail("t", 0, 1)
    assert read(join(broker)) == [0, 1]


def test_a_group_that_is_set_back_gets_again_what_it_had_acknowledged():
    broker = one_partition()
    member = join(broker)
    other = broker.join("other", ["t"], max_unacked=1000, wake=lambda: None)
    numbered(broker, 0, 10)
    out = member.fetch(1000)
    acknowledge([*out[:6], out[8]])
    assert len(read(other)) == 10
    assert broker.rewind("g", "t", 0, 4) == 4
    assert broker.outstanding("t", "g") == {0: (2, 10)}
    assert read(member, ack=False) == [2, 3, 4, 5, 8]
    acknowledge(out)
    assert broker.outstanding("t", "g") == {0: (10, 10)}
    assert read(other) == []


def test_a_group_is_set_back_as_far_as_messages_are_kept():
    broker = one_partition()
    member = join(broker)
    for first in range(0, 2000, 100):
        numbered(broker, first, first + 100)
        read(member)
    back = broker.rewind("g", "t", 0, 10_000)
    assert 200 < back < 1000
    assert read(member) == list(range(2000 - back, 2000))
    assert broker.outstanding("t", "g") == {0: (2000, 2000)}


def test_nothing_is_outstanding_of_a_topic_that_does_not_exist():
    assert Broker().outstanding("t", "g") == {}
