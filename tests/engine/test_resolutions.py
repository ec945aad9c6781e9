"""Nodes of which an operator chooses the outcome."""

from typing import Any

import pytest

from flowkit._engine import MapOpened, SendCancel, VarsOp, stop_cause
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import FUNCTION, ONCE, STEADY, Play, changes, effects, graph, started, told

INNER = {"graph": {"nodes": [{"node_id": "x", "type": "work"}]}}
SUBFLOW = {"type": "subflow", "io": INNER}
LOOP = {"type": "loop", "io": {**INNER, "until": "false"}}
OUTCOMES = ("finished", "failed", "skipped")


def running(*lines: str, **nodes: Any) -> Play:
    play = Play(graph(*(lines or ["a -> b"]), **nodes))
    play.starts("a")
    return play


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_node_that_has_not_begun_ends_at_once(outcome: str) -> None:
    play = Play(graph("p -> a", "a -> b", on_node_failure="continue"))
    step = play.resolve("a", outcome, reason="by hand")
    assert play.status("a") == outcome
    assert changes(step)[:2] == ["a resolution", f"a {outcome}"]
    assert step.log[0][4] == {"outcome": outcome, "by": "ann", "reason": "by hand"}
    assert started(step) == (["b"] if outcome == "finished" else [])
    assert play.status("b") == ("queued" if outcome == "finished" else "skipped")
    play.succeeds("p")
    assert play.record("a").attempt == 0


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_running_node_is_stopped_first(outcome: str) -> None:
    play = running()
    step = play.resolve("a", outcome, result=7 if outcome == "finished" else None)
    assert play.status("a") is NodeStatus.CANCELLING
    assert [one.reason for one in step.effects if isinstance(one, SendCancel)] == [
        f"ann resolved it as {outcome}"
    ]
    assert play.pending == ["stop a"]
    step = play.stops("a")
    assert play.status("a") == outcome
    assert started(step) == (["b"] if outcome == "finished" else [])
    assert play.record("a").result == (7 if outcome == "finished" else None)
    code = None if outcome == "finished" else "resolved"
    assert play.record("a").reason_code == code


def test_the_grace_of_a_node_that_does_not_stop_ends_it() -> None:
    play = running()
    play.resolve("a", "finished")
    assert "stop a" in effects(play.later(1))
    assert started(play.later(60)) == ["b"]


def test_a_success_before_the_stop_does_not_change_the_outcome() -> None:
    play = running()
    play.resolve("a", "finished", result="hers")
    assert started(play.succeeds("a", "its own")) == ["b"]
    assert play.record("a").result == "hers"
    assert play.succeeds("a", "again").ignored


def test_a_success_of_an_earlier_attempt_does_not_end_the_stop() -> None:
    play = running(a={"retry_policy": STEADY})
    play.fails("a")
    play.later(10)
    play.starts("a")
    play.resolve("a", "skipped")
    assert play.succeeds("a", attempt=1).ignored
    assert play.status("a") is NodeStatus.CANCELLING


@pytest.mark.parametrize("end", ["fails", "is_released", "stops"])
def test_each_end_of_the_attempt_ends_the_stop(end: str) -> None:
    play = running(a={"retry_policy": STEADY})
    play.resolve("a", "finished")
    assert started(getattr(play, end)("a")) == ["b"]


def test_a_command_that_no_worker_has_started_is_withdrawn_before_the_node_ends() -> None:
    play = Play(graph("a -> b"))
    assert effects(play.resolve("a", "finished")) == ["stop a", "withdraw a"]
    assert started(play.is_withdrawn("a")) == ["b"]
    late = play.starts("a")
    assert late.ignored
    assert effects(late) == ["stop a"]
    assert play.succeeds("a").ignored


def test_a_pause_before_the_next_attempt_ends() -> None:
    play = running(a={"retry_policy": STEADY})
    play.fails("a")
    assert started(play.resolve("a", "finished")) == ["b"]
    assert play.record("a").next_retry_at is None
    assert play.succeeds("a").ignored


@pytest.mark.parametrize(
    "node",
    [
        {"type": "sleep", "io": {"for_sec": 60}},
        {"type": "wait_signal", "io": {"signal": "go"}},
        {"type": "approval", "io": {"prompt": "Go?"}},
    ],
)
def test_a_wait_ends(node: dict[str, Any]) -> None:
    play = Play(graph("a -> b", a=node))
    assert started(play.resolve("a", "finished", result={"n": 1})) == ["b"]
    assert play.record("a").wait is None
    assert play.record("a").result == {"n": 1}


