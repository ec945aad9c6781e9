"""Retries of failed attempts and their times."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowkit._engine.retries import retry_delay
from flowkit.graph import RetryPolicy
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import NOON, ONCE, STEADY, Play, graph, started

LOWEST, MIDDLE, HIGHEST = "00000000", "7fffffff", "ffffffff"


def delay(
    *, attempts_made: int = 1, reason_code: str = "boom", permanent: bool = False, **more: Any
) -> float | None:
    spent_sec, token = more.pop("spent_sec", 0.0), more.pop("token", MIDDLE)
    policy = RetryPolicy(**more)
    return retry_delay(
        policy,
        attempts_made=attempts_made,
        reason_code=reason_code,
        permanent=permanent,
        spent_sec=spent_sec,
        token=token,
    )


def test_the_pause_grows_by_the_multiplier_up_to_its_cap():
    pauses = [
        delay(attempts_made=made, max=9, backoff_sec=2, multiplier=3, max_backoff_sec=30, jitter=0)
        for made in (1, 2, 3, 4, 9)
    ]
    assert pauses == [2, 6, 18, 30, 30]


def test_without_a_cap_the_pause_grows_up_to_a_minute_or_stays_the_first_one():
    pauses = [delay(attempts_made=made, max=9, backoff_sec=20, jitter=0) for made in (1, 2, 3)]
    assert pauses == [20, 40, 60]
    pauses = [delay(attempts_made=made, max=9, backoff_sec=90, jitter=0) for made in (1, 2, 3)]
    assert pauses == [90, 90, 90]


def test_a_pause_that_grows_beyond_all_numbers_is_the_cap():
    assert delay(attempts_made=5000, max=9999, multiplier=10, max_backoff_sec=30, jitter=0) == 30


def test_nothing_is_tried_again_after_the_last_attempt():
    assert delay(attempts_made=2, max=2) is not None
    assert delay(attempts_made=3, max=2) is None
    assert delay(attempts_made=1, max=0) is None


def test_a_permanent_failure_is_not_tried_again():
    assert delay(permanent=True) is None
    assert delay(reason_code="bad_input") is None
    assert delay(reason_code="schema_mismatch") is None
    assert delay(reason_code="odd", permanent_on=("odd",)) is None
    assert delay(reason_code="bad_input", permanent_on=("odd",)) is not None


def test_jitter_spreads_the_pause_to_both_sides():
    spread = [delay(backoff_sec=10, jitter=0.5, token=token) for token in (LOWEST, MIDDLE, HIGHEST)]
    assert spread == [5, pytest.approx(10), 15]


def test_jitter_stays_below_the_cap():
    assert delay(backoff_sec=10, max_backoff_sec=10, jitter=1, token=HIGHEST) == 10


def test_no_retry_begins_after_the_budget():
    assert delay(backoff_sec=10, jitter=0, budget_sec=30, spent_sec=20) == 10
    assert delay(backoff_sec=10, jitter=0, budget_sec=30, spent_sec=20.5) is None


@given(st.integers(1, 50), st.floats(0, 1), st.text("0123456789abcdef", min_size=24, max_size=24))
def test_the_pause_is_always_within_its_spread(made: int, jitter: float, token: str):
    pause = delay(
        attempts_made=made,
        max=100,
        backoff_sec=1,
        multiplier=2,
        max_backoff_sec=60,
        jitter=jitter,
        token=token,
    )
    plain = min(2 ** (made - 1), 60)
    assert plain * (1 - jitter) - 1e-9 <= pause <= min(plain * (1 + jitter), 60) + 1e-9


# ---------------------------------------------------------------- in a task


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_max_bounds_the_attempts_exactly(retries: int):
    play = Play(
        graph(
            "a",
            a={"retry_policy": {"max": retries, "jitter": 0, "backoff_sec": 5, "multiplier": 1}},
        )
    )
    attempts = 1
    while play.fails("a").status is not TaskStatus.FAILED:
        assert play.status("a") is NodeStatus.DEFERRED
        assert started(play.later(4.9)) == []
        assert started(play.later(0.1)) == ["a"]
        attempts += 1
    assert attempts == retries + 1


def test_a_deferred_node_tells_why_and_until_when():
    play = Play(graph("a", a={"retry_policy": STEADY}))
    step = play.fails("a", "flaky")
    record = play.record("a")
    assert (record.reason_code, record.error, record.next_retry_at) == (
        "flaky",
        "it broke",
        NOON + 10,
    )
    assert step.log[-2][3:] == (
        "deferred",
        {"reason_code": "flaky", "error": "it broke", "attempt": 1},
    )
    assert play.task.status is TaskStatus.DEFERRED
    assert (
        play.task.wake_at == NOON + 5
    )  # it checks its command then, as planned before the failure
    play.later(5)
    assert play.task.wake_at == NOON + 10


def test_a_task_with_a_deferred_node_runs_while_another_does():
    play = Play(graph("a b", a={"retry_policy": STEADY}))
    play.fails("a")
    assert play.task.status is TaskStatus.RUNNING
    play.succeeds("b")
    assert play.task.status is TaskStatus.DEFERRED


def test_the_pauses_of_a_task_follow_its_policy():
    policy = {
        "max": 3,
        "backoff_sec": 1.0,
        "multiplier": 4.0,
        "max_backoff_sec": 10.0,
        "jitter": 0.0,
    }
    play = Play(graph("a", a={"retry_policy": policy}))
    pauses = []
    for _ in range(3):
        play.fails("a")
        pauses.append(play.record("a").next_retry_at - play.now)
        play.later(pauses[-1])
    assert pauses == [1, 4, 10]


def test_the_jitter_of_an_attempt_is_read_off_its_token():
    play = Play(graph("a", a={"retry_policy": {"backoff_sec": 10.0, "jitter": 0.5}}))
    expected = delay(backoff_sec=10.0, jitter=0.5, token=play.token("a"))
    play.fails("a")
    assert expected != 10
    assert play.record("a").next_retry_at == NOON + expected


def test_the_budget_counts_from_the_first_attempt():
    play = Play(graph("a", a={"retry_policy": {**STEADY, "max": 9, "budget_sec": 22.0}}))
    play.later(3)
    play.fails("a")
    play.later(10)
    play.fails("a")
    assert play.status("a") is NodeStatus.FAILED


def test_a_second_attempt_says_so():
    play = Play(graph("a", a={"retry_policy": STEADY}))
    play.fails("a")
    assert (NOON + 10, 0, "status", "queued", {"attempt": 2}) in play.later(10).log


def test_a_failure_for_good_has_an_end():
    play = Play(graph("a", a=ONCE))
    play.starts("a")
    step = play.fails("a")
    assert play.record("a").finished_at == NOON
    assert step.log[0][3:] == ("failed", {"reason_code": "boom", "error": "it broke"})


# ---------------------------------------------------------------- batches that are tried again


def test_announced_tries_are_remembered_for_the_next_attempt():
    play = Play(graph("a", a={"retry_policy": STEADY}))
    play.starts("a")
    play.retries("a", 1, x=1)
    play.retries("a", 2, x=2, y=1)
    play.retries("a", 1, x=1)  # a late copy of the first report
    assert play.record("a").retries == {"number": 2, "tries": {"x": 2, "y": 1}}
    play.fails("a")
    play.later(10)
    assert play.record("a").retries == {"number": 2, "tries": {"x": 2, "y": 1}}
    play.starts("a")
    play.succeeds("a")
    assert play.record("a").retries is None


def test_an_announced_try_counts_as_a_heartbeat():
    play = Play(
        graph("a", a={"retry_policy": ONCE["retry_policy"], "timeouts": {"heartbeat_sec": 10.0}})
    )
    play.starts("a")
    play.later(9)
    play.retries("a", 1, x=1)
    play.later(9)
    assert play.status("a") is NodeStatus.RUNNING
    play.later(1)
    assert play.record("a").reason_code == "heartbeat_timeout"


def test_tries_announced_by_an_earlier_attempt_count_for_nothing():
    play = Play(graph("a", a={"retry_policy": STEADY}))
    play.starts("a")
    old = play.token("a")
    play.fails("a")
    play.later(10)
    play.starts("a")
    assert play.retries("a", 5, token=old, x=2).ignored


@pytest.mark.parametrize("stop", ["cancel", "resolve"])
def test_a_node_that_was_stopped_in_a_pause_has_no_time_of_a_next_attempt(stop: str):
    play = Play(graph("a", "b", a={"retry_policy": STEADY}))
    play.fails("a")
    assert play.record("a").next_retry_at is not None
    if stop == "cancel":
        play.cancel()
    else:
        play.resolve("a", "skipped")
    assert play.status("a").terminal
    assert play.record("a").next_retry_at is None
