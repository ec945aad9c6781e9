"""Attempts with rates: how long they have a place, and commands that are late."""

from typing import Any

import pytest

from flowkit._engine import KeyGranted, KeyQueued, Transition, pending_effects
from tests.engine.drive import RATE, STEADY, Play, effects, graph, told

RATED = {"rate_limit": RATE, "retry_policy": STEADY}


def issued(**fields: Any) -> Play:
    return Play(graph("n", n=RATED | fields))


def returned(step: Transition) -> list[tuple[str, bool]]:
    """Return what nodes give back, and whether they may have begun with it."""
    return [
        (line, effect.begun)
        for line, effect in zip(effects(step), step.effects, strict=True)
        if line.startswith("return")
    ]


BEGUN = ("return the rate of n", True)
UNUSED = ("return the rate of n", False)


def test_a_place_is_used_up_when_the_worker_reports_that_the_handler_begins() -> None:
    play = issued()
    assert returned(play.starts("n")) == []
    assert play.record("n").holds_rate
    assert returned(play.starts("n", begun=True)) == [BEGUN]
    assert play.starts("n", begun=True).ignored
    assert returned(play.succeeds("n")) == []


@pytest.mark.parametrize("end", ["succeeds", "fails", "stops"])
def test_the_end_of_an_attempt_uses_its_place_up(end: str) -> None:
    play = issued()
    assert returned(getattr(play, end)("n")) == [BEGUN]


def test_a_command_that_is_late_is_withdrawn() -> None:
    play = issued()
    assert "withdraw n" not in effects(play.later(0.9))
    assert "withdraw n" in effects(play.later(0.2))
    step = play.is_withdrawn("n")
    assert returned(step) == [UNUSED]
    assert effects(step)[1] == "ask for the rate of n"
    assert (play.record("n").attempt, play.record("n").handovers) == (1, 1)


def test_the_time_for_a_command_doubles_each_time() -> None:
    play, waits = issued(), []
    for _ in range(9):
        since = play.now
        while "withdraw n" not in effects(play.later(1.0)):
            pass
        waits.append(play.now - since)
        play.is_withdrawn("n")
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]


def test_a_command_that_a_worker_has_started_is_not_late() -> None:
    play = issued()
    play.starts("n", begun=True)
    assert "withdraw n" not in effects(play.later(2.0))
    assert play.is_withdrawn("n").ignored


def test_a_node_without_a_rate_is_never_late() -> None:
    play = Play(graph("n"))
    assert "withdraw n" not in effects(play.later(2.0))


def test_a_cancelled_command_keeps_its_place_until_it_is_withdrawn() -> None:
    play = issued()
    step = play.cancel()
    assert (play.status("n"), returned(step)) == ("cancelling", [])
    assert "withdraw n" in effects(step)
    assert returned(play.is_withdrawn("n")) == [BEGUN]
    assert play.status("n") == "cancelled"


def test_a_command_that_waits_too_long_keeps_its_place_until_it_is_withdrawn() -> None:
    play = issued(timeouts={"schedule_to_start_sec": 5.0})
    assert returned(play.later(6.0)) == []
    assert returned(play.is_withdrawn("n")) == [BEGUN]
    assert play.status("n") == "deferred"
    assert play.record("n").reason_code == "schedule_to_start_timeout"


@pytest.mark.parametrize("limit", ["schedule_to_start_sec", "start_to_close_sec"])
def test_neither_the_success_of_an_overdue_attempt_counts_nor_do_copies_of_it(limit: str) -> None:
    play = issued(timeouts={limit: 5.0})
    if limit == "start_to_close_sec":
        play.starts("n")
    play.later(6.0)
    for _ in range(2):
        play.succeeds("n", attempt=1)
        assert play.status("n") == "deferred"


def test_the_success_of_an_attempt_that_ran_too_long_counts_if_it_held_no_place() -> None:
    play = issued(timeouts={"schedule_to_start_sec": 5.0, "start_to_close_sec": 5.0})
    play.later(6.0)
    play.is_withdrawn("n")
    play.later(10.0)
    play.do(KeyGranted(0, 2, kind="rate"))
    play.starts("n", begun=True)
    play.later(6.0)
    assert (play.status("n"), play.record("n").attempt) == ("deferred", 2)
    play.succeeds("n", attempt=2)
    assert play.status("n") == "finished"


def test_a_node_asks_for_its_key_and_then_for_its_rate() -> None:
    play = Play(graph("n", n=RATED | {"concurrency_key": "k"}), keys=False)
    assert play.pending == ["ask for the key of n"]
    assert effects(play.do(KeyGranted(0, 1))) == ["ask for the rate of n"]
    play.do(KeyQueued(0, 1, "rate"))
    assert (play.status("n"), play.record("n").queued_for) == ("deferred", "rate")
    assert effects(play.do(KeyGranted(0, 1, kind="rate"))) == ["run n"]
    assert play.record("n").holds_key
    play.later(1.5)
    step = play.is_withdrawn("n")
    assert returned(step) == [("return the key of n", False), UNUSED]


def test_a_paused_task_gives_its_places_back_unused() -> None:
    play = Play(graph("n", n=RATED | {"concurrency_key": "k"}), keys=False)
    play.do(KeyGranted(0, 1))
    play.do(KeyQueued(0, 1, "rate"))
    play.pause()
    step = play.do(KeyGranted(0, 1, kind="rate"))
    assert returned(step) == [("return the key of n", False), UNUSED]
    asked_at = play.record("n").rate.asked_at
    play.later(10.0)
    play.resume()
    play.do(KeyGranted(0, 2))
    assert (play.record("n").rate.number, play.record("n").rate.asked_at) == (2, asked_at)


def test_a_grant_that_comes_too_late_is_given_back() -> None:
    play = Play(graph("n", n=RATED), keys=False)
    play.cancel()
    late = play.do(KeyGranted(0, 1, kind="rate"))
    assert (late.ignored, returned(late)) == (True, [BEGUN])


def test_a_coordinator_that_loads_a_task_repeats_what_may_be_lost() -> None:
    play = issued()
    play.starts("n", begun=True)
    assert told(play.task, pending_effects(play.task)) == ["return the rate of n"]
