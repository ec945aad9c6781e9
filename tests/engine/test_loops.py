"""Loops: nodes that run child tasks one after the other."""

from typing import Any

import pytest

from flowkit._engine import (
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    NextRound,
    RoundChecked,
    RunChild,
    pending_effects,
    shown_child,
)
from flowkit._records.record_parts import encode_node
from flowkit._tasks.views import node_view
from flowkit.graph import Graph
from flowkit.task import NodeStatus, ParentNode, TaskStatus
from tests.engine.drive import STEADY, Play, changes, effects, graph, started

FINISHED, FAILED, RUNNING = NodeStatus.FINISHED, NodeStatus.FAILED, NodeStatus.RUNNING


def loop_graph(*lines: str, max_parallel: int | None = None, **fields: Any) -> Graph:
    inner = {"nodes": [{"node_id": "x", "type": "work"}]}
    condition = fields.pop("condition", "until")
    node = {"type": "loop", "io": {"graph": inner, condition: "true"}, **fields}
    return graph(*(lines or ["s"]), s=node, max_parallel=max_parallel)


def until(*lines: str, **fields: Any) -> Play:
    """Start a loop whose condition is checked after each round."""
    return Play(loop_graph(*lines, **fields))


def while_(*lines: str, **fields: Any) -> Play:
    """Start a loop whose condition is checked before each round."""
    return Play(loop_graph(*lines, condition="while", **fields))


# ---------------------------------------------------------------- rounds


def test_a_loop_ends_with_the_result_of_its_last_round() -> None:
    play = until("s -> b")
    for result in ("first", "second"):
        assert effects(play.goes_on("s", result)) == ["follow s"]
        assert (play.status("s"), play.record("s").result) == (RUNNING, None)
    assert started(play.child_finishes("s", "third")) == ["b"]
    assert play.record("s").result == "third"
    assert play.record("s").progress == {"rounds": 3}


def test_each_round_has_a_task_of_its_own_and_sees_the_result_before() -> None:
    play = until()
    ids, seen = [], []
    for number in range(4):
        link = play.record("s").child
        assert link is not None
        seen.append((link.iteration, link.previous, link.created))
        ids.append(shown_child(play.task, 0, play.record("s")))
        play.creates("s")
        play.goes_on("s", f"result {number}")
    assert len(set(ids)) == 4
    assert seen == [
        (0, None, False),
        (1, "result 0", False),
        (2, "result 1", False),
        (3, "result 2", False),
    ]


def test_the_record_of_a_loop_does_not_grow_with_its_rounds() -> None:
    play = until()
    sizes = set()
    for _ in range(50):
        play.goes_on("s", {"page": "next"})
        sizes.add(len(encode_node(play.record("s"))))
    assert max(sizes) - min(sizes) <= 2  # the number of the round has more digits
    play.child_finishes("s", {"page": "last"})
    link = play.record("s").child
    assert link is not None
    assert link.previous is None


def test_a_loop_that_is_checked_first_has_no_task_before_its_condition_is_true() -> None:
    play = while_()
    link = play.record("s").child
    assert link is not None
    assert (link.due, shown_child(play.task, 0, play.record("s"))) == (False, None)
    assert effects(play.checks("s", True)) == ["follow s"]
    assert shown_child(play.task, 0, play.record("s")) is not None


def test_a_loop_whose_condition_is_false_at_once_finishes_without_a_round() -> None:
    play = while_("s -> b")
    assert started(play.checks("s", False)) == ["b"]
    assert (play.record("s").result, shown_child(play.task, 0, play.record("s"))) == (None, None)


@pytest.mark.parametrize("most", [1, 3])
def test_a_loop_runs_at_most_max_iterations_rounds(most: int) -> None:
    play = until(retry_policy={"max": 5, **STEADY})
    for _ in range(most - 1):
        play.goes_on("s", most=most)
        assert play.status("s") == RUNNING
    play.goes_on("s", most=most)
    record = play.record("s")
    assert (play.status("s"), record.reason_code, record.attempt) == (FAILED, "loop_limit", 1)
    assert (
        record.error
        == f"its condition asks for another round after {most}, which is max_iterations"
    )
    assert record.progress == {"rounds": most}


