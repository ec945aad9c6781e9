"""Coordinator functions."""

from flowkit._engine import CallFunction, VarsOp
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import FUNCTION, NOON, STEADY, Play, changes, effects, graph, started

PATIENT = {**FUNCTION, "retry_policy": STEADY}
SET_X = VarsOp("set", {"kv": {"x": 1}})
BAD = VarsOp("incr", {"key": "x", "by": "one"})


def test_a_function_is_called_and_runs_at_once():
    play = Play(graph("f", f=FUNCTION))
    assert (play.status("f"), play.task.status, play.task.started_at) == (
        NodeStatus.RUNNING,
        TaskStatus.RUNNING,
        NOON,
    )
    assert play.pending == ["call f"]


def test_what_a_function_returns_is_the_node_s_result():
    play = Play(graph("f -> a", f=FUNCTION))
    assert started(play.returns("f", {"n": 1})) == ["a"]
    assert play.record("f").result == {"n": 1}


def test_what_a_function_does_to_the_vars_is_applied_with_its_end():
    play = Play(graph("f", f=FUNCTION))
    step = play.returns("f", None, SET_X, VarsOp("incr", {"key": "x"}))
    assert step.vars_changed
    assert play.task.vars == {"x": 2}


def test_a_function_that_returns_twice_changes_the_vars_once():
    play = Play(graph("f -> a", f=FUNCTION))
    play.returns("f", None, VarsOp("incr", {"key": "x"}))
    assert play.returns("f", None, VarsOp("incr", {"key": "x"})).ignored
    assert play.task.vars == {"x": 1}


def test_a_function_that_leaves_the_vars_alone_does_not_write_them():
    play = Play(graph("f", f=FUNCTION))
    assert not play.returns("f").vars_changed


def test_a_change_of_the_vars_that_cannot_be_made_fails_the_node_for_good():
    play = Play(graph("f", f=PATIENT))
    step = play.returns("f", None, SET_X, BAD)
    assert step.status is TaskStatus.FAILED
    assert play.record("f").reason_code == "bad_input"
    assert play.task.vars == {}


def test_a_change_that_cannot_be_made_is_no_failure_of_a_later_attempt():
    play = Play(graph("f", f=PATIENT))
    play.function_fails("f")
    assert play.returns("f", None, BAD, attempt=1).ignored
    assert play.status("f") is NodeStatus.DEFERRED


def test_a_change_that_cannot_be_made_ends_a_call_that_is_being_cancelled():
    play = Play(graph("f", f=FUNCTION))
    play.cancel()
    assert play.returns("f", None, BAD).status is TaskStatus.CANCELLED


def test_a_function_that_fails_is_called_again():
    play = Play(graph("f", f=PATIENT))
    play.function_fails("f")
    assert play.task.status is TaskStatus.DEFERRED
    step = play.later(10)
    assert step.effects == [CallFunction(0, 2)]
    assert changes(step) == ["f queued", "f running", "running"]


def test_a_function_may_fail_for_good():
    play = Play(graph("f", f=PATIENT))
    assert play.function_fails("f", permanent=True).status is TaskStatus.FAILED


def test_the_failure_of_an_earlier_call_is_not_heard():
    play = Play(graph("f", f=PATIENT))
    play.function_fails("f")
    assert play.function_fails("f", attempt=1).ignored
    play.later(10)
    assert play.function_fails("f", attempt=1).ignored


def test_an_earlier_call_that_returns_first_wins_and_the_other_is_stopped():
    play = Play(graph("f -> a", f=PATIENT))
    play.function_fails("f")
    play.later(10)
    assert effects(play.returns("f", attempt=1)) == ["stop f", "run a"]


def test_a_foreign_return_is_not_heard():
    play = Play(graph("f", f=FUNCTION))
    assert play.returns("f", token="0" * 24).ignored


def test_a_call_that_is_cancelled_may_return_after_all():
    play = Play(graph("f", f=FUNCTION))
    assert effects(play.cancel()) == ["stop f"]
    play.returns("f")
    assert play.status("f") is NodeStatus.FINISHED


def test_a_call_that_was_stopped_ends_the_cancellation():
    play = Play(graph("f", f=FUNCTION))
    play.cancel()
    assert play.stops("f").status is TaskStatus.CANCELLED


def test_the_time_a_function_begins_at_is_its_own_in_each_attempt():
    play = Play(graph("f", f=PATIENT))
    play.function_fails("f")
    play.later(10)
    assert (play.record("f").started_at, play.task.started_at) == (NOON + 10, NOON)
