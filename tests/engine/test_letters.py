"""The changes that store a dead letter of a node, and those that drop one."""

import pytest

from flowkit._engine import DropLetter, KeepLetter
from flowkit.messages import NodeFailed
from flowkit.task import TaskStatus
from tests.engine.drive import FUNCTION, ONCE, STEADY, Play, graph


@pytest.mark.parametrize("end", ["fails", "stops"])
def test_the_last_attempt_of_a_node_leaves_a_letter_and_no_other_attempt_does(end: str):
    play = Play(graph("a", a={"retry_policy": {**STEADY, "max": 1}}))
    assert getattr(play, end)("a").letters == []
    play.later(10)
    assert getattr(play, end)("a").letters == [KeepLetter(0)]
    assert play.record("a").letter == 2


def test_a_function_and_a_time_limit_leave_a_letter():
    play = Play(graph("f", f={**FUNCTION, **ONCE}))
    assert play.function_fails("f").letters == [KeepLetter(0)]
    play = Play(graph("a", a={**ONCE, "timeouts": {"schedule_to_start_sec": 5}}))
    assert play.later(5).letters == [KeepLetter(0)]


def test_a_node_whose_batch_left_a_letter_leaves_none():
    play = Play(graph("a", a=ONCE))
    address = {
        "task_id": "t",
        "index": 0,
        "attempt": 1,
        "token": play.token("a"),
        "worker_id": "w",
        "started_at": play.now,
        "at": play.now,
    }
    assert (
        play.do(
            NodeFailed(**address, reason_code="boom", permanent=True, error="no", parked=True)
        ).letters
        == []
    )
    assert (play.task.status, play.record("a").letter) == (TaskStatus.FAILED, 0)


def test_a_node_that_is_cancelled_leaves_no_letter():
    play = Play(graph("a", a=ONCE))
    play.starts("a")
    assert play.cancel().letters == []
    assert play.fails("a").letters == []


def test_a_success_drops_the_letter_of_the_run_before_and_a_failure_replaces_it():
    play = Play(graph("a", a=ONCE))
    play.fails("a")
    assert play.retry().letters == []
    assert play.fails("a").letters == [DropLetter(0, 1), KeepLetter(0)]
    play.retry()
    play.starts("a")
    play.cancel()
    play.stops("a")
    assert play.record("a").letter == 2
    play.retry()
    assert play.succeeds("a").letters == [DropLetter(0, 2)]
    assert play.record("a").letter == 0


def test_only_the_retry_of_a_letter_runs_a_finished_task_again():
    play = Play(graph("a -> b", "c"))
    for name in "abc":
        play.succeeds(name)
    assert play.retry("a").ignored
    play.retry("a", fill=True)
    assert (play.marks, play.task.status) == ("q.F", TaskStatus.QUEUED)
    assert (play.record("a").generation, play.record("b").generation) == (0, 1)
