"""Pauses that end early: before the next attempt, a sleep, and between the rounds of a loop."""

import pytest

from flowkit.task import NodeStatus
from tests.engine.drive import FUNCTION, NOON, STEADY, Play, changes, effects, graph, started

NAP = {"type": "sleep", "io": {"for_sec": 60}}
LOOP = {
    "type": "loop",
    "io": {"graph": {"nodes": [{"node_id": "x", "type": "work"}]}, "until": "false"},
}


def test_the_next_attempt_starts_at_once() -> None:
    play = Play(graph("a", a={"retry_policy": STEADY}))
    play.fails("a")
    step = play.runs_now("a")
    assert started(step) == ["a"]
    assert changes(step) == ["a queued", "a queued", "running"]
    assert step.log[0][4] == {"run_now": True}
    assert play.record("a").attempt == 2
    assert play.record("a").next_retry_at is None
    assert not play.later(10).marks


def test_a_function_and_a_control_node_start_their_next_attempt_at_once() -> None:
    play = Play(graph("f", f={**FUNCTION, "retry_policy": STEADY}))
    play.function_fails("f")
    assert started(play.runs_now("f")) == ["f"]
    limit = {"timeouts": {"start_to_close_sec": 5}, "retry_policy": {"max": 1, "backoff_sec": 30}}
    play = Play(graph("nap", nap={**NAP, **limit}))
    play.later(5)
    step = play.runs_now("nap")
    assert play.status("nap") is NodeStatus.DEFERRED
    assert play.record("nap").attempt == 2
    assert changes(step) == ["nap queued", "nap deferred"]


def test_a_sleep_finishes_at_once() -> None:
    play = Play(graph("nap -> b", nap=NAP))
    step = play.runs_now("nap")
    assert started(step) == ["b"]
    assert play.record("nap").finished_at == NOON
    assert step.log[0][3:] == ("finished", {"run_now": True})


def test_the_next_round_of_a_loop_starts_at_once() -> None:
    play = Play(graph("l", l=LOOP))
    play.goes_on("l", delay_sec=60)
    assert play.status("l") is NodeStatus.DEFERRED
    step = play.runs_now("l")
    assert effects(step) == ["follow l"]
    assert play.status("l") is NodeStatus.RUNNING


def test_the_event_does_not_end_a_later_pause() -> None:
    play = Play(graph("l", l=LOOP))
    play.goes_on("l", delay_sec=60)
    until = play.record("l").wait.until  # type: ignore[union-attr]
    play.runs_now("l")
    play.now += 1
    play.goes_on("l", delay_sec=60)
    assert play.runs_now("l", until=until).ignored
    assert play.status("l") is NodeStatus.DEFERRED


def test_in_a_paused_task_a_sleep_finishes_and_an_attempt_waits() -> None:
    play = Play(graph("a", "nap -> b", a={"retry_policy": STEADY}, nap=NAP))
    play.fails("a")
    play.pause()
    assert started(play.runs_now("a")) == started(play.runs_now("nap")) == []
    assert play.status("nap") is NodeStatus.FINISHED
    assert started(play.resume()) == ["a", "b"]


def test_the_child_of_a_map_and_an_undo_are_run_at_once() -> None:
    play = Play(graph("m", m={"map": {"over": [1]}, "retry_policy": STEADY}))
    play.opens("m", 1)
    play.fails("m[0]")
    assert started(play.runs_now("m[0]")) == ["m[0]"]
    undo = {"type": "work", "retry_policy": STEADY}
    play = Play(graph("a -> b", a={"undo": undo}, b={"retry_policy": {"max": 0}}))
    play.succeeds("a")
    play.fails("b")
    play.fails("a~undo")
    assert started(play.runs_now("a~undo")) == ["a~undo"]


@pytest.mark.parametrize("node", [{"type": "wait_signal", "io": {"signal": "go"}}, {}])
def test_a_node_without_a_pause_ignores_it(node: dict[str, object]) -> None:
    play = Play(graph("a", a=node))
    assert play.runs_now("a", until=NOON).ignored