def test_the_changes_of_a_coordinator_function_are_not_made() -> None:
    play = Play(graph("f -> b", f=FUNCTION))
    play.resolve("f", "finished", result="hers")
    assert play.status("f") is NodeStatus.CANCELLING
    step = play.returns("f", None, VarsOp("incr", {"key": "x"}))
    assert started(step) == ["b"]
    assert (play.task.vars, play.record("f").result) == ({}, "hers")


# ---------------------------------------------------------------- failures


def test_a_node_resolved_as_failed_is_not_retried_and_fails_the_task() -> None:
    play = running(a={"retry_policy": STEADY})
    play.resolve("a", "failed", reason="no hope")
    step = play.stops("a")
    assert play.task.status is TaskStatus.FAILED
    assert play.task.error == "node 'a' failed: resolved: ann resolved it as failed: no hope"
    assert [type(letter).__name__ for letter in step.letters] == ["KeepLetter"]
    play.retry()
    assert play.record("a").resolution is None
    play.succeeds("a")
    assert started(play.succeeds("b")) == []
    assert play.task.status is TaskStatus.FINISHED


def test_a_branch_handles_the_failure() -> None:
    play = running("a !> fix", "a +> on")
    play.resolve("a", "failed")
    assert started(play.stops("a")) == ["fix"]
    assert play.status("on") is NodeStatus.SKIPPED


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_resolution_stands_if_the_task_is_cancelled_before_the_node_has_stopped(
    outcome: str,
) -> None:
    play = running()
    play.resolve("a", outcome)
    play.cancel("enough")
    play.stops("a")
    assert play.status("a") == outcome
    assert (play.task.status, play.task.reason) == (TaskStatus.CANCELLED, "enough")
    assert play.task.error is None


# ---------------------------------------------------------------- child tasks


@pytest.mark.parametrize("end", ["child_finishes", "child_fails"])
@pytest.mark.parametrize("node", [SUBFLOW, LOOP])
def test_a_child_task_is_stopped_and_the_node_ends_after_it(node: dict[str, Any], end: str) -> None:
    play = Play(graph("a -> b", a=node))
    assert effects(play.resolve("a", "finished", result="hers")) == ["follow a"]
    assert play.status("a") is NodeStatus.CANCELLING
    assert stop_cause(play.task, 0)[1] == "ann resolved it as finished"
    assert started(getattr(play, end)("a")) == ["b"]
    assert play.record("a").result == "hers"


def test_a_loop_between_two_rounds_ends_at_once() -> None:
    play = Play(graph("a -> b", a=LOOP))
    play.goes_on("a", delay_sec=60)
    assert started(play.resolve("a", "finished")) == ["b"]


def test_a_loop_that_goes_on_ends() -> None:
    play = Play(graph("a -> b", a=LOOP))
    play.resolve("a", "skipped")
    play.goes_on("a", delay_sec=60)
    assert (play.status("a"), play.status("b")) == (NodeStatus.SKIPPED, NodeStatus.SKIPPED)


# ---------------------------------------------------------------- maps


def mapped(*lines: str, **of_map: Any) -> Play:
    spec = {"over": [1, 2, 3], "max_parallel": 1, **of_map}
    play = Play(graph(*(lines or ["m -> b"]), m={"map": spec, **ONCE}))
    play.opens("m", 3)
    play.starts("m[0]")
    return play


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_children_of_a_map_are_stopped_and_the_map_ends_after_them(outcome: str) -> None:
    play = mapped()
    step = play.resolve("m", outcome, result=[7] if outcome == "finished" else None)
    assert play.status("m") is NodeStatus.CANCELLING
    assert effects(step) == ["stop m[0]"]
    step = play.stops("m[0]")
    assert play.status("m") == outcome
    assert not step.letters, "a map has no dead letter"
    assert started(step) == (["b"] if outcome == "finished" else [])
    assert play.record("m").result == ([7] if outcome == "finished" else None)
    assert all(play.status(f"m[{number}]") is NodeStatus.CANCELLED for number in range(3))
    assert stop_cause(play.task, play.index("m[2]")) == (
        "resolved",
        f"ann resolved it as {outcome}",
    )


