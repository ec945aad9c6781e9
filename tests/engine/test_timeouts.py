"""What the passing of time does."""

from typing import Any

import pytest

from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import FUNCTION, NOON, STEADY, Play, changes, effects, graph, started


def limited(**timeouts: float) -> Play:
    policy: dict[str, Any] = {"max": 0}
    return Play(graph("a", a={"timeouts": timeouts, "retry_policy": policy}))


def test_a_command_that_nobody_begins_in_time_has_failed():
    play = limited(schedule_to_start_sec=60.0)
    play.sent(("a", 1))
    play.later(5)
    assert play.task.wake_at == NOON + 60
    play.later(54)
    assert play.status("a") is NodeStatus.QUEUED
    step = play.later(1)
    assert effects(step) == []
    assert play.record("a").reason_code == "schedule_to_start_timeout"
    assert play.task.error == "node 'a' failed: schedule_to_start_timeout: no worker began it within 60 s"


def test_a_command_that_was_sent_is_not_timed_without_a_limit():
    play = Play(graph("a"))
    play.sent(("a", 1))
    play.later(5)
    assert play.task.wake_at is None
    play.later(10**9)
    assert play.status("a") is NodeStatus.QUEUED


def test_a_run_that_takes_too_long_is_stopped_and_has_failed():
    play = limited(start_to_close_sec=60.0)
    play.later(100)
    play.starts("a")
    play.later(59)
    assert play.status("a") is NodeStatus.RUNNING
    assert play.task.wake_at == NOON + 160
    step = play.later(1)
    assert effects(step) == ["stop a"]
    assert play.record("a").reason_code == "start_to_close_timeout"
    assert play.task.status is TaskStatus.FAILED


def test_progress_does_not_prolong_a_run():
    play = limited(start_to_close_sec=60.0)
    play.starts("a")
    play.now += 59
    play.progresses("a")
    assert play.later(1).status is TaskStatus.FAILED


def test_a_run_without_a_heartbeat_has_failed():
    play = limited(heartbeat_sec=10.0)
    play.starts("a")
    play.now += 9
    play.progresses("a")
    play.later(9.9)
    assert play.status("a") is NodeStatus.RUNNING
    assert play.task.wake_at == NOON + 19
    assert effects(play.later(0.1)) == ["stop a"]
    assert play.record("a").reason_code == "heartbeat_timeout"


def test_a_batch_is_a_heartbeat():
    play = limited(heartbeat_sec=10.0)
    play.starts("a")
    for _ in range(2):
        play.now += 9
        play.stores_a_batch("a")
    play.later(9)
    assert play.status("a") is NodeStatus.RUNNING


def test_time_outs_hold_though_the_report_of_the_start_was_lost():
    play = limited(heartbeat_sec=3.0)
    play.progresses("a")
    assert play.task.wake_at == NOON + 3


def test_an_attempt_that_timed_out_is_tried_again():
    play = Play(graph("a", a={"timeouts": {"start_to_close_sec": 5.0}, "retry_policy": STEADY}))
    old = play.token("a")
    play.starts("a")
    play.later(5)
    assert play.task.status is TaskStatus.DEFERRED
    assert started(play.later(10)) == ["a"]
    assert play.fails("a", attempt=1, token=old).ignored
    assert not play.succeeds("a", attempt=1, token=old).ignored


def test_the_time_of_a_second_attempt_begins_anew():
    play = Play(graph("a", a={"timeouts": {"start_to_close_sec": 50.0, "schedule_to_start_sec": 50.0}, "retry_policy": STEADY}))
    play.starts("a")
    play.later(50)
    play.later(10)
    play.later(49)
    assert play.marks == "q"
    play.starts("a")
    play.later(49)
    assert play.marks == "u"


def test_a_worker_that_is_silent_for_its_lease_is_lost():
    play = Play(graph("a", a={"retry_policy": STEADY}), lease_ttl_sec=20, worker_lost_sec=20)
    play.starts("a", worker="w")
    play.later(20, silent={"w": 19.9, "other": 99})
    assert play.status("a") is NodeStatus.RUNNING
    step = play.later(1, silent={"w": 20})
    assert effects(step) == ["stop a"]
    assert (play.record("a").reason_code, play.record("a").error) == ("worker_lost", "worker 'w' was silent for 20 s")


def test_a_worker_is_never_lost_earlier_than_workers_are():
    play = Play(graph("a"), lease_ttl_sec=5, worker_lost_sec=30)
    play.starts("a")
    play.later(20, silent={"w": 29})
    assert play.status("a") is NodeStatus.RUNNING


