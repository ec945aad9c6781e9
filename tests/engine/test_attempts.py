"""Reports that count: the first success of any attempt, and all reports of the current one."""

import pytest

from flowkit._engine import SendCancel
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import NOON, STEADY, Play, changes, effects, graph, started

PATIENT = {"retry_policy": {**STEADY, "max": 5}}
FOREIGN = "0" * 24


def second_attempt() -> Play:
    """Return a task whose node failed once and was issued again."""
    play = Play(graph("a -> b", a=PATIENT))
    play.starts("a")
    play.fails("a")
    play.later(10)
    assert play.record("a").attempt == 2
    return play


def test_a_report_of_success_carries_everything_over():
    play = Play(graph("a"))
    play.starts("a", worker="w1")
    play.now += 2
    play.succeeds("a", {"n": 1})
    record = play.record("a")
    assert (record.result, record.metrics, record.worker_id, record.finished_at) == (
        {"n": 1},
        {"n": 1},
        "w",
        NOON + 2,
    )
    assert play.task.finished_at == NOON + 2
    assert play.task.wake_at is None


def test_a_success_without_a_start_counts():
    play = Play(graph("a"))
    assert changes(play.succeeds("a")) == ["a running", "a finished", "finished"]
    assert play.task.started_at == NOON


def test_a_late_success_of_an_older_attempt_wins():
    play = second_attempt()
    play.starts("a")
    step = play.succeeds("a", attempt=1)
    assert started(step) == ["b"]
    assert play.status("a") is NodeStatus.FINISHED
    stop = SendCancel(0, 2, play.token("a", 2), "an earlier attempt finished first")
    assert stop in step.effects


def test_the_late_success_of_an_attempt_counts_while_its_node_waits_for_the_next():
    play = Play(graph("a", a=PATIENT))
    play.stops("a")
    assert play.task.started_at is None
    assert play.succeeds("a").status is TaskStatus.FINISHED
    assert play.record("a").next_retry_at is None
    assert play.task.started_at == NOON


def test_a_late_success_counts_while_its_node_waits_for_room():
    play = Play(graph("a b c", a=PATIENT), max_in_flight=1)
    play.fails("a")
    play.later(10)
    assert play.marks == "rqr"
    assert effects(play.succeeds("a")) == []
    assert started(play.succeeds("b")) == ["c"]


def test_a_success_that_was_overtaken_changes_nothing():
    play = second_attempt()
    play.succeeds("a", "second")
    assert play.succeeds("a", "first", attempt=1).ignored
    assert play.record("a").result == "second"


def test_a_success_counts_though_the_run_is_being_cancelled():
    play = Play(graph("a b"))
    play.starts("a")
    play.cancel()
    assert play.succeeds("a").status is TaskStatus.CANCELLED
    assert play.status("a") is NodeStatus.FINISHED


@pytest.mark.parametrize(
    "report", ["starts", "progresses", "stores_a_batch", "fails", "stops", "is_released"]
)
def test_what_an_older_attempt_reports_is_not_heard(report: str):
    play = second_attempt()
    assert getattr(play, report)("a", attempt=1).ignored


@pytest.mark.parametrize(
    "report",
    ["starts", "progresses", "stores_a_batch", "succeeds", "fails", "stops", "is_released"],
)
def test_a_report_of_an_attempt_that_was_not_issued_is_ignored(report: str):
    play = second_attempt()
    assert getattr(play, report)("a", token=FOREIGN).ignored
    assert getattr(play, report)("a", attempt=3).ignored
    assert getattr(play, report)("a", attempt=7).ignored


@pytest.mark.parametrize(
    "report",
    ["starts", "progresses", "stores_a_batch", "succeeds", "fails", "stops", "is_released"],
)
def test_a_token_is_good_for_its_own_attempt_alone(report: str):
    play = Play(graph("a"))
    assert getattr(play, report)("a", attempt=2, token=play.token("a", 1)).ignored


@pytest.mark.parametrize(
    "report",
    ["starts", "progresses", "stores_a_batch", "succeeds", "fails", "stops", "is_released"],
)
def test_a_report_of_a_node_that_does_not_exist_is_ignored(report: str):
    play = Play(graph("a"))
    assert getattr(play, report)("nowhere", attempt=1, token=play.token("a")).ignored


@pytest.mark.parametrize(
    "report",
    ["starts", "progresses", "stores_a_batch", "succeeds", "fails", "stops", "is_released"],
)
def test_a_node_that_has_ended_hears_nothing_more(report: str):
    play = Play(graph("a b"))
    play.starts("a")
    play.succeeds("a")
    assert getattr(play, report)("a").ignored


