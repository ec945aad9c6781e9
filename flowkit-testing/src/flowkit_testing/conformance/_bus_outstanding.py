"""The bus suite: where messages are, and what is still to come to a group."""

from collections.abc import Iterable, Mapping, Sequence

import anyio

from flowkit.protocols import Bus, Place

from ._bus_base import BusSuite, message, messages, spread, values


class Outstanding(BusSuite):
    """How far a group is."""

    async def test_publish_returns_the_places_that_the_deliveries_have(self, bus: Bus, topic: str, second_topic: str, group: str) -> None:
        sent = [*spread(topic, 30), *spread(second_topic, 10, "other")]
        places = known(await bus.publish(sent))
        async with bus.subscribe([topic, second_topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
        found = {delivery.message.value: (delivery.partition, delivery.position) for delivery in got}
        assert [found[value] for value in values(sent)] == places

    async def test_publishing_nothing_returns_no_places(self, bus: Bus) -> None:
        assert list(await bus.publish([])) == []

    async def test_everything_is_to_come_to_a_group_that_does_not_exist(self, bus: Bus, topic: str, group: str) -> None:
        places = known(await bus.publish(spread(topic, 20)))
        outstanding = await bus.outstanding(topic, group)
        assert all(is_to_come(place, outstanding) for place in places)
        assert ends(outstanding) == ends_of(places, outstanding)

    async def test_what_was_acknowledged_is_not_to_come(self, bus: Bus, topic: str, group: str) -> None:
        sent = spread(topic, 20)
        places = known(await bus.publish(sent))
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, values(sent), ack=True)
            outstanding = await self.read_to(bus, topic, group, places)
        assert not any(is_to_come(place, outstanding) for place in places)
        assert ends(outstanding) == ends_of(places, outstanding)

    async def test_what_was_not_acknowledged_is_to_come(self, bus: Bus, topic: str, group: str) -> None:
        sent = messages(topic, 6)
        places = known(await bus.publish(sent))
        async with bus.subscribe([topic], group=group) as subscription:
            got = await self.take(subscription, values(sent))
            await subscription.ack([*got[:2], *got[3:]])
            outstanding = await self.read_to(bus, topic, group, places[:2])
            assert is_to_come(places[2], outstanding)
            await subscription.release(got[2:3])
            assert is_to_come(places[2], await bus.outstanding(topic, group))
        assert is_to_come(places[2], await bus.outstanding(topic, group))

    async def test_how_far_a_group_is_is_known_while_nobody_listens(self, bus: Bus, topic: str, group: str) -> None:
        (early,) = known(await bus.publish([message(topic, "early")]))
        async with bus.subscribe([topic], group=group) as subscription:
            await self.take(subscription, [b"early"], ack=True)
        (late,) = known(await bus.publish([message(topic, "late")]))
        outstanding = await self.read_to(bus, topic, group, [early])
        assert is_to_come(late, outstanding)

    async def test_how_far_a_group_is_is_its_own_affair(self, bus: Bus, topic: str, group: str) -> None:
        sent = messages(topic, 3)
        places = known(await bus.publish(sent))
        async with bus.subscribe([topic], group=f"{group}-b"):
            async with bus.subscribe([topic], group=f"{group}-a") as subscription:
                await self.take(subscription, values(sent), ack=True)
            await self.read_to(bus, topic, f"{group}-a", places)
            outstanding = await bus.outstanding(topic, f"{group}-b")
        assert all(is_to_come(place, outstanding) for place in places)

    async def test_a_topic_that_does_not_exist_has_no_partitions(self, bus: Bus, group: str) -> None:
        assert await bus.outstanding(f"nowhere.{group}", group) == {}

    async def read_to(self, bus: Bus, topic: str, group: str, places: Iterable[Place]) -> Mapping[int, tuple[int, int]]:
        """What is outstanding once these are not to come any more."""
        with anyio.fail_after(self.patience):
            while True:
                outstanding = await bus.outstanding(topic, group)
                if not any(is_to_come(place, outstanding) for place in places):
                    return outstanding
                await anyio.sleep(0.05)


def known(places: Sequence[Place | None]) -> list[Place]:
    """The places, all of which the bus was told."""
    found = [place for place in places if place is not None]
    assert len(found) == len(places)
    return found


def is_to_come(place: Place, outstanding: Mapping[int, tuple[int, int]]) -> bool:
    first, end = outstanding.get(place[0], (0, 0))
    return first <= place[1] < end


def ends(outstanding: Mapping[int, tuple[int, int]]) -> dict[int, int]:
    return {partition: end for partition, (_, end) in outstanding.items()}


def ends_of(places: Iterable[Place], partitions: Iterable[int]) -> dict[int, int]:
    """The ends of partitions that hold nothing but these."""
    found = dict.fromkeys(partitions, 0)
    for partition, position in places:
        found[partition] = max(found[partition], position + 1)
    return found
