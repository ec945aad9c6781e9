"""The bus suite: places of messages, and messages outstanding for a group."""

from collections.abc import Iterable, Mapping, Sequence

import anyio
import pytest

from flowkit.protocols import Bus, Place
from flowkit_testing.conformance._bus_base import BusSuite, message, messages, spread, values


class Outstanding(BusSuite):
    """Progress of a group."""

    async def test_publish_returns_the_places_that_the_deliveries_have(
        self, bus: Bus, topic: str, second_topic: str, group: str
    ) -> None:
        sent = [*spread(topic, 30), *spread(second_topic, 10, "other")]
        places = known(bus, await bus.publish(sent))
        async with bus.subscribe([topic, second_topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
        found = {
            delivery.message.value: (delivery.partition, delivery.position) for delivery in got
        }
        assert [found[value] for value in values(sent)] == places

    async def test_publishing_nothing_returns_no_places(self, bus: Bus) -> None:
        assert list(await bus.publish([])) == []

    async def test_everything_is_to_come_to_a_group_that_does_not_exist(
        self, bus: Bus, topic: str
    ) -> None:
        places = known(bus, await bus.publish(spread(topic, 20)))
        outstanding = await self.outstanding(bus, topic, f"unused-{topic}")
        assert all(is_to_come(place, outstanding) is bus.replay_for_new_groups for place in places)
        assert ends(outstanding) == ends_of(places, outstanding)

    async def test_a_bus_without_places_answers_none(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        if bus.places:
            pytest.skip("this bus has places")
        assert list(await bus.publish(spread(topic, 3))) == [None] * 3
        assert await bus.outstanding(topic, group) is None

    async def test_what_was_acknowledged_is_not_to_come(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = spread(topic, 20)
        places = known(bus, await bus.publish(sent))
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, values(sent), ack=True)
            outstanding = await self.read_to(bus, topic, group, places)
        assert not any(is_to_come(place, outstanding) for place in places)
        assert ends(outstanding) == ends_of(places, outstanding)

    async def test_what_was_not_acknowledged_is_to_come(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, 6)
        places = known(bus, await bus.publish(sent))
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
            await subscription.ack([*got[:2], *got[3:]])
            outstanding = await self.read_to(bus, topic, group, places[:2])
            assert is_to_come(places[2], outstanding)
            await subscription.release(got[2:3])
            assert is_to_come(places[2], await self.outstanding(bus, topic, group))
        assert is_to_come(places[2], await self.outstanding(bus, topic, group))

    async def test_the_progress_of_a_group_is_known_while_no_member_listens(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        (early,) = known(bus, await bus.publish([message(topic, "early")]))
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, [b"early"], ack=True)
        (late,) = known(bus, await bus.publish([message(topic, "late")]))
        outstanding = await self.read_to(bus, topic, group, [early])
        assert is_to_come(late, outstanding)

    async def test_each_message_is_to_come_once_it_is_published(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        for number in range(3):
            (place,) = known(bus, await bus.publish([message(topic, f"m{number}")]))
            async with bus.subscribe([topic], group=group) as subscription:
                assert is_to_come(place, await self.outstanding(bus, topic, group))
                await self.take(subscription, [b"m%d" % number], ack=True)
                await self.read_to(bus, topic, group, [place])

    async def test_how_far_a_group_is_is_its_own_affair(
        self, bus: Bus, topic: str, group: str
    ) -> None:
        sent = messages(topic, 3)
        places = known(bus, await bus.publish(sent))
        async with bus.subscribe([topic], group=f"{group}-b"):
            async with bus.subscribe([topic], group=f"{group}-a") as subscription:
                await self.take(subscription, values(sent), ack=True)
            await self.read_to(bus, topic, f"{group}-a", places)
            outstanding = await self.outstanding(bus, topic, f"{group}-b")
        assert all(is_to_come(place, outstanding) for place in places)

    async def test_a_topic_that_does_not_exist_has_no_partitions(
        self, bus: Bus, group: str
    ) -> None:
        assert await bus.outstanding(f"nowhere.{group}", group) == ({} if bus.places else None)

    async def outstanding(self, bus: Bus, topic: str, group: str) -> Mapping[int, tuple[int, int]]:
        found = await bus.outstanding(topic, group)
        assert found is not None, "a bus with places answers"
        return found

    async def read_to(
        self, bus: Bus, topic: str, group: str, places: Iterable[Place]
    ) -> Mapping[int, tuple[int, int]]:
        """Return the outstanding messages once none of these is outstanding."""
        with anyio.fail_after(self.patience):
            while True:
                outstanding = await self.outstanding(bus, topic, group)
                if not any(is_to_come(place, outstanding) for place in places):
                    return outstanding
                await anyio.sleep(0.05)


def known(bus: Bus, places: Sequence[Place | None]) -> list[Place]:
    """Return the places. Check that the bus knows each of them."""
    if not bus.places:
        pytest.skip("this bus has no places")
    found = [place for place in places if place is not None]
    assert len(found) == len(places)
    return found


def is_to_come(place: Place, outstanding: Mapping[int, tuple[int, int]]) -> bool:
    first, end = outstanding.get(place[0], (0, 0))
    return first <= place[1] < end


def ends(outstanding: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    return {partition: end for partition, (_, end) in outstanding.items()}


def ends_of(places: Iterable[Place], partitions: Iterable[int]) -> dict[int, int]:
    """Return the ends of the partitions, which hold only these messages."""
    found = dict.fromkeys(partitions, 0)
    for partition, position in places:
        found[partition] = max(found[partition], position + 1)
    return found
