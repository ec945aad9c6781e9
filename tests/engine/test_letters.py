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


def test_a_node_whose_letter_is_retried_drops_its_batches_if_its_input_is_produced_again():
    play = Play(graph("a -> b", "b -> c", a={"optional": True}, c=ONCE))
    play.succeeds("a")
    play.succeeds("b")
    play.breaks("c")
    play.retry("a", "c", fill=True)
    found = [play.record(name).generation for name in ("a", "b", "c")]
    assert found == [0, 1, 1]


def test_the_letter_of_a_child_runs_all_children_again_if_the_items_are_produced_again():
    m = {"map": {"over": [], "on_item_failure": "continue"}, **ONCE}
    play = Play(graph("a -> b", "b -> m", m=m))
    play.succeeds("a")
    play.succeeds("b")
    play.opens("m", 1)
    play.breaks("m[0]")
    play.collects("m", None)
    play.retry("a", "m[0]", fill=True)
    play.succeeds("a")
    play.succeeds("b")
    play.opens("m", 1)
    assert play.record("m[0]").generation == 1
