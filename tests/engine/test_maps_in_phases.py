"""Maps beside undos, in ``finally``, and in tasks that are ended by a function."""

from typing import Any

from flowkit._engine import FunctionReturned, RetryRequested, TaskEnding
from flowkit._tasks.views import node_view
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import ONCE, Play, graph, started

UNDO = {"undo": {"type": "undo"}}
FUNCTION = {"type": "coordinator_fn", "io": {"fn": "task.end", "fn_args": {"status": "finished"}}}
MAPPED: dict[str, Any] = {"node_id": "m", "type": "m", "map": {"over": []}, **ONCE}


def in_finally(size: int = 2, *, breaks: bool = False) -> Play:
    """Return a task whose map in ``finally`` has begun with children."""
    play = Play(graph("a", final=(MAPPED,), a=ONCE))
    if breaks:
        play.breaks("a")
    else:
        play.succeeds("a")
    play.opens("m", size)
    return play


def test_a_map_in_finally_runs_when_the_others_have_ended():
    play = in_finally()
    play.succeeds("m[1]")
    play.succeeds("m[0]")
    assert play.task.status is TaskStatus.RUNNING
    play.collects("m", "x", "y")
    assert play.task.status is TaskStatus.FINISHED
    assert [node_view(play.task, index).phase for index in range(4)] == [
        "main",
        *["finally"] * 3,
    ]


def test_a_map_in_finally_that_fails_makes_a_task_that_would_finish_fail():
    play = in_finally()
    play.withdraws(play.breaks("m[0]"))
    assert play.task.status is TaskStatus.FAILED
    assert play.task.error is not None
    assert "map_item_failed" in play.task.error


def test_a_forced_cancel_ends_a_map_in_finally():
    play = in_finally()
    play.starts("m[0]")
    play.withdraws(play.cancel(force=True))
    assert play.task.status is TaskStatus.CANCELLING
    play.stops("m[0]")
    assert play.status("m") is NodeStatus.CANCELLED
    assert play.task.status is TaskStatus.CANCELLED


def test_a_retry_evaluates_the_items_of_a_map_in_finally_again():
    play = in_finally(breaks=True)
    play.withdraws(play.breaks("m[1]"))
    play.retry()
    assert play.status("m") is NodeStatus.QUEUED
    play.succeeds("a")
    assert started(play.opens("m", 1)) == ["m[0]"]
    play.succeeds("m[0]")
    play.collects("m", "x")
    assert play.task.status is TaskStatus.FINISHED


def test_the_letter_of_a_child_in_finally_runs_finally_again():
    play = in_finally()
    play.withdraws(play.breaks("m[0]"))
    play.do(RetryRequested((play.index("m[0]"),)))
    play.opens("m", 1)
    play.succeeds("m[0]")
    play.collects("m", "x")
    assert play.task.status is TaskStatus.FINISHED


def test_undos_run_after_the_children_of_a_map_have_stopped():
    play = Play(graph("a -> m", "a -> b", a=UNDO, b=ONCE, m={"map": {"over": []}}))
    play.succeeds("a")
    play.opens("m", 3)
    play.starts("m[0]")
    play.starts("b")
    play.withdraws(play.breaks("b"))
    assert play.status("a~undo") is NodeStatus.QUEUED
    assert started(play.stops("m[0]")) == ["a~undo"]


def test_a_retry_gives_a_map_below_an_undone_node_new_children():
    play = Play(graph("a -> m", a=UNDO, m={"map": {"over": []}, **ONCE}))
    play.succeeds("a")
    play.opens("m", 2)
    play.succeeds("m[0]")
    play.breaks("m[1]")
    play.succeeds("a~undo")
    play.retry()
    play.succeeds("a")
    assert started(play.opens("m", 2)) == ["m[0]", "m[1]"]


def test_task_end_stops_the_children_of_a_map():
    play = Play(graph("m", "e", e=FUNCTION, m={"map": {"over": []}}))
    play.opens("m", 2)
    play.starts("m[0]")
    where = play.index("e"), 1, play.token("e")
    ending = TaskEnding(TaskStatus.FINISHED)
    play.do(FunctionReturned(*where, play.now, ending=ending))
    assert play.status("m[1]") is NodeStatus.CANCELLED
    play.stops("m[0]")
    assert play.task.status is TaskStatus.FINISHED
    view = node_view(play.task, play.index("m[1]"))
    assert (view.reason_code, view.error) == ("task_ended", "the task was ended by task.end")


def test_a_node_that_waits_starts_after_a_map_and_is_stopped_with_one():
    wait = {"type": "sleep", "io": {"for_sec": 60}}
    play = Play(graph("m -> w", w=wait, m={"map": {"over": []}}))
    play.opens("m", 0)
    assert play.status("w") is NodeStatus.DEFERRED
    play = Play(graph("m", "w", w=wait, m={"map": {"over": []}, **ONCE}))
    play.opens("m", 1)
    play.breaks("m[0]")
    assert play.status("w") is NodeStatus.CANCELLED
