"""Refused messages are kept in the store, beside the bus's own dead letters."""

import anyio
import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit._dead_letters.unusable_messages import Parking, message_letter
from flowkit._records.letter_records import read_letters
from flowkit.errors import StoreUnavailable
from flowkit.plugins import Plugins
from flowkit.protocols import Delivery, Message, RecordChange
from flowkit_testing import Cluster, InMemoryStore, ManualClock
from tests.builders import work
from tests.hooked_store import HookedStore, parks

NO_PLUGINS = Plugins(discover=False)


class Away(HookedStore):
    """A store that accepts no letters while it is away."""

    away = True

    async def before_change(self, change: RecordChange) -> None:
        if self.away and parks(change):
            raise StoreUnavailable("away")


def poison(position: int = 3, value: bytes = b"\xff") -> Delivery:
    return Delivery(Message("t", value, "k", {"h": b"1"}), 2, position)


async def test_a_message_that_is_delivered_again_is_kept_once() -> None:
    async with ManualClock().auto() as clock:
        store = InMemoryStore()
        parking = Parking(store=store, clock=clock, plugins=NO_PLUGINS)
        await parking.keep([(poison(), "no"), (poison(4), "no")])
        await parking.keep([(poison(), "again")])
        await parking.keep([])
    assert sorted((letter.position, letter.error) for letter in await read_letters(store)) == [
        (3, "no"),
        (4, "no"),
    ]


def test_another_message_at_the_same_place_of_a_new_topic_is_another_letter() -> None:
    first, second = (message_letter(poison(value=value), "no", at=0) for value in (b"1", b"2"))
    assert first.letter_id != second.letter_id


async def test_a_store_that_comes_back_in_time_keeps_the_letter(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ManualClock().auto() as clock, anyio.create_task_group() as group:
        store = Away()
        group.start_soon(
            Parking(store=store, clock=clock, plugins=NO_PLUGINS).keep, [(poison(), "no")]
        )
        await clock.sleep(3)
        store.away = False
    assert len(await read_letters(store)) == 1
    assert "topic only" not in caplog.text


@pytest.mark.parametrize("topic", ["flowkit.events", "flowkit.cmd.work"])
async def test_a_store_that_stays_away_holds_up_nothing_and_the_bus_has_the_letter(
    topic: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = Away()
    graph = {"nodes": [{"node_id": "a", "type": "work"}]}
    async with Cluster(
        store=store,
        handlers=[work],
        coordinator_config=CoordinatorConfig(),
        worker_config=WorkerConfig(),
    ) as cluster:
        async with cluster.bus.subscribe(["flowkit.dlq"], group="watch") as dead:
            await cluster.bus.publish([Message(topic, b"poison", key) for key in "abcdefgh"])
            assert (await cluster.run(graph, timeout=600)).status == "finished"
            with anyio.fail_after(60):
                (first, *_) = await dead.receive(max_messages=8)
        assert first.message.value == b"poison"
    assert "topic only" in caplog.text
    assert await read_letters(store) == []


class Refuses(HookedStore):
    """A store that refuses the content of the letter."""

    async def before_change(self, change: RecordChange) -> None:
        raise UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed")


async def test_a_letter_that_the_store_cannot_take_holds_up_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with ManualClock().auto() as clock:
        await Parking(store=Refuses(), clock=clock, plugins=NO_PLUGINS).keep([(poison(), "no")])
    assert "on the dead-letter topic only" in caplog.text
