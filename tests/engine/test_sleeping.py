"""Nodes that sleep: when they begin, how long they wait, and how they end."""

from itertools import pairwise
from typing import Any

import pytest

from flowkit.graph import Graph
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import NOON, Play, changes, effects, graph, started


def sleep(**fields: Any) -> dict[str, Any]:
    io = {name: fields.pop(name) for name in ("for_sec", "until") if name in fields}
    return {"type": "sleep", "io": io, **fields}


def nap(*lines: str, seconds: Any = 60, **fields: Any) -> Play:
    return Play(graph(*(lines or ["nap"]), nap=sleep(for_sec=seconds, **fields)))


def test_a_sleeping_node_is_deferred_and_finishes_when_its_time_has_come() -> None:
    play = nap("nap -> b")
    assert (play.status("nap"), play.task.status) == (NodeStatus.DEFERRED, TaskStatus.DEFERRED)
    assert play.task.wake_at == NOON + 60
    assert not play.later(59).marks
    assert started(play.later(1)) == ["b"]
    assert play.status("nap") == NodeStatus.FINISHED
    assert play.record("nap").result is None
    assert play.record("nap").started_at == NOON
    assert play.record("nap").finished_at == NOON + 60


def test_its_history_says_until_when_it_sleeps() -> None:
    play = Play(graph("p -> nap", nap=sleep(for_sec=3600)))
    step = play.succeeds("p")
    assert changes(step)[-2:] == ["nap deferred", "deferred"]
    assert step.log[-2][4] == {
        "attempt": 1,
        "waiting": "timer",
        "until": "1970-01-12T14:46:40+00:00",
    }


@pytest.mark.parametrize("io", [{"for_sec": 0}, {"until": "1970-01-12T13:46:40Z"}])
def test_a_sleep_without_time_left_ends_at_once(io: dict[str, Any]) -> None:
    play = Play(graph("a -> nap", "nap -> b", nap=sleep(**io)))
    step = play.succeeds("a")
    assert changes(step)[-3:] == ["nap finished", "b queued", "running"]
    assert started(step) == ["b"]


def test_a_chain_of_ten_thousand_sleeps_without_time_ends_in_one_event() -> None:
    names = [f"n{number}" for number in range(10_000)]
    nodes = [{"node_id": name, **sleep(for_sec=0)} for name in names]
    edges = [list(pair) for pair in pairwise(names)]
    play = Play(Graph.parse({"nodes": nodes, "edges": edges}), check=False)
    assert play.task.status is TaskStatus.FINISHED


def test_a_sleep_until_a_time_counts_in_its_zone() -> None:
    play = Play(graph("nap", nap=sleep(until="1970-01-12T15:46:40+01:00")))
    assert play.task.wake_at == NOON + 3600


def test_sleeping_nodes_take_no_place_of_the_nodes_in_flight() -> None:
    names = [f"n{number}" for number in range(5)]
    nodes = {name: sleep(for_sec=5) for name in names}
    play = Play(graph("work", *names, max_parallel=1, **nodes), max_in_flight=1)
    assert [play.status(name) for name in names] == [NodeStatus.DEFERRED] * 5
    assert play.task.status is TaskStatus.RUNNING
    play.later(5)
    assert [play.status(name) for name in names] == [NodeStatus.FINISHED] * 5


def test_no_node_begins_to_sleep_while_the_task_is_paused_and_one_that_sleeps_goes_on() -> None:
    play = Play(graph("a -> late", "early", late=sleep(for_sec=5), early=sleep(for_sec=5)))
    play.pause()
    play.succeeds("a")
    assert play.status("late") == NodeStatus.QUEUED
    play.later(5)
    assert play.status("early") == NodeStatus.FINISHED
    play.resume()
    assert play.record("late").wait.until == NOON + 10


def test_a_cancelled_task_ends_its_sleeps_at_once() -> None:
    play = nap()
    play.cancel("enough")
    assert (play.status("nap"), play.task.status) == (NodeStatus.CANCELLED, TaskStatus.CANCELLED)


def test_a_deadline_ends_a_sleep() -> None:
    play = Play(graph("nap", nap=sleep(for_sec=60)), deadline_sec=10)
    assert play.task.wake_at == NOON + 10
    play.later(10)
    assert (play.status("nap"), play.task.status) == (NodeStatus.CANCELLED, TaskStatus.FAILED)


def test_a_retried_sleep_begins_again_from_its_start() -> None:
    play = nap()
    play.later(50)
    play.cancel()
    play.retry()
    assert play.record("nap").wait.until == NOON + 110
    assert play.record("nap").attempt == 2