def test_a_start_that_comes_twice_counts_once():
    play = Play(graph("a"))
    assert not play.starts("a").ignored
    assert play.starts("a").ignored


def test_progress_is_stored_and_logged():
    play = Play(graph("a"))
    play.starts("a")
    step = play.progresses("a", {"done": 3})
    assert play.record("a").progress == {"done": 3}
    assert step.log == [(NOON, 0, "progress", None, {"done": 3})]


def test_progress_that_overtook_the_start_tells_of_both():
    play = Play(graph("a"))
    assert changes(play.progresses("a", 1)) == ["a running", "a progress", "running"]
    assert play.starts("a").ignored


def test_the_clock_of_a_worker_is_believed_within_reason():
    play = Play(graph("a b c"))
    play.now += 5
    for name, said in (("a", NOON - 3600), ("b", NOON + 3600), ("c", NOON + 2)):
        play.starts(name, at=said)
    assert [play.record(name).started_at for name in "abc"] == [NOON, NOON + 5, NOON + 2]


def test_a_run_that_stopped_by_itself_has_failed():
    play = Play(graph("a", a=PATIENT))
    play.starts("a")
    play.stops("a")
    assert play.status("a") is NodeStatus.DEFERRED
    assert play.record("a").reason_code == "stopped"


# ---------------------------------------------------------------- handed back


def test_what_is_handed_back_is_given_out_again_at_once():
    play = Play(graph("a"))
    play.starts("a")
    step = play.is_released("a", {"done": 3})
    assert started(step) == ["a"]
    assert step.log[0] == (NOON, 0, "status", "queued", {"released_by": "w"})
    assert play.record("a").progress == {"done": 3}


def test_what_is_handed_back_without_news_keeps_its_progress():
    play = Play(graph("a"))
    play.progresses("a", 7)
    play.is_released("a")
    assert play.record("a").progress == 7


def test_an_attempt_that_is_handed_back_does_not_count():
    play = Play(graph("a", a={"retry_policy": {**STEADY, "max": 1}}))
    for _ in range(5):
        play.is_released("a")
    assert play.record("a").attempt == 1
    play.fails("a")
    play.later(10)
    assert play.record("a").attempt == 2
    assert play.fails("a").status is TaskStatus.FAILED


def test_the_token_of_an_attempt_that_was_handed_back_is_no_good_for_failures():
    play = Play(graph("a"))
    old = play.token("a")
    play.starts("a")
    play.is_released("a")
    assert play.token("a") != old
    for report in (play.starts, play.progresses, play.fails, play.stops, play.is_released):
        assert report("a", token=old).ignored


def test_the_success_of_an_attempt_that_was_handed_back_still_counts():
    for pause in (False, True):
        play = Play(graph("a"))
        old = play.token("a")
        if pause:
            play.pause()
        play.is_released("a")
        assert play.succeeds("a", attempt=1, token=old).status is TaskStatus.FINISHED


def test_a_token_that_was_not_given_out_yet_is_no_good():
    play = Play(graph("a"))
    play.pause()
    play.is_released("a")
    assert play.succeeds("a", attempt=1, token=play.token("a", 1, 1)).ignored


def test_handing_back_ends_a_run_that_is_being_cancelled():
    play = Play(graph("a"))
    play.starts("a")
    play.cancel()
    assert play.is_released("a").status is TaskStatus.CANCELLED


@pytest.mark.parametrize(("said", "recorded"), [(1, 1), (-60, 0), (60, 2)])
def test_an_attempt_that_is_stopped_before_its_start_is_stored_has_a_worker_and_a_start(
    said: float, recorded: float
):
    play = Play(graph("a", a={"concurrency_key": "k"}))
    play.cancel()
    play.now += 2
    play.starts("a", worker="w1", at=NOON + said)
    play.stops("a")
    record = play.record("a")
    assert (play.status("a"), record.worker_id, record.started_at) == (
        NodeStatus.CANCELLED,
        "w1",
        NOON + recorded,
    )


def test_an_attempt_that_was_handed_back_before_a_retry_counts_for_nothing_after_it():
    play = Play(graph("a b"))
    old = play.token("a")
    play.pause()
    play.is_released("a")
    play.cancel()
    play.retry()
    assert play.succeeds("a", attempt=1, token=old).ignored
    assert not play.succeeds("a").ignored
