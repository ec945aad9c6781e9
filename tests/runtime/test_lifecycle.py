"""Buses and stores share one life cycle: their verbs work while they are open alone."""

import pytest

from flowkit.adapters import Lifecycle, LifeState
from flowkit.errors import BusError, NotRunning, StoreError
from flowkit.protocols import Message
from flowkit_kafka import KafkaBus
from flowkit_mongo import MongoStore


def test_a_resource_is_there_while_the_object_is_open_and_an_error_says_so_otherwise() -> None:
    life = Lifecycle[str]("the bus", error=BusError)
    with pytest.raises(BusError, match=r"^the bus is not open: use it inside 'async with'$"):
        _ = life.resource
    life.open("connection")
    assert (life.state, life.resource) == (LifeState.OPEN, "connection")
    assert life.close() == "connection"
    with pytest.raises(BusError, match="^the bus is closed"):
        life.check_open()


def test_an_object_may_be_opened_again_after_it_was_closed_and_not_while_it_is_open() -> None:
    life = Lifecycle[int]("the client")
    life.open(1)
    with pytest.raises(NotRunning, match="^the client is open already$"):
        life.open(2)
    assert life.resource == 1
    life.close()
    life.open(2)
    assert life.resource == 2


def test_closing_an_object_that_is_not_open_changes_nothing() -> None:
    life = Lifecycle[int]("the client")
    assert life.close() is None
    assert life.state is LifeState.NEW
    life.open(1)
    assert [life.close(), life.close()] == [1, None]
    assert life.state is LifeState.CLOSED


async def test_the_verbs_of_a_store_on_mongodb_that_is_not_open_say_so() -> None:
    store = MongoStore("mongodb://localhost/flowkit")
    with pytest.raises(StoreError, match="this store is not open"):
        await store.load(["t"])


async def test_the_verbs_of_a_bus_on_kafka_that_is_not_open_say_so() -> None:
    bus = KafkaBus("kafka://localhost")
    with pytest.raises(BusError, match="this bus is not open"):
        await bus.publish([Message("topic", b"value")])
    with pytest.raises(BusError, match="this bus is not open"):
        await bus.outstanding("topic", "group")
