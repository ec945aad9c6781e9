"""A lasting outage is logged when it starts, and then once a minute."""

import logging

import pytest

from flowkit._runtime.retries import Notices, notices_of
from flowkit_testing import ManualClock

logger = logging.getLogger("flowkit.test")


class Time:
    """Clock with the lines that were logged by it."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self.now = 0.0
        self._caplog = caplog
        self.notices = Notices(lambda: self.now)

    def fail(self, cause: str = "bus") -> None:
        self.notices.trouble(logger, cause, f"No {cause}", ValueError("away"), action="away")

    def succeed(self, cause: str = "bus") -> None:
        self.notices.over(logger, cause)

    def logged(self) -> list[str]:
        lines = [record.getMessage() for record in self._caplog.records]
        self._caplog.clear()
        return lines


@pytest.fixture
def time(caplog: pytest.LogCaptureFixture) -> Time:
    return Time(caplog)


def test_trouble_is_logged_when_it_begins_each_minute_and_when_it_is_over(time: Time) -> None:
    for second in range(150):
        time.now = float(second)
        time.fail()
    time.succeed()
    time.succeed()
    assert time.logged() == [
        "No bus: away",
        "No bus (for 60 s): away",
        "No bus (for 120 s): away",
        "Over after 149 s: No bus",
    ]


def test_the_outages_that_are_not_over_are_known(time: Time) -> None:
    time.fail("bus")
    time.fail("store")
    time.fail("store")
    time.succeed("store")
    assert time.notices.open == {"bus"}


def test_each_cause_is_logged_by_itself(time: Time) -> None:
    time.fail("bus")
    time.fail("store")
    time.succeed("store")
    assert time.logged() == ["No bus: away", "No store: away", "Over after 0 s: No store"]


def test_trouble_that_comes_and_goes_is_not_logged_each_time(time: Time) -> None:
    for tenth in range(300):
        time.now = tenth / 10
        time.fail()
        time.succeed()
    assert time.logged() == ["No bus: away", "Over after 0 s: No bus"]


def test_trouble_after_a_quiet_time_is_new(time: Time) -> None:
    time.fail()
    time.succeed()
    time.now = 10.0
    time.fail()
    assert time.logged() == ["No bus: away", "Over after 0 s: No bus", "No bus: away"]


def test_what_shares_a_clock_shares_its_notices() -> None:
    clock = ManualClock()
    assert notices_of(clock) is notices_of(clock)
    assert notices_of(clock) is not notices_of(ManualClock())
