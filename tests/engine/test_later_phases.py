"""Effect of each event while undos, or the nodes of ``finally``, run."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit._engine import FunctionReturned, TaskEnding
from flowkit._records.task_records import decode_task
from flowkit._tasks.explanations import explain_node
from flowkit.task import TaskOutput, TaskStatus
from tests.engine.drive import NOON, ONCE, STEADY, Play, effects, graph, record_of, started

UNDO = {"undo": {"type": "undo", "retry_policy": {"max": 1, **STEADY}}}
TIDY: tuple[dict[str, Any], ...] = ({"node_id": "tidy", "type": "tidy", **ONCE},)
S = TaskStatus


def saga(*, deadline_sec: float | None = None, final: tuple[dict[str, Any], ...] = TIDY) -> Play:
    """Return a task whose first two nodes have finished; the third one is issued."""
    flow = graph("a -> b", "b -> c", final=final, a=UNDO, b=UNDO, c=ONCE)
    play = Play(flow, deadline_sec=deadline_sec)
    play.succeeds("a")
    play.succeeds("b")
    return play


def in_undo(**options: Any) -> Play:
    """Return a failed task whose first undo is issued."""
    play = saga(**options)
    play.breaks("c")
    return play


def in_finally(**options: Any) -> Play:
    """Return a failed task whose undos have ended; the node of ``finally`` is issued."""
    play = in_undo(**options)
    play.succeeds("b~undo")
    play.succeeds("a~undo")
    return play


def in_finally_after_success(**options: Any) -> Play:
    play = saga(**options)
    play.succeeds("c")
    return play


def statuses(play: Play) -> str:
    return " ".join(play.status(node_id) for node_id in play.task.spec.plan.ids)


# ---------------------------------------------------------------- order


def test_undos_run_one_at_a_time_the_node_that_ended_last_first_and_then_finally():
    play = saga()
    assert started(play.breaks("c")) == ["b~undo"]
    assert play.task.status is S.CANCELLING
    assert started(play.succeeds("b~undo")) == ["a~undo"]
    assert started(play.succeeds("a~undo")) == ["tidy"]
    assert play.task.status is S.CANCELLING
    play.succeeds("tidy")
    assert play.task.status is S.FAILED


def test_the_order_of_undos_is_that_of_the_ends_and_not_that_of_the_graph():
    play = Play(graph("a b c d -> e", a=UNDO, b=UNDO, c=UNDO, d=UNDO))
    for name in ("c", "a", "d", "b"):
        play.now -= 1  # the clocks of workers do not count
        play.succeeds(name)
    order = started(play.breaks("e"))
    while play.task.status is S.CANCELLING:
        order += started(play.succeeds(order[-1]))
    assert order == ["b~undo", "d~undo", "a~undo", "c~undo"]


def test_an_undo_that_is_to_be_retried_holds_back_the_others():
    play = in_undo()
    assert started(play.fails("b~undo")) == []
    assert play.status("b~undo") == "deferred"
    assert play.task.status is S.CANCELLING
    assert started(play.later(10)) == ["b~undo"]


def test_an_undo_that_is_handed_back_goes_on_first():
    play = in_undo()
    play.starts("b~undo")
    assert started(play.is_released("b~undo")) == ["b~undo"]


def test_the_undo_of_a_node_that_did_not_finish_is_skipped():
    play = Play(graph("a", "b", a=UNDO, b=UNDO))
    play.succeeds("a")
    play.starts("b")
    play.cancel()
    play.stops("b")
    assert statuses(play) == "finished cancelled queued skipped"


def test_a_node_that_finishes_while_the_task_is_stopped_is_undone():
    play = Play(graph("a", "b", a=UNDO, b=UNDO))
    play.starts("a")
    play.breaks("b")
    assert started(play.succeeds("a")) == ["a~undo"]


def test_nothing_is_undone_in_a_task_that_finishes():
    play = in_finally_after_success()
    assert statuses(play) == "finished finished finished queued skipped skipped"
    assert play.task.status is S.RUNNING
    play.succeeds("tidy")
    assert play.task.status is S.FINISHED


def test_finally_runs_when_no_node_has_begun():
    play = Play(graph("a", final=TIDY))
    play.pause()
    assert started(play.withdraws(play.cancel())) == ["tidy"]
    play.succeeds("tidy")
    assert play.task.status is S.CANCELLED


def test_finally_waits_until_no_worker_can_begin_a_node_that_was_stopped():
    play = Play(graph("a", final=TIDY))
    assert effects(play.cancel()) == ["stop a", "withdraw a"]
    assert effects(play.starts("a")) == ["stop a"]
    assert started(play.stops("a")) == ["tidy"]


def test_finally_waits_for_the_withdrawal_of_a_command_until_the_grace_is_over():
    play = Play(graph("a", final=TIDY))
    play.cancel()
    assert effects(play.later(1)) == ["stop a", "withdraw a"]
    assert started(play.later(10)) == ["tidy"]


def test_the_end_of_the_main_phase_ends_a_pause():
    play = saga()
    play.pause()
    assert started(play.succeeds("c")) == ["tidy"]
    assert play.task.status is S.RUNNING


def test_finally_is_a_graph_of_its_own():
    final = (
        {"node_id": "x", "type": "t", **ONCE},
        {"node_id": "y", "type": "t", "depends_on": ["x"]},
        {"node_id": "z", "type": "t"},
    )
    play = in_finally_after_success(final=final)
    assert [play.status(name) for name in "xyz"] == ["queued"] * 3
    play.breaks("x")
    assert [play.status(name) for name in "xyz"] == ["failed", "skipped", "queued"]
    play.succeeds("z")
    assert play.task.status is S.FAILED


# ---------------------------------------------------------------- events in each phase

Given = Callable[..., Play]
Act = Callable[[Play], Any]
PHASES: dict[str, tuple[Given, TaskStatus]] = {
    "undo": (in_undo, S.FAILED),
    "finally": (in_finally, S.FAILED),
    "finally after success": (in_finally_after_success, S.FINISHED),
}
WITHOUT_EFFECT: dict[str, Act] = {
    "cancel": lambda play: play.cancel("enough"),
    "pause": lambda play: play.pause(),
    "resume": lambda play: play.resume(),
    "retry": lambda play: play.retry(),
}


def finish(play: Play) -> None:
    for name in ("b~undo", "a~undo", "tidy"):
        if not play.status(name).terminal:
            play.succeeds(name)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("event", WITHOUT_EFFECT)
def test_undos_and_finally_are_not_touched_by(event: str, phase: str):
    given, end = PHASES[phase]
    play = given()
    before = play.marks
    assert WITHOUT_EFFECT[event](play).ignored
    assert play.marks == before
    finish(play)
    assert play.task.status is end


@pytest.mark.parametrize("phase", PHASES)
def test_undos_and_finally_are_not_touched_by_the_deadline(phase: str):
    given, end = PHASES[phase]
    play = given(deadline_sec=5)
    play.later(6)
    finish(play)
    assert play.task.status is end


def test_undos_and_finally_run_after_the_deadline():
    play = saga(deadline_sec=5)
    assert started(play.withdraws(play.later(6))) == ["b~undo"]
    finish(play)
    assert (play.task.status, play.task.error) == (S.FAILED, "the task's deadline passed")


FORCED: dict[str, tuple[Given, str, TaskStatus]] = {
    "main": (saga, "finished finished cancelled cancelled cancelled cancelled", S.CANCELLED),
    "undo": (in_undo, "finished finished failed cancelled cancelled cancelled", S.FAILED),
    "finally": (in_finally, "finished finished failed cancelled finished finished", S.FAILED),
    "finally after success": (
        in_finally_after_success,
        "finished finished finished cancelled skipped skipped",
        S.CANCELLED,
    ),
}


@pytest.mark.parametrize("phase", FORCED)
def test_a_forced_cancel_ends_undos_and_finally(phase: str):
    given, nodes, end = FORCED[phase]
    play = given()
    play.withdraws(play.cancel("enough", force=True))
    assert (statuses(play), play.task.status) == (nodes, end)


def test_a_forced_cancel_asks_running_undos_to_stop_once():
    play = in_undo()
    play.starts("b~undo")
    play.cancel("enough", force=True)
    assert play.status("b~undo") == "cancelling"
    assert play.cancel("enough", force=True).ignored
    play.stops("b~undo")
    assert play.task.status is S.FAILED


def test_a_forced_cancel_of_a_task_that_is_being_stopped_skips_its_later_phases():
    play = saga()
    play.starts("c")
    play.cancel("first")
    play.cancel(force=True)
    play.stops("c")
    assert statuses(play) == "finished finished cancelled cancelled cancelled cancelled"
    assert (play.task.status, play.task.reason) == (S.CANCELLED, "first")


# ---------------------------------------------------------------- failures in each phase


def test_an_undo_that_fails_leaves_a_dead_letter_and_the_others_go_on():
    play = in_undo()
    play.fails("b~undo")
    play.later(10)
    step = play.fails("b~undo")
    assert started(step) == ["a~undo"]
    assert len(step.letters) == 1
    finish(play)
    assert play.task.status is S.FAILED
    assert play.task.error == "node 'c' failed: boom: it broke"


def test_a_node_of_finally_that_fails_makes_a_task_that_would_finish_fail_without_undo():
    play = in_finally_after_success()
    play.breaks("tidy")
    assert statuses(play) == "finished finished finished failed skipped skipped"
    assert play.task.status is S.FAILED
    assert play.task.error == "node 'tidy' failed: boom: it broke"


def test_a_failed_task_keeps_its_error_when_finally_fails():
    play = in_finally()
    play.breaks("tidy")
    assert play.task.error == "node 'c' failed: boom: it broke"


def test_a_cancelled_task_stays_cancelled_when_finally_fails():
    play = Play(graph("a", final=TIDY))
    play.withdraws(play.cancel())
    play.breaks("tidy")
    assert (play.task.status, play.task.error) == (S.CANCELLED, None)


# ---------------------------------------------------------------- retries


def test_a_retry_runs_undone_nodes_and_all_below_them_again_and_finally_at_the_end():
    play = in_finally()
    play.succeeds("tidy")
    assert started(play.retry()) == ["a"]
    assert statuses(play) == " ".join(["queued"] * 6)
    play.succeeds("a")
    play.succeeds("b")
    assert started(play.succeeds("c")) == ["tidy"]
    play.succeeds("tidy")
    assert play.task.status is S.FINISHED


def test_a_retry_keeps_nodes_whose_undo_has_not_begun():
    play = in_undo()
    play.withdraws(play.cancel(force=True))
    assert started(play.retry()) == ["b"]  # the undo of a waited for that of b
    play.succeeds("b")
    order = started(play.breaks("c"))
    order += started(play.succeeds("b~undo"))
    assert order == ["b~undo", "a~undo"]


def test_an_undo_that_was_handed_back_has_begun():
    play = in_undo()
    play.starts("b~undo")
    play.is_released("b~undo")
    play.withdraws(play.cancel(force=True))
    assert started(play.retry()) == ["b"]


def test_a_retry_after_a_failure_in_finally_runs_finally_again_and_nothing_else():
    play = in_finally_after_success()
    play.breaks("tidy")
    assert started(play.retry()) == ["tidy"]
    play.succeeds("tidy")
    assert (play.task.status, play.task.error) == (S.FINISHED, None)
    assert play.record("a").attempt == 1


def test_the_retry_of_the_dead_letter_of_an_undo_runs_it_and_finally_again():
    play = in_undo()
    play.fails("b~undo")
    play.later(10)
    play.fails("b~undo")
    finish(play)
    assert started(play.retry("b~undo", fill=True)) == ["b~undo"]
    assert play.task.status is S.CANCELLING
    step = play.succeeds("b~undo")
    assert started(step) == ["tidy"]
    assert len(step.letters) == 1  # the letter is dropped
    play.succeeds("tidy")
    assert play.task.status is S.FAILED
    assert play.record("a").attempt == 1


def test_a_retry_drops_the_dead_letters_of_undos_whose_nodes_run_again():
    play = in_undo()
    play.breaks("b~undo")
    letter = play.record("b~undo").letter
    play.succeeds("a~undo")
    play.succeeds("tidy")
    dropped = play.retry().letters
    assert [(one.index, one.attempt) for one in dropped] == [(play.index("b~undo"), letter)]
    assert play.record("b~undo").letter == 0


# ---------------------------------------------------------------- explanations

EXPLAINED: dict[str, tuple[Given, str, str]] = {
    "an undo before its phase": (
        saga,
        "a~undo",
        "'a~undo' waits for the end of the task: it runs if the task fails or is cancelled.",
    ),
    "finally before its phase": (
        saga,
        "tidy",
        "'tidy' waits for the end of all other nodes: it is in finally.",
    ),
    "an undo that waits": (
        in_undo,
        "a~undo",
        (
            "'a~undo' waits until the undos of the nodes that ended later have ended: undos run one"
            " at a time."
        ),
    ),
    "an undo that is not needed": (
        in_finally_after_success,
        "a~undo",
        "'a~undo' was skipped: the task did not fail, so nothing is undone.",
    ),
}


@pytest.mark.parametrize("case", EXPLAINED)
def test_it_is_explained(case: str):
    given, name, said = EXPLAINED[case]
    play = given()
    index = play.index(name)
    assert explain_node(play.task, index, play.task.records, now=NOON) == said


def test_the_result_that_ended_a_task_is_stored_as_such():
    call = {"fn": "task.end", "fn_args": {"status": "finished"}}
    flow = graph("a", a={"type": "coordinator_fn", "io": call}, output="${vars.x}")
    play = Play(flow)
    where = play.task.spec.token(0, 1, 0)
    play.do(FunctionReturned(0, 1, where, play.now, 7, ending=TaskEnding(S.FAILED)))
    stored = decode_task(record_of(play.task, flow))
    assert (play.task.status, stored.output) == (S.FAILED, TaskOutput(value=7, ended=True))


def test_a_retry_of_a_node_that_cannot_start_leaves_a_task_finished_that_task_end_ended():
    call = {"type": "coordinator_fn", "io": {"fn": "task.end", "fn_args": {"status": "finished"}}}
    play = Play(
        graph("a -> b", "a -> c", "e", e=call, c={"fan_in": "ended"}, on_node_failure="continue")
    )
    play.breaks("a")
    play.breaks("c")
    where = play.index("e"), 1, play.token("e")
    play.do(FunctionReturned(*where, play.now, ending=TaskEnding(S.FINISHED)))
    assert play.task.status is S.FINISHED
    assert play.retry("b", fill=True).ignored
    assert play.task.status is S.FINISHED
    assert started(play.retry("a", "b", fill=True)) == ["a"]


def test_a_node_that_ended_the_task_stays_finished_when_a_later_run_ends_badly():
    call = {"type": "coordinator_fn", "io": {"fn": "task.end", "fn_args": {"status": "finished"}}}
    play = Play(graph("a", "e", a=ONCE, e=call, on_node_failure="continue"))
    play.breaks("a")
    where = play.index("e"), 1, play.token("e")
    play.do(FunctionReturned(*where, play.now, ending=TaskEnding(S.FINISHED)))
    play.retry("a", fill=True)
    play.breaks("a")
    assert play.task.status is S.FAILED
    assert started(play.retry()) == ["a"]


def test_an_undone_node_whose_letter_is_retried_drops_its_batches():
    play = Play(graph("a -> b", a={"undo": {"type": "undo"}}, b=ONCE))
    play.succeeds("a")
    play.breaks("b")
    play.succeeds("a~undo")
    play.retry("a", "b", fill=True)
    assert play.record("a").generation == 1