# ---------------------------------------------------------------- expressions


def test_its_expressions_are_evaluated_when_it_begins_and_count_from_there() -> None:
    play = nap("a -> nap", seconds="${results.a}")
    assert effects(play.succeeds("a", 60)) == ["evaluate nap"]
    assert play.pending == ["evaluate nap"]
    assert (play.status("nap"), play.record("nap").wait) == (NodeStatus.DEFERRED, None)
    play.now += 2
    play.evaluates("nap", for_sec=60)
    assert play.record("nap").wait.until == NOON + 60
    assert play.pending == []


def test_arguments_count_once_and_only_for_the_current_attempt() -> None:
    play = nap(seconds="${params.n}")
    assert play.evaluates("nap", attempt=2, for_sec=1).ignored
    play.evaluates("nap", for_sec=60)
    assert play.evaluates("nap", for_sec=1).ignored
    assert play.record("nap").wait.until == NOON + 60


def test_arguments_are_evaluated_again_if_their_coordinator_died() -> None:
    play = nap(seconds="${params.n}")
    assert play.task.wake_at == NOON + 5
    assert effects(play.later(5)) == ["evaluate nap"]
    assert play.task.wake_at == NOON + 10
    assert effects(play.later(5)) == ["evaluate nap"]
    assert play.task.wake_at == NOON + 20


def test_an_expression_that_cannot_be_evaluated_fails_the_node_permanently() -> None:
    play = nap(seconds="${params.n}")
    play.evaluates("nap", error="no such key: 'n'")
    assert (play.status("nap"), play.record("nap").reason_code) == ("failed", "bad_expression")
    assert play.task.error == "node 'nap' failed: bad_expression: no such key: 'n'"


@pytest.mark.parametrize(
    ("io", "value", "error"),
    [
        ("for_sec", "60", "io.for_sec must be a number, not '60'"),
        ("for_sec", -1, "io.for_sec must be at least 0, not -1"),
        ("for_sec", True, "io.for_sec must be a number, not True"),
        ("for_sec", None, "io.for_sec is null"),
        ("until", None, "io.until is null"),
        ("until", 3, "io.until must be a string, not 3"),
        ("until", "18:00", "io.until: '18:00' is not an ISO time with a zone, such as"),
    ],
)
def test_a_value_of_the_wrong_type_fails_the_node_permanently(
    io: str, value: Any, error: str
) -> None:
    play = Play(graph("nap", nap=sleep(**{io: "${params.n}"})))
    play.evaluates("nap", **{io: value})
    assert (play.status("nap"), play.record("nap").reason_code) == ("failed", "bad_input")
    assert play.record("nap").error.startswith(error)


# ---------------------------------------------------------------- limits and fan-in


def test_a_sleep_that_takes_longer_than_its_limit_fails_and_is_not_retried() -> None:
    play = nap(timeouts={"start_to_close_sec": 20})
    assert play.task.wake_at == NOON + 20
    play.later(20)
    assert play.record("nap").reason_code == "start_to_close_timeout"
    assert play.task.status is TaskStatus.FAILED


def test_a_sleep_is_retried_after_its_limit_as_often_as_its_policy_says() -> None:
    limits = {"timeouts": {"start_to_close_sec": 20}, "retry_policy": {"max": 1, "jitter": 0.0}}
    play = nap(**limits)
    step = play.later(20)
    assert changes(step) == ["nap deferred"]
    assert play.task.wake_at == NOON + 21
    play.later(1)
    assert (play.record("nap").attempt, play.record("nap").wait.until) == (2, NOON + 81)
    play.later(20)
    assert play.status("nap") == NodeStatus.FAILED


@pytest.mark.parametrize(("limit", "status"), [(50, "failed"), (70, "finished")])
def test_the_earlier_of_two_times_decides_when_both_have_passed(limit: int, status: str) -> None:
    play = Play(
        graph(
            "nap",
            nap=sleep(until="1970-01-12T13:47:40Z", timeouts={"start_to_close_sec": limit}),
        )
    )
    play.later(1000)
    assert play.status("nap") == status


def test_a_sleep_that_needs_one_parent_stops_the_others() -> None:
    play = Play(graph("a b -> nap", nap=sleep(for_sec=5, fan_in="any", on_satisfied="cancel")))
    play.succeeds("a")
    assert play.status("b") == NodeStatus.CANCELLED
    assert play.status("nap") == NodeStatus.DEFERRED