def test_leases_double_with_each_attempt():
    play = Play(graph("a", a={"retry_policy": {**STEADY, "max": 20}}), lease_ttl_sec=20, worker_lost_sec=20)
    for attempt in range(1, 14):
        patience = 20 * 2 ** min(attempt - 1, 10)
        play.starts("a")
        play.later(1, silent={"w": patience - 1})
        assert play.status("a") is NodeStatus.RUNNING
        play.later(1, silent={"w": patience})
        assert play.status("a") is NodeStatus.DEFERRED
        play.later(10)


def test_somebody_looks_after_a_running_node_within_a_lease():
    play = Play(graph("a"), lease_ttl_sec=20)
    play.starts("a")
    play.later(5)
    assert play.task.wake_at == NOON + 25


def test_a_command_that_was_not_sent_is_sent_by_whoever_looks():
    play = Play(graph("a"))
    assert play.task.wake_at == NOON + 5
    assert effects(play.later(4)) == []
    assert effects(play.later(1)) == ["run a"]
    assert play.task.wake_at == NOON + 10
    play.sent(("a", 1))
    assert effects(play.later(5)) == []


def test_a_run_that_works_is_left_alone():
    play = Play(graph("a"))
    play.starts("a")
    assert effects(play.later(60)) == []


def test_a_function_that_did_not_return_is_called_again():
    play = Play(graph("f", f=FUNCTION))
    assert effects(play.later(4)) == []
    assert effects(play.later(1)) == ["call f"]


def test_a_function_has_no_heartbeat_and_no_worker_and_may_take_its_time():
    play = Play(graph("f", f={**FUNCTION, "timeouts": {"heartbeat_sec": 1.0}}))
    play.later(100, silent={"w": 1000.0})
    assert play.status("f") is NodeStatus.RUNNING


def test_a_function_that_takes_too_long_has_failed():
    play = Play(graph("f", f={**FUNCTION, "timeouts": {"start_to_close_sec": 3.0}, "retry_policy": {"max": 0}}))
    assert play.task.wake_at == NOON + 3
    assert effects(play.later(3)) == ["stop f"]
    assert play.task.status is TaskStatus.FAILED


# ---------------------------------------------------------------- cancellation


def test_a_run_that_does_not_stop_is_given_up_after_the_grace():
    play = Play(graph("a"), cancel_grace_sec=10)
    play.starts("a")
    play.cancel("enough")
    assert play.task.wake_at == NOON + 1
    step = play.later(1)
    assert [(effect.reason, effect.token) for effect in step.effects] == [("enough", play.token("a"))]
    assert play.task.wake_at == NOON + 2
    play.later(8.5)
    assert play.task.wake_at == NOON + 10
    assert play.later(0.5).status is TaskStatus.CANCELLED


def test_a_grace_shorter_than_a_second_is_kept():
    play = Play(graph("a"), cancel_grace_sec=0.25)
    play.starts("a")
    play.cancel()
    assert play.task.wake_at == NOON + 0.25


# ---------------------------------------------------------------- the task's deadline


def test_a_task_fails_at_its_deadline():
    play = Play(graph("a b -> c"), deadline_sec=100)
    play.starts("a")
    play.later(99)
    assert play.task.wake_at == NOON + 100
    step = play.later(1)
    assert effects(step) == ["stop a", "stop b"]
    assert play.marks == "cCC"
    assert play.record("a").reason_code == "deadline_exceeded"
    step = play.stops("a")
    assert step.status is TaskStatus.FAILED
    assert play.task.error == "the task's deadline passed"


def test_after_its_deadline_a_task_only_waits_for_what_is_being_stopped():
    play = Play(graph("a"), deadline_sec=100)
    play.starts("a")
    play.later(100)
    play.later(1)
    assert play.task.wake_at == NOON + 102
    assert play.later(100).status is TaskStatus.FAILED


def test_a_paused_task_has_its_deadline_all_the_same():
    play = Play(graph("a"), deadline_sec=100)
    play.pause()
    assert play.later(100).status is TaskStatus.FAILED


def test_a_task_that_ended_in_time_has_no_deadline():
    play = Play(graph("a"), deadline_sec=100)
    play.succeeds("a")
    assert play.later(100).ignored


def test_several_nodes_that_are_overdue_fail_in_their_order():
    play = Play(
        graph(
            "b a",
            a={"timeouts": {"start_to_close_sec": 5.0}, "retry_policy": {"max": 0}},
            b={"timeouts": {"start_to_close_sec": 5.0}, "retry_policy": {"max": 0}},
        )
    )
    play.starts("a")
    play.starts("b")
    assert changes(play.later(5))[:2] == ["b failed", "a cancelling"]


@pytest.mark.parametrize("seconds", [0, 1])
def test_looking_too_early_changes_nothing(seconds: float):
    play = Play(graph("a b -> c", a={"retry_policy": STEADY}))
    play.fails("a")
    play.starts("b")
    assert changes(play.later(seconds)) == []