def test_reports_about_an_earlier_round_are_ignored() -> None:
    play = while_()
    play.checks("s", True)
    play.goes_on("s", 1)
    record = play.record("s")
    for late in (
        ChildrenCreated([ParentNode("t", "s", 0, 0, 1, iteration=0)]),
        ChildFinished(0, 1, 7, 0),
        ChildFinished(0, 1, 7, 0, NextRound(100, 0.0)),
        ChildFailed(0, 1, "subflow_failed", "late", iteration=0),
        RoundChecked(0, 1, 0, False),
        RoundChecked(0, 1, 1, False),  # the round has begun
    ):
        assert play.do(late).ignored, late
    assert play.record("s") == record


def test_the_id_of_a_round_follows_from_its_number() -> None:
    ids = {
        ParentNode("t", "s", 0, generation, 1, iteration=iteration).child_id()
        for generation in (0, 1)
        for iteration in (None, 0, 1, 2)
    }
    assert len(ids) == 8


# ---------------------------------------------------------------- pauses between rounds


def test_a_loop_keeps_its_key_from_round_to_round_and_gives_it_back_during_a_pause() -> None:
    key = {"concurrency_key": "key"}
    inner = {"nodes": [{"node_id": "x", "type": "work"}]}
    looping = {"type": "loop", "io": {"graph": inner, "until": "true"}, **key}
    play = Play(graph("s", "k", s=looping, k=key))
    assert play.status("k") == NodeStatus.DEFERRED
    assert started(play.goes_on("s")) == []
    assert started(play.goes_on("s", delay_sec=60)) == ["k"]
    play.later(60)
    assert (play.status("k"), play.status("s")) == (NodeStatus.QUEUED, NodeStatus.DEFERRED)
    play.succeeds("k")
    assert play.status("s") == RUNNING


def test_a_pause_between_rounds_is_a_wait_that_takes_no_place_in_flight() -> None:
    play = until("s", "b", max_parallel=1)
    assert play.status("b") == NodeStatus.QUEUED
    step = play.goes_on("s", "first", delay_sec=60)
    assert (play.status("s"), started(step)) == (NodeStatus.DEFERRED, ["b"])
    record = play.record("s")
    assert record.wait is not None
    assert (record.wait.kind, record.wait.until) == ("timer", play.now + 60)
    assert play.task.wake_at is not None
    assert play.task.wake_at <= play.now + 60
    first = shown_child(play.task, 0, record)
    play.succeeds("b")
    assert play.task.status is TaskStatus.DEFERRED
    assert effects(play.later(59)) == []
    assert effects(play.later(1)) == ["follow s"]
    assert (play.status("s"), play.record("s").attempt) == (RUNNING, 1)
    assert shown_child(play.task, 0, play.record("s")) != first


def test_a_loop_that_waits_is_not_woken_before_its_time() -> None:
    play = until()
    play.goes_on("s", delay_sec=100_000)
    until_ = play.now + 100_000
    while play.status("s") == NodeStatus.DEFERRED:
        assert play.task.wake_at is not None
        play.later(play.task.wake_at - play.now)
        woken = play.now
    assert woken == until_


def test_a_condition_is_checked_again_after_a_pause() -> None:
    play = while_()
    play.checks("s", True)
    play.goes_on("s", "first", delay_sec=60)
    first = shown_child(play.task, 0, play.record("s"))
    play.later(60)
    assert pending_effects(play.task) == [RunChild(0, 1)]
    link = play.record("s").child
    assert link is not None
    assert not link.due
    play.checks("s", False)
    assert (play.status("s"), play.record("s").result) == (FINISHED, "first")
    assert shown_child(play.task, 0, play.record("s")) == first


@pytest.mark.parametrize("start", [until, while_])
def test_a_task_that_is_paused_during_a_round_begins_no_other_until_it_is_resumed(
    start: Any,
) -> None:
    play = start()
    if start is while_:
        play.checks("s", goes_on=True)
    first = node_view(play.task, 0)
    play.pause()
    assert effects(play.goes_on("s")) == []
    view = node_view(play.task, 0)
    assert (view.status, view.rounds, view.child_task_id) == (
        RUNNING,
        first.rounds,
        first.child_task_id,
    )
    assert effects(play.resume()) == ["follow s"]
    if start is while_:
        play.checks("s", goes_on=True)
    view = node_view(play.task, 0)
    assert list(view.rounds) == [0, 1]
    play.child_finishes("s", 1)
    assert play.status("s") == FINISHED


