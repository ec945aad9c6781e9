"""Effects of the passing of time."""

from typing import Any

import pytest

from flowkit._engine import AskWorker, EngineSettings, Woke, confirmed_until, pending_effects
from flowkit.task import NodeRecord, NodeStatus, TaskStatus
from tests.engine.drive import FUNCTION, NOON, STEADY, Play, changes, effects, graph, started, told


def limited(**timeouts: float) -> Play:
    policy: dict[str, Any] = {"max": 0}
    return Play(graph("a", a={"timeouts": timeouts, "retry_policy": policy}))


def test_a_command_that_no_worker_starts_in_time_fails():
    play = limited(schedule_to_start_sec=60.0)
    play.sent(("a", 1))
    play.later(35)
    assert play.task.wake_at == NOON + 60
    play.later(24)
    assert play.status("a") is NodeStatus.QUEUED
    step = play.later(1)
    assert effects(step) == []
    assert play.record("a").reason_code == "schedule_to_start_timeout"
    assert (
        play.task.error
        == "node 'a' failed: schedule_to_start_timeout: no worker started it within 60 s"
    )


def test_a_command_that_was_sent_is_not_timed_without_a_limit():
    play = Play(graph("a"))
    play.sent(("a", 1))
    play.later(10**9)
    assert play.status("a") is NodeStatus.QUEUED


@pytest.mark.parametrize(
    ("is_answered", "times"),
    [
        (True, [5, 35, 65, 70, 100, 140, 170, 280, 310, 560, 590, 1120, 1150, 1720, 1750, 2320]),
        (False, [5, 35, 65, 95, 125, 155, 185, 215, 245, 275]),
    ],
)
def test_a_command_that_waits_is_checked_at_intervals_that_double_once_the_bus_confirms_it(
    is_answered: bool, times: list[int]
):
    play = Play(graph("a"))
    play.sent(("a", 1), place=(3, 17))
    for seconds in times:
        assert play.task.wake_at == NOON + seconds
        assert effects(play.later(play.task.wake_at - play.now)) == (
            ["check a"] if seconds >= 30 else []
        )
        if is_answered:
            play.waits("a")
        assert play.record("a").place == (3, 17)


@pytest.mark.parametrize(
    ("confirmed_at", "now", "until"),
    [
        (None, 35, None),
        (2, 5, 32),
        (37, 65, 74),
        (37, 74, None),
        (400, 430, 800),
        (1000, 1030, 1600),
        (1000, 1599, 1600),
        (1000, 1600, None),
        (1000, 5000, None),
        (-20, 5, 10),
        (1000, 900, None),
    ],
)
def test_a_confirmed_command_is_due_when_it_has_waited_as_long_again_but_within_ten_minutes(
    confirmed_at: float | None, now: float, until: float | None
):
    """A confirmation before the command was issued, or in the future, has a wrong clock."""
    stamp = None if confirmed_at is None else NOON + confirmed_at
    record = NodeRecord(attempt=1, sent=True, issued_at=NOON, confirmed_at=stamp)
    assert confirmed_until(record, NOON + now) == (None if until is None else NOON + until)
    record.sent = False
    assert confirmed_until(record, NOON + now) is None


def test_a_second_confirmation_of_one_check_does_not_put_off_the_next():
    play = Play(graph("a"))
    play.sent(("a", 1))
    play.later(100)
    play.waits("a")
    play.now += 20
    play.waits("a")
    assert play.record("a").confirmed_at == NOON + 100
    play.now += 80
    play.waits("a")
    assert play.record("a").confirmed_at == NOON + 200


def test_only_the_present_command_is_confirmed_and_only_while_it_waits():
    play = Play(graph("a"))
    play.waits("a")
    assert play.record("a").confirmed_at is None
    play.sent(("a", 1), place=(0, 5))
    for other in ({"attempt": 2}, {"handovers": 1}, {"place": (0, 4)}):
        play.waits("a", **other)
        assert play.record("a").confirmed_at is None
    play.waits("a")
    assert play.record("a").confirmed_at == NOON
    play.loses("a")
    assert play.record("a").confirmed_at is None
    play.sent(("a", 1), place=(0, 6))
    play.waits("a")
    play.starts("a")
    assert play.record("a").confirmed_at is None
    play.waits("a", place=None)
    assert play.record("a").confirmed_at is None
    play.is_released("a")
    assert play.marks == "q"
    assert play.record("a").confirmed_at is None


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


