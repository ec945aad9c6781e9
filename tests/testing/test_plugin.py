"""Objects opened at the same ``memory://`` address share their data."""

import asyncio

import pytest

from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.plugins import Plugins
from flowkit.protocols import Bus, Message, Store, TaskHeader, TaskRecord
from flowkit_testing import InMemoryStore

CONFIG = CoordinatorConfig()


async def hears(bus: Bus, other: Bus, text: bytes) -> bool:
    async with bus, other, bus.subscribe(["t"], group=None) as subscription:
        await other.publish([Message("t", text)])
        async with asyncio.timeout(0.05):
            return [
                delivery.message.value for delivery in await subscription.receive(max_messages=10)
            ] == [text]
    return False


@pytest.mark.parametrize("address", ["memory://", "memory://name"])
async def test_buses_of_one_address_meet(address: str):
    plugins = Plugins()
    assert await hears(
        plugins.open_bus(address, CONFIG), Plugins().open_bus(address, WorkerConfig()), b"hello"
    )


async def test_buses_of_different_addresses_do_not_meet():
    plugins = Plugins()
    with pytest.raises(TimeoutError):
        await hears(
            plugins.open_bus("memory://here", CONFIG),
            plugins.open_bus("memory://there", CONFIG),
            b"hello",
        )


def test_an_address_names_one_store():
    plugins = Plugins()
    assert plugins.open_store("memory://name", CONFIG) is Plugins().open_store(
        "memory://name", CONFIG
    )
    assert plugins.open_store("memory://", CONFIG) is not plugins.open_store(
        "memory://name", CONFIG
    )


def test_a_store_that_is_given_is_used():
    store = InMemoryStore()
    assert Plugins().open_store(store, CONFIG) is store


async def test_a_bus_rejects_to_the_topic_of_its_configuration():
    bus = Plugins().open_bus("memory://dead-letters", CoordinatorConfig(namespace="mine"))
    async with (
        bus,
        bus.subscribe(["t"], group="g") as subscription,
        bus.subscribe(["mine.dlq"], group="dead") as letters,
    ):
        await bus.publish([Message("t", b"poison")])
        await subscription.reject(await subscription.receive(max_messages=1), "bad")
        (letter,) = await letters.receive(max_messages=1)
    assert letter.message.value == b"poison"


def test_the_place_outlives_an_event_loop():
    def store() -> Store:
        return Plugins().open_store("memory://outlives", CONFIG)

    async def write() -> None:
        async with store() as opened:
            await opened.create([TaskRecord(TaskHeader("t", "queued", 1.0), b"", {})])

    async def read() -> list[str]:
        async with store() as opened:
            return list(await opened.load(["t"]))

    asyncio.run(write())
    assert asyncio.run(read()) == ["t"]
