"""The clock of the store's server, and the corrections that a process derives from it."""

import logging
import time
from collections.abc import Callable

import pytest

from flowkit import Client
from flowkit.clock import LONGEST_ANSWER_SEC, StoreClock
from flowkit.protocols import Clock, ServerClock
from flowkit_testing import InMemoryBus, InMemoryStore

DAY = 86_400.0


class Server:
    """A server whose clock shows ``at``, and the uptime of the machine that asks it."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.up = 100.0
        self.answers_after = 0.0

    async def server_time(self) -> float:
        self.up += self.answers_after
        return self.at

    def clock(self) -> StoreClock:
        return StoreClock(uptime=lambda: self.up)


class StoreWithClock(InMemoryStore):
    async def server_time(self) -> float:
        return time.time() + 40 * DAY


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [
        record.action
        for record in caplog.records
        if record.name == "flowkit.clock" and hasattr(record, "action")
    ]


async def test_the_time_is_the_servers_and_goes_on_between_two_measurements() -> None:
    server = Server(at=1_000_000.0)
    clock = server.clock()
    assert isinstance(clock, Clock)
    await clock.measure(server)
    assert clock.now() == 1_000_000.0
    server.up += 7
    assert (clock.now(), clock.now_dt().timestamp()) == (1_000_007.0, 1_000_007.0)
    server.at = 1_000_500.0
    await clock.measure(server)
    assert clock.now() == 1_000_500.0


async def test_half_of_the_time_an_answer_took_has_passed_since_the_server_gave_it() -> None:
    server = Server(at=1_000_000.0)
    server.answers_after = 0.5
    clock = server.clock()
    await clock.measure(server)
    assert clock.now() == 1_000_000.25


async def test_a_slow_answer_replaces_no_exact_one() -> None:
    server = Server(at=1_000_000.0)
    clock = server.clock()
    await clock.measure(server)
    server.answers_after = 2 * LONGEST_ANSWER_SEC
    await clock.measure(server)
    assert clock.now() == 1_000_000.0 + 2 * LONGEST_ANSWER_SEC


async def test_a_wrong_clock_of_the_machine_is_logged_once_and_when_it_is_right_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "flowkit")
    server = Server(at=time.time() - 40 * DAY)
    clock = server.clock()
    for _ in range(2):
        await clock.measure(server)
        assert logged(caplog) == ["clock_wrong"]
    server.at = time.time()
    await clock.measure(server)
    assert logged(caplog) == ["clock_wrong", "clock_right"]


@pytest.mark.parametrize(("make", "days"), [(StoreWithClock, 40), (InMemoryStore, 0)])
async def test_a_client_takes_the_time_from_a_store_that_has_a_clock_and_else_from_the_system(
    make: Callable[[], InMemoryStore], days: int
) -> None:
    async with make() as store, InMemoryBus() as bus, Client(store=store, bus=bus) as client:
        assert isinstance(store, ServerClock) == bool(days)
        assert abs(client.clock.now() - time.time() - days * DAY) < DAY
