"""Nodes that wait, in tasks with undos and ``finally``."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit._engine import FunctionReturned, TaskEnding
from flowkit._tasks.explanations import explain_node
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import NOON, ONCE, Play, changes, graph, started

S = TaskStatus
UNDO = {"undo": {"type": "undo"}}
NAP = {"type": "sleep", "io": {"for_sec": 60}}
WAIT = {"type": "wait_signal", "io": {"signal": "go"}}
ASK = {"type": "approval", "io": {"prompt": "Ship?"}}
LIMITED = {"timeouts": {"start_to_close_sec": 5}, "retry_policy": {"max": 1, "backoff_sec": 10.0}}

WAITS: dict[str, tuple[dict[str, Any], Callable[[Play], Any]]] = {
    "sleep": (NAP, lambda play: play.later(60)),
    "wait_signal": (WAIT, lambda play: play.signal("go", 7)),
    "approval": (ASK, lambda play: play.decide("w", "approve")),
}
"""A node of each control type, and the event that finishes it."""


@pytest.fixture(params=WAITS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def final(**fields: Any) -> tuple[dict[str, Any], ...]:
    """Return a node ``w`` of ``finally``, and one below it."""
    last = {"node_id": "last", "type": "t", "depends_on": ["w"], **ONCE}
    return ({"node_id": "w", **fields}, last)


def in_finally(*, fails: bool = False, **fields: Any) -> Play:
    """Return a task whose node of ``finally`` has begun to wait."""
    play = Play(graph("a", final=final(**fields), a=ONCE))
    if fails:
        play.breaks("a")
    else:
        play.succeeds("a")
    return play


# ---------------------------------------------------------------- undos of nodes that wait


def test_a_node_that_has_waited_is_undone_in_its_turn(kind: str) -> None:
    node, finish = WAITS[kind]
    play = Play(graph("w -> b", "b -> c", w=node | UNDO, b=UNDO, c=ONCE))
    finish(play)
    play.succeeds("b")
    assert started(play.breaks("c")) == ["b~undo"]
    assert started(play.succeeds("b~undo")) == ["w~undo"]
    play.succeeds("w~undo")
    assert play.task.status is S.FAILED


def test_a_sleep_without_time_left_is_undone_too() -> None:
    nap = {"type": "sleep", "io": {"for_sec": 0}, **UNDO}
    play = Play(graph("a -> nap", "nap -> b", nap=nap, b=ONCE))
    play.succeeds("a")
    assert started(play.breaks("b")) == ["nap~undo"]


def test_a_retry_lets_an_undone_node_wait_again(kind: str) -> None:
    node, finish = WAITS[kind]
    play = Play(graph("w -> c", w=node | UNDO, c=ONCE))
    finish(play)
    play.breaks("c")
    play.succeeds("w~undo")
    play.retry()
    assert (play.status("w"), play.task.status) == (NodeStatus.DEFERRED, S.DEFERRED)
    assert started(finish(play)) == ["c"]


# ---------------------------------------------------------------- ends of the main phase

ENDS: dict[str, tuple[Callable[[Play], Any], TaskStatus, str]] = {
    "a cancel": (lambda play: play.cancel("enough"), S.CANCELLED, "cancelled"),
    "a failure": (lambda play: play.breaks("b"), S.FAILED, "task_failed"),
    "the deadline": (lambda play: play.later(100), S.FAILED, "deadline_exceeded"),
    "task.end": (
        lambda play: play.do(
            FunctionReturned(
                play.index("e"), 1, play.token("e"), play.now, ending=TaskEnding(S.FINISHED)
            )
        ),
        S.FINISHED,
        "task_ended",
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_end_of_the_main_phase_ends_a_wait_at_once_and_skips_its_undo(
    end: str, kind: str
) -> None:
    act, status, reason_code = ENDS[end]
    node = {**WAITS[kind][0], **UNDO}
    if kind == "sleep":
        node["io"] = {"for_sec": 1e6}
    finished = {"status": "finished"}
    ending = {"type": "coordinator_fn", "io": {"fn": "task.end", "fn_args": finished}}
    tidy = {"node_id": "tidy", "type": "tidy"}
    flow = graph("w", "b", "e", w=node, b=ONCE, e=ending, final=(tidy,))
    play = Play(flow, deadline_sec=100)
    step = play.withdraws(act(play))
    if play.status("e") == NodeStatus.CANCELLING:
        step = play.do(FunctionReturned(play.index("e"), 1, play.token("e"), play.now))
    assert (play.status("w"), play.record("w").reason_code) == (NodeStatus.CANCELLED, reason_code)
    assert play.status("w~undo") == NodeStatus.SKIPPED
    assert started(step) == ["tidy"]
    play.succeeds("tidy")
    assert play.task.status is status


# ---------------------------------------------------------------- waits in finally


@pytest.mark.parametrize(
    ("fails", "meanwhile", "status"),
    [(False, S.DEFERRED, S.FINISHED), (True, S.CANCELLING, S.FAILED)],
)
def test_nodes_of_finally_wait(
    kind: str, fails: bool, meanwhile: TaskStatus, status: TaskStatus
) -> None:
    node, finish = WAITS[kind]
    play = in_finally(fails=fails, **node)
    assert (play.status("w"), play.task.status) == (NodeStatus.DEFERRED, meanwhile)
    assert started(finish(play)) == ["last"]
    play.succeeds("last")
    assert play.task.status is status


def test_a_wait_in_finally_does_not_begin_before_its_phase(kind: str) -> None:
    play = Play(graph("a", a=UNDO, final=final(**WAITS[kind][0])))
    play.pause()
    assert play.status("w") == NodeStatus.QUEUED
    play.succeeds("a")
    assert play.status("w") == NodeStatus.DEFERRED  # the end of the main phase ends a pause


def test_sleeps_of_finally_without_time_left_end_the_task_in_one_event() -> None:
    nap = {"type": "sleep", "io": {"for_sec": 0}}
    nodes = ({"node_id": "x", **nap}, {"node_id": "y", "depends_on": ["x"], **nap})
    play = Play(graph("a", final=nodes))
    play.starts("a")
    step = play.succeeds("a")
    assert changes(step) == ["a finished", "x finished", "y finished", "finished"]


@pytest.mark.parametrize("event", ["cancel", "pause", "resume", "retry"])
def test_a_wait_in_finally_is_not_touched_by(event: str, kind: str) -> None:
    node, finish = WAITS[kind]
    play = in_finally(**node)
    assert getattr(play, event)().ignored
    assert started(finish(play)) == ["last"]


def test_a_wait_in_finally_is_not_touched_by_the_deadline() -> None:
    play = Play(graph("a", final=final(**NAP)), deadline_sec=5)
    play.succeeds("a")
    assert not play.later(10).marks
    assert started(play.later(50)) == ["last"]


@pytest.mark.parametrize(("fails", "status"), [(False, S.CANCELLED), (True, S.FAILED)])
def test_a_forced_cancel_ends_a_wait_in_finally(kind: str, fails: bool, status: TaskStatus) -> None:
    play = in_finally(fails=fails, **WAITS[kind][0])
    play.cancel("enough", force=True)
    assert [play.status(name) for name in ("w", "last")] == ["cancelled", "cancelled"]
    assert (play.task.status, play.task.wake_at) == (status, None)


def test_a_wait_in_finally_that_takes_too_long_is_tried_again_and_then_fails_the_task() -> None:
    play = in_finally(**(NAP | LIMITED))
    play.later(5)
    assert (play.status("w"), play.task.status) == (NodeStatus.DEFERRED, S.DEFERRED)
    play.later(20)
    play.later(5)
    assert (play.status("w"), play.status("last")) == ("failed", "skipped")
    assert play.task.status is S.FAILED
    assert play.task.error == ("node 'w' failed: start_to_close_timeout: it ran longer than 5 s")


def test_a_rejection_in_finally_fails_the_task_and_undoes_nothing() -> None:
    play = Play(graph("a", a=UNDO, final=final(**ASK)))
    play.succeeds("a")
    play.decide("w", "reject")
    assert (play.status("a~undo"), play.task.status) == (NodeStatus.SKIPPED, S.FAILED)


def test_a_retry_after_a_rejection_in_finally_asks_again_and_runs_nothing_else() -> None:
    play = in_finally(**ASK)
    play.decide("w", "reject")
    assert started(play.retry()) == []
    assert (play.status("w"), play.task.status) == (NodeStatus.DEFERRED, S.DEFERRED)
    play.decide("w", "approve")
    play.succeeds("last")
    assert (play.task.status, play.record("a").attempt) == (S.FINISHED, 1)


def test_the_retry_of_a_dead_letter_of_finally_lets_it_wait_again() -> None:
    play = in_finally(fails=True, **ASK)
    play.decide("w", "reject")
    play.retry("w", fill=True)
    assert (play.status("w"), play.task.status) == (NodeStatus.DEFERRED, S.CANCELLING)


# ---------------------------------------------------------------- signals in finally


def test_a_signal_that_came_before_finally_is_kept_for_it() -> None:
    play = Play(graph("a", final=final(**WAIT)))
    play.signal("go", 1)
    assert started(play.succeeds("a")) == ["last"]
    assert play.record("w").result == 1


def test_a_signal_that_no_node_took_before_a_cancel_goes_to_finally() -> None:
    play = Play(graph("a -> v", v=WAIT, final=final(**WAIT)))
    play.signal("go", 1)
    assert started(play.withdraws(play.cancel())) == ["last"]
    assert play.record("w").result == 1


def test_a_signal_in_finally_for_a_node_of_the_main_phase_is_kept() -> None:
    play = Play(graph("a -> v", v=WAIT, final=final(**NAP)))
    play.cancel()
    assert not play.signal("go", 1).ignored
    assert [signal.payload for signal in play.task.signals.kept] == [1]


# ---------------------------------------------------------------- explanations


@pytest.mark.parametrize("fails", [False, True])
def test_a_wait_in_finally_is_explained(fails: bool) -> None:
    play = in_finally(fails=fails, **ASK)
    index = play.index("w")
    said = explain_node(play.task, index, play.task.records, now=NOON)
    assert said == (
        "'w' waits for a decision since 1970-01-12T13:46:40+00:00. `flowkit decide t w CHOICE`"
        " makes it: 'approve', 'reject'."
    )