def test_the_time_limits_of_a_second_attempt_start_again():
    play = Play(
        graph(
            "a",
            a={
                "timeouts": {"start_to_close_sec": 50.0, "schedule_to_start_sec": 50.0},
                "retry_policy": STEADY,
            },
        )
    )
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
    assert (play.record("a").reason_code, play.record("a").error) == (
        "worker_lost",
        "worker 'w' was silent for 20 s",
    )


def test_a_worker_that_is_known_to_have_ended_is_lost_at_once():
    play = Play(graph("a", a={"retry_policy": STEADY}), lease_ttl_sec=20, worker_lost_sec=20)
    play.starts("a", worker="w")
    play.later(1, silent={"w": float("inf")})
    assert (play.record("a").reason_code, play.record("a").error) == (
        "worker_lost",
        "worker 'w' has ended",
    )


def test_a_worker_is_never_lost_earlier_than_workers_are():
    play = Play(graph("a"), lease_ttl_sec=5, worker_lost_sec=30)
    play.starts("a")
    play.later(20, silent={"w": 29})
    assert play.status("a") is NodeStatus.RUNNING


def test_leases_double_with_each_attempt():
    play = Play(
        graph("a", a={"retry_policy": {**STEADY, "max": 20}}), lease_ttl_sec=20, worker_lost_sec=20
    )
    for attempt in range(1, 14):
        patience = 20 * 2 ** min(attempt - 1, 10)
        play.starts("a")
        play.later(1, silent={"w": patience - 1})
        assert play.status("a") is NodeStatus.RUNNING
        play.later(1, silent={"w": patience})
        assert play.status("a") is NodeStatus.DEFERRED
        play.later(10)


def test_a_running_node_is_checked_within_a_lease():
    play = Play(graph("a"), lease_ttl_sec=20)
    play.starts("a")
    play.later(5)
    assert play.task.wake_at == NOON + 25


def test_a_command_that_no_worker_started_is_checked():
    play = Play(graph("a"))
    assert play.task.wake_at == NOON + 5
    assert effects(play.later(4)) == []
    assert play.task.wake_at == NOON + 5
    assert effects(play.later(1)) == ["check a"]
    assert play.task.wake_at == NOON + 35


def test_a_coordinator_that_sends_commands_claims_those_that_it_checks():
    play = Play(graph("a b"))
    play.sent(("b", 1))
    play.settings = EngineSettings(sends=True)
    play.later(5)
    assert (play.record("a").claimed, play.record("b").claimed) == (True, False)
    assert play.pending == ["run a"]
    assert pending_effects(play.task, claimed=False) == []


def test_a_coordinator_that_sends_commands_claims_those_that_it_issues():
    play = Play(graph("a -> b"), sends=True)
    assert pending_effects(play.task, claimed=False) == []
    play.starts("a")
    assert not play.record("a").claimed
    play.settings = EngineSettings()
    play.succeeds("a")
    assert told(play.task, pending_effects(play.task, claimed=False)) == ["run b"]


def test_a_command_that_is_lost_is_sent_again():
    play = Play(graph("a"))
    play.sent(("a", 1), place=(0, 5))
    play.later(100)
    before = play.token("a")
    step = play.loses("a")
    assert effects(step) == ["run a"]
    assert changes(step) == []
    assert (play.token("a"), play.record("a").place, play.pending) == (before, None, ["run a"])
    assert play.task.wake_at == play.now + 5
    assert play.record("a").issued_at == NOON


def test_a_command_that_may_never_have_been_sent_is_looked_after_as_often_however_long_it_was_not():
    play = Play(graph("a"))
    play.later(5)
    for _ in range(100):
        before = play.task.wake_at
        assert effects(play.later(30)) == ["check a"]
        assert play.task.wake_at == before + 30


@pytest.mark.parametrize("sent", [True, False])
def test_a_command_may_be_lost_more_than_once(sent: bool):
    play = Play(graph("a"))
    for _ in range(3):
        if sent:
            play.sent(("a", 1))
        assert effects(play.loses("a")) == ["run a"]


def test_the_loss_of_another_command_than_the_present_one_changes_nothing():
    play = Play(graph("a -> b", a={"retry_policy": STEADY}))
    assert play.loses("a", attempt=2).ignored
    assert play.loses("a", handovers=1).ignored
    assert play.loses("a", place=(0, 1)).ignored
    assert play.loses("b").ignored
    assert play.loses("missing").ignored
    play.starts("a")
    assert play.loses("a").ignored
    play.fails("a")
    play.later(10)
    assert play.loses("a", attempt=1).ignored
    assert not play.loses("a").ignored


def test_a_worker_of_which_nothing_is_heard_is_asked_for_its_run():
    play = Play(graph("a"), lease_ttl_sec=20)
    play.starts("a", worker="w")
    assert effects(play.later(19)) == []
    (effect,) = play.later(1).effects
    assert effect == AskWorker(0, 1, play.token("a"), "w")