def test_children_of_a_map_are_resolved_alone_before_and_after_their_start() -> None:
    play = mapped()
    play.resolve("m[1]", "finished", result="by hand")
    play.resolve("m[0]", "skipped")
    assert started(play.stops("m[0]")) == ["m[2]"]
    assert told(play.task, play.succeeds("m[2]").effects) == ["collect m"]
    assert play.record("m[1]").result == "by hand"
    assert play.status("m[0]") is NodeStatus.SKIPPED


def test_a_child_that_is_resolved_just_before_its_start_does_not_start() -> None:
    play = Play(graph("m", m={"map": {"over": [1, 2, 3]}}))
    play.do(MapOpened(0, play.record("m").attempt, 3))
    assert started(play.resolve("m[1]", "finished")) == ["m[0]", "m[2]"]


def test_a_child_that_is_resolved_as_failed_fails_its_map_unless_that_continues() -> None:
    play = mapped()
    play.resolve("m[1]", "failed")
    play.stops("m[0]")
    assert play.status("m") is NodeStatus.FAILED
    assert play.record("m").reason_code == "map_item_failed"
    play = mapped(on_item_failure="continue")
    play.resolve("m[1]", "failed")
    assert play.status("m") is NodeStatus.RUNNING


def test_a_retry_runs_skipped_children_again() -> None:
    play = mapped()
    play.resolve("m[1]", "skipped")
    play.fails("m[0]")
    assert play.status("m") is NodeStatus.FAILED
    play.retry()
    play.begins("m")
    play.succeeds("m[0]")
    assert started(play.succeeds("m[1]")) == ["m[2]"]


# ---------------------------------------------------------------- streams


def test_readers_go_on_when_the_node_that_stores_for_them_is_resolved() -> None:
    play = Play(graph("a => r"))
    play.stores_a_batch("a")
    play.starts("r")
    play.resolve("a", "finished", result="by hand")
    step = play.stops("a")
    assert effects(step) == ["tell readers of a"]
    assert play.record("a").in_batches


def test_readers_end_when_the_node_that_stores_for_them_is_skipped() -> None:
    play = Play(graph("a => r"))
    play.stores_a_batch("a")
    play.starts("r")
    play.resolve("a", "skipped")
    assert "stop r" in effects(play.stops("a"))


# ---------------------------------------------------------------- later phases


def test_a_finished_node_is_undone_with_the_result_of_the_operator() -> None:
    undo = {"type": "undo"}
    play = Play(graph("a -> b", a={"undo": undo}, b=ONCE))
    play.withdraws(play.resolve("a", "finished", result="hers"))
    assert started(play.fails("b")) == ["a~undo"]
    play = Play(graph("a -> b", a={"undo": undo}, b=ONCE))
    play.withdraws(play.resolve("a", "skipped"))
    assert play.status("a~undo") is NodeStatus.SKIPPED


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_undo_that_never_succeeds_is_resolved_and_the_next_one_runs(outcome: str) -> None:
    undo = {"type": "undo", "retry_policy": STEADY}
    play = Play(graph("a -> b", "b -> c", a={"undo": undo}, b={"undo": undo}, c=ONCE))
    for name in ("a", "b"):
        play.succeeds(name)
    assert started(play.fails("c")) == ["b~undo"]
    play.resolve("a~undo", "finished")
    play.fails("b~undo")
    play.resolve("b~undo", outcome)
    assert play.status("b~undo") == outcome
    assert play.task.status is TaskStatus.FAILED
    # What was undone runs again with a retry, also if an operator has undone it.
    play.retry()
    assert play.status("a") is NodeStatus.QUEUED


def test_a_node_of_finally_is_resolved_once_its_phase_has_begun() -> None:
    play = Play(graph("a", final=({"node_id": "tidy", "type": "tidy"},)))
    assert play.resolve("tidy", "finished").ignored
    play.succeeds("a")
    play.starts("tidy")
    play.resolve("tidy", "finished")
    play.stops("tidy")
    assert play.task.status is TaskStatus.FINISHED


# ---------------------------------------------------------------- what cannot be resolved


def test_the_first_resolution_counts_and_ended_or_stopping_nodes_ignore_it() -> None:
    play = running()
    play.resolve("a", "finished")
    assert play.resolve("a", "failed").ignored
    play.stops("a")
    assert play.resolve("a", "failed").ignored
    play.cancel()
    assert play.resolve("b", "finished").ignored


def test_in_a_paused_task_the_nodes_below_wait() -> None:
    play = Play(graph("a -> b"))
    play.pause()
    assert started(play.withdraws(play.resolve("a", "finished"))) == []
    assert started(play.resume()) == ["b"]
