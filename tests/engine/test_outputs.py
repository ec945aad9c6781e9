"""The output of a graph is evaluated when the task would finish."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from flowkit._engine import pending_effects
from flowkit._records.task_records import decode_task
from flowkit._tasks.views import full_view
from flowkit.errors import CorruptRecord
from tests.engine.drive import NOON, ONCE, Play, changes, effects, graph, record_of

OUTPUT = {"output": "${results.a}"}


def at_the_end() -> Play:
    """Return a task whose nodes have finished, and whose output is not evaluated."""
    play = Play(graph("a", **OUTPUT))
    play.succeeds("a", 3)
    return play


def delayed() -> Play:
    play = at_the_end()
    play.delays_output()
    return play


def test_a_task_finishes_with_the_value_of_its_output():
    play = Play(graph("a -> b", **OUTPUT))
    assert effects(play.succeeds("a")) == ["run b"]
    assert effects(play.succeeds("b")) == ["evaluate the output"]
    assert (play.marks, play.task.status, play.task.finished_at) == ("FF", "running", None)
    assert changes(play.output({"n": 1})) == ["finished"]
    assert full_view(play.task, {}).result == {"n": 1}
    assert (play.task.finished_at, play.task.wake_at) == (play.now, None)


def test_an_output_may_be_null():
    play = at_the_end()
    play.output(None)
    assert (play.task.status, full_view(play.task, {}).result) == ("finished", None)


def test_an_output_that_cannot_be_evaluated_fails_the_task():
    play = at_the_end()
    assert changes(play.output(error="bad_expression: no")) == ["failed"]
    assert play.task.error == "output failed: bad_expression: no"
    assert full_view(play.task, {}).result is None
    assert play.status("a") == "finished"


@pytest.mark.parametrize("end", ["fails", "is cancelled", "is late"])
def test_the_output_of_a_task_that_does_not_finish_is_not_evaluated(end: str):
    play = Play(graph("a", **OUTPUT), deadline_sec=60)
    match end:
        case "fails":
            step = play.breaks("a")
        case "is cancelled":
            step = play.cancel()
        case _:
            step = play.later(60)
    assert "evaluate the output" not in effects(step)
    assert play.task.terminal
    assert full_view(play.task, {}).result is None


def test_a_task_that_fails_in_finally_has_no_result_until_a_retry_finishes_it():
    play = Play(graph("a", final=({"node_id": "tidy", "type": "tidy", **ONCE},), **OUTPUT))
    play.succeeds("a", 3)
    play.output({"n": 1})
    play.breaks("tidy")
    assert (play.task.status, full_view(play.task, {}).result) == ("failed", None)
    play.retry()
    play.succeeds("tidy")
    assert (play.task.status, full_view(play.task, {}).result) == ("finished", {"n": 1})


@pytest.mark.parametrize("given", [at_the_end, delayed])
def test_a_task_may_be_cancelled_before_its_output_is_evaluated(given: Callable[[], Play]):
    play = given()
    since = NOON if given is delayed else None
    assert changes(play.cancel("enough")) == ["cancelled"]
    assert play.output(1, since=since).ignored
    assert (play.task.status, full_view(play.task, {}).result) == ("cancelled", None)


def test_the_deadline_ends_a_task_before_its_output_is_evaluated():
    play = Play(graph("a", **OUTPUT), deadline_sec=60)
    play.succeeds("a")
    play.delays_output()
    assert changes(play.later(60)) == ["failed"]
    assert "deadline" in (play.task.error or "")


def test_a_pause_does_not_hold_up_the_output():
    play = Play(graph("a", **OUTPUT))
    play.pause()
    assert effects(play.succeeds("a")) == ["evaluate the output"]
    assert play.task.status == "paused"
    play.output(1)
    assert (play.task.status, play.task.paused) == ("finished", False)


def test_a_delayed_output_is_to_be_evaluated_until_it_is():
    play = Play(graph("a", **OUTPUT), resend_sec=5.0)
    play.succeeds("a")
    assert play.pending == ["evaluate the output"]
    assert not play.delays_output().ignored
    assert play.delays_output().ignored
    assert play.task.wake_at == play.now + 5
    assert effects(play.later(5)) == ["evaluate the output"]
    assert play.task.wake_at == play.now + 5
    assert effects(play.later(30)) == ["evaluate the output"]
    assert play.task.wake_at == play.now + 35
    assert effects(play.later(5000)) == ["evaluate the output"]
    assert play.task.wake_at == play.now + 600
    assert play.output(1).ignored
    assert play.output(1, since=play.now).ignored
    play.output(2, since=NOON)
    assert full_view(play.task, {}).result == 2


def test_an_output_survives_a_restart():
    flow = graph("a", **OUTPUT)
    play = delayed()
    read = decode_task(record_of(play.task, flow))
    assert [type(effect).__name__ for effect in pending_effects(read)] == ["EvaluateOutput"]
    assert read.output == play.task.output
    play.output({"n": [1, None]}, since=NOON)
    assert full_view(decode_task(record_of(play.task, flow)), {}).result == {"n": [1, None]}


def test_without_an_output_a_task_whose_nodes_have_ended_must_have_ended():
    play, flow = delayed(), graph("a")
    play.task.spec = replace(play.task.spec, plan=flow.plan)
    with pytest.raises(CorruptRecord):
        decode_task(record_of(play.task, flow))


def test_a_retry_evaluates_the_output_again():
    play = at_the_end()
    play.output(error="bad_expression: no")
    step = play.retry()
    assert (effects(step), play.task.error) == (["evaluate the output"], None)
    play.output(4)
    assert (play.task.status, full_view(play.task, {}).result) == ("finished", 4)


def test_a_retry_of_a_dead_letter_replaces_the_output():
    play = at_the_end()
    play.output(1)
    assert effects(play.retry("a", fill=True)) == ["run a"]
    assert play.task.output is None
    assert effects(play.succeeds("a")) == ["evaluate the output"]


def test_an_evaluation_that_began_before_a_retry_does_not_count():
    play = delayed()
    play.cancel()
    play.now += 1
    play.retry()
    play.delays_output()
    assert play.output(1, since=NOON).ignored
    assert not play.output(2, since=play.now).ignored


def test_a_task_without_an_output_has_the_results_of_its_last_nodes():
    play = Play(graph("a"))
    assert effects(play.succeeds("a", 3)) == []
    assert (play.task.output, full_view(play.task, {}).result) == (None, {"a": 3})