def test_a_run_that_tells_of_its_progress_is_not_asked_for():
    play = Play(graph("a"), lease_ttl_sec=20)
    play.starts("a")
    play.now += 19
    play.progresses("a")
    assert effects(play.later(19)) == []
    assert effects(play.later(1)) == ["ask for a"]


def test_a_worker_is_asked_less_and_less_often():
    play = Play(graph("a"), lease_ttl_sec=20)
    play.later(5)
    play.starts("a")
    pauses = []
    for _ in range(8):
        assert play.task.wake_at is not None
        pauses.append(play.task.wake_at - play.now)
        assert effects(play.later(pauses[-1], silent={"w": 0})) == ["ask for a"]
        assert play.starts("a").ignored
    assert pauses == [20, 20, 40, 80, 160, 300, 300, 300]


def test_a_lease_longer_than_the_longest_pause_is_the_pause():
    play = Play(graph("a"), lease_ttl_sec=1000)
    play.starts("a")
    play.later(1000)
    assert play.task.wake_at == play.now + 1000


def test_a_worker_that_is_silent_is_not_asked_but_looked_at_again_when_it_is_lost():
    play = Play(graph("a"), lease_ttl_sec=20, worker_lost_sec=30, worker_suspect_sec=10)
    play.starts("a", worker="w")
    assert effects(play.later(25, silent={"w": 9.9})) == ["ask for a"]
    assert effects(play.later(1, silent={"w": 12})) == []
    assert play.task.wake_at == play.now + 18
    play.later(17.5, silent={"w": 29.5})
    assert play.task.wake_at == play.now + 1


def test_a_worker_whose_silence_is_unknown_is_checked_after_a_lease_also_late_in_an_attempt():
    play = Play(graph("a"), lease_ttl_sec=20, worker_lost_sec=30)
    play.starts("a", worker="w")
    play.later(400)
    assert play.task.wake_at == play.now + 20
    play.later(20, silent={"w": 420})
    assert play.record("a").reason_code == "worker_lost"


def test_a_function_that_did_not_return_is_called_again():
    play = Play(graph("f", f=FUNCTION))
    assert effects(play.later(4)) == []
    assert effects(play.later(1)) == ["call f"]


def test_a_function_has_no_worker_and_may_take_its_time():
    play = Play(graph("f", f=FUNCTION))
    play.later(100, silent={"w": 1000.0})
    assert play.status("f") is NodeStatus.RUNNING


def test_a_function_that_takes_too_long_has_failed():
    play = Play(
        graph(
            "f", f={**FUNCTION, "timeouts": {"start_to_close_sec": 3.0}, "retry_policy": {"max": 0}}
        )
    )
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
    assert [(effect.reason, effect.token) for effect in step.effects] == [
        ("enough", play.token("a"))
    ]
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


# ---------------------------------------------------------------- reports that an outage delays

LIMITS = {
    "schedule_to_start_timeout": {"schedule_to_start_sec": 20.0},
    "start_to_close_timeout": {"start_to_close_sec": 20.0},
    "heartbeat_timeout": {"heartbeat_sec": 20.0},
}
each_limit = pytest.mark.parametrize("code", LIMITS)


def under_way(code: str) -> Play:
    """Return a task whose node has started, or waits for its start, at noon."""
    play = limited(**LIMITS[code])
    play.sent(("a", 1))
    if code != "schedule_to_start_timeout":
        play.starts("a")
    return play


def woken(play: Play, at: float, **heard: float) -> str | None:
    """Wake the task at a time after noon, and return the reason code of its node."""
    play.now = NOON + at
    play.do(Woke(**{name: NOON + seconds for name, seconds in heard.items()}))
    return play.record("a").reason_code


@each_limit
def test_a_limit_waits_for_reports_that_an_outage_delays(code: str):
    play = under_way(code)
    assert woken(play, 50, heard_since=45) is None
    assert play.task.wake_at is not None
    assert play.task.wake_at <= NOON + 55
    assert woken(play, 54, heard_since=45) is None
    assert woken(play, 55, heard_since=45) == code


@each_limit
def test_an_outage_before_an_attempt_does_not_change_its_limit(code: str):
    play = under_way(code)
    assert woken(play, 19, heard_since=-1) is None
    assert woken(play, 20, heard_since=-1) == code


@each_limit
def test_a_wake_up_that_is_applied_after_an_outage_decides_as_before_it(code: str):
    play = under_way(code)
    assert woken(play, 60, heard_until=19) is None
    assert woken(play, 60, heard_until=20) == code