def test_a_paused_task_begins_its_next_round_when_it_is_resumed() -> None:
    play = until()
    play.goes_on("s", delay_sec=60)
    play.pause()
    assert effects(play.later(60)) == []
    assert play.status("s") == NodeStatus.QUEUED
    assert effects(play.resume()) == ["follow s"]


def test_a_cancelled_loop_ends_at_once_between_rounds() -> None:
    play = until()
    play.goes_on("s", delay_sec=60)
    play.cancel()
    assert (play.status("s"), play.task.status) == (NodeStatus.CANCELLED, TaskStatus.CANCELLED)


def test_a_loop_that_is_being_cancelled_begins_no_further_round() -> None:
    play = until()
    play.cancel()
    play.goes_on("s", delay_sec=60)
    assert (play.status("s"), play.task.status) == (NodeStatus.CANCELLED, TaskStatus.CANCELLED)
    play.retry()
    link = play.record("s").child
    assert link is not None
    assert link.iteration == 0


def test_the_time_limit_of_an_attempt_includes_the_pauses() -> None:
    play = until(timeouts={"start_to_close_sec": 100}, retry_policy={"max": 1, **STEADY})
    play.later(30)
    play.goes_on("s", "first", delay_sec=60)
    play.later(60)
    assert play.status("s") == RUNNING
    play.goes_on("s", "second", delay_sec=60)
    assert "s deferred" in changes(play.later(10))
    record = play.record("s")
    assert (record.reason_code, record.error) == (
        "start_to_close_timeout",
        "it ran longer than 100 s",
    )
    play.later(10)
    link = play.record("s").child
    assert link is not None
    assert (play.record("s").attempt, link.iteration, link.previous) == (2, 2, "second")


@pytest.mark.parametrize("start", [until, while_])
def test_the_time_limit_of_an_attempt_that_goes_on_after_a_pause_is_met_in_time(start: Any) -> None:
    play = start(timeouts={"start_to_close_sec": 4})
    if start is while_:
        play.checks("s", True)
    play.goes_on("s", "first", delay_sec=3)
    play.later(3)
    assert play.task.wake_at == play.now + 1
    play.later(1)
    link = play.record("s").child
    assert link is not None
    assert link.overdue


def test_an_overdue_loop_begins_no_further_round() -> None:
    play = until(timeouts={"start_to_close_sec": 20})
    play.later(20)
    play.goes_on("s")
    assert play.record("s").reason_code == "start_to_close_timeout"


# ---------------------------------------------------------------- retries


def test_a_retry_goes_on_in_the_round_that_failed() -> None:
    play = until("s -> b")
    play.goes_on("s", "first")
    play.creates("s")
    failed = play.record("s")
    play.child_fails("s")
    assert play.record("s").reason_code == "subflow_failed"
    play.retry()
    record = play.record("s")
    assert (record.attempt, record.generation, record.child) == (2, 0, failed.child)


@pytest.mark.parametrize("start", [until, while_])
def test_a_retry_of_a_loop_that_was_stopped_in_a_pause_begins_the_next_round(start: Any) -> None:
    play = start()
    if start is while_:
        play.checks("s", True)
    play.goes_on("s", "first", delay_sec=60)
    play.cancel()
    assert effects(play.retry()) == ["follow s"]
    link = play.record("s").child
    assert link is not None
    assert (link.iteration, link.previous, link.due) == (1, "first", start is until)


def test_a_loop_that_had_finished_begins_again_with_its_first_round() -> None:
    play = until("s -> b")
    play.goes_on("s", "first")
    play.child_finishes("s", "second")
    play.breaks("b")
    play.retry("s")
    record = play.record("s")
    assert record.child is not None
    assert (record.generation, record.child.iteration, record.child.previous) == (1, 0, None)


def test_the_checks_of_a_round_begin_with_short_pauses_again() -> None:
    play = until()
    play.later(500)
    play.goes_on("s")
    before = play.now
    assert play.task.wake_at is not None
    assert effects(play.later(play.task.wake_at - play.now)) == ["follow s"]
    assert play.now - before == 5
    assert play.task.wake_at == play.now + 10
