"""Nodes that start on the first batch of a parent."""

from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import ONCE, Play, changes, effects, graph, started

READER = {"io": {"start_when": "first_batch"}}


def test_a_reader_starts_when_the_first_batch_is_stored():
    play = Play(graph("a b -> c", c=READER))
    play.starts("a")
    step = play.stores_a_batch("a")
    assert started(step) == ["c"]
    assert changes(step) == ["a batch", "c queued"]


def test_the_first_batch_alone_is_news():
    play = Play(graph("a => b"))
    play.starts("a")
    play.stores_a_batch("a")
    assert changes(play.stores_a_batch("a")) == []


def test_a_batch_that_overtook_the_start_tells_of_both():
    play = Play(graph("a => b"))
    assert changes(play.stores_a_batch("a")) == ["a running", "a batch", "b queued", "running"]
    assert play.starts("a").ignored


def test_a_batch_wakes_no_child_that_waits_for_the_end():
    play = Play(graph("a => b", "a -> c"))
    assert started(play.stores_a_batch("a")) == ["b"]


def test_a_second_parent_s_batch_starts_nothing_twice():
    play = Play(graph("a b => c"))
    play.stores_a_batch("a")
    assert started(play.stores_a_batch("b")) == []


def test_a_reader_waits_for_the_parents_it_does_not_stream_from():
    play = Play(graph("a => c", "b -> c"))
    assert started(play.stores_a_batch("a")) == []
    assert started(play.succeeds("b")) == ["c"]


def test_a_reader_whose_other_parents_have_ended_starts_on_the_batch():
    play = Play(graph("a => c", "b -> c"))
    assert started(play.succeeds("b")) == []
    assert started(play.stores_a_batch("a")) == ["c"]


def test_a_reader_starts_on_the_batch_of_a_parent_that_has_ended_meanwhile():
    play = Play(graph("a x => c", "b -> c"))
    play.stores_a_batch("a")
    play.succeeds("a")
    assert started(play.succeeds("b")) == ["c"]


def test_a_reader_starts_when_its_parents_end_without_a_batch():
    play = Play(graph("a => b"))
    assert started(play.succeeds("a")) == ["b"]


def test_a_reader_waits_for_every_silent_parent():
    play = Play(graph("a b => c"))
    assert started(play.succeeds("a")) == []
    assert started(play.succeeds("b")) == ["c"]


def test_running_readers_are_notified_that_a_parent_ended():
    play = Play(graph("a => b c", "a -> d"))
    play.stores_a_batch("a")
    play.starts("b")
    assert effects(play.succeeds("a")) == ["tell readers of a", "run d"]


def test_readers_that_do_not_run_are_not_notified():
    play = Play(graph("a => b"))
    play.stores_a_batch("a")
    play.fails("b")
    assert play.status("b") is NodeStatus.DEFERRED
    assert effects(play.succeeds("a")) == []


def test_a_parent_s_retry_leaves_its_reader_running():
    play = Play(graph("a => b"))
    play.stores_a_batch("a")
    play.starts("b")
    play.fails("a")
    assert play.status("b") is NodeStatus.RUNNING


def test_a_parent_that_fails_for_good_stops_its_reader():
    play = Play(graph("a => b", "b -> c", on_node_failure="continue"))
    play.stores_a_batch("a")
    play.starts("b")
    step = play.breaks("a")
    assert effects(step) == ["tell readers of a", "stop b"]
    assert play.status("b") is NodeStatus.CANCELLING
    assert play.record("b").reason_code == "upstream_failed"
    step = play.stops("b")
    assert changes(step) == ["b cancelled", "c skipped", "failed"]


def test_a_reader_that_was_given_out_and_not_begun_is_cancelled_at_once():
    play = Play(graph("a => b", on_node_failure="continue"))
    play.stores_a_batch("a")
    step = play.breaks("a")
    assert "stop b" in effects(step)
    assert play.status("b") is NodeStatus.CANCELLED
    late = play.starts("b")
    assert late.ignored
    assert effects(late) == ["stop b"]


def test_a_reader_is_skipped_when_its_optional_parent_fails():
    play = Play(graph("a => b", "b c -> d", a={"optional": True}))
    play.stores_a_batch("a")
    play.starts("b")
    play.breaks("a")
    play.stops("b")
    assert (play.status("b"), play.record("b").error) == (NodeStatus.SKIPPED, None)
    assert play.record("b").reason_code == "upstream_skipped"
    assert started(play.succeeds("c")) == ["d"]
    assert play.succeeds("d").status is TaskStatus.FINISHED


def test_the_late_start_of_a_reader_that_was_skipped_is_answered_with_a_cancellation():
    play = Play(graph("a => b", a={"optional": True}))
    play.stores_a_batch("a")
    assert "stop b" in effects(play.breaks("a"))
    late = play.starts("b")
    assert late.ignored
    assert effects(late) == ["stop b"]


def test_a_reader_that_never_began_is_skipped_when_its_parent_fails():
    play = Play(
        graph("a => b c", on_node_failure="continue", b={"when": "vars.x"}), max_in_flight=1
    )
    play.stores_a_batch("a")
    assert play.marks == "u?r"
    play.breaks("a")
    assert play.marks == "Xxx"


def test_a_reader_with_an_attempt_behind_it_is_cancelled_when_its_parent_fails():
    play = Play(graph("a => b", on_node_failure="continue"))
    play.stores_a_batch("a")
    play.fails("b")
    play.breaks("a")
    assert play.status("b") is NodeStatus.CANCELLED


def test_a_reader_of_any_parent_goes_on_when_one_of_them_fails():
    play = Play(graph("a b => c", on_node_failure="continue", c={"fan_in": "any"}))
    play.stores_a_batch("a")
    play.starts("c")
    play.breaks("a")
    assert play.status("c") is NodeStatus.RUNNING
    play.breaks("b")
    assert play.status("c") is NodeStatus.CANCELLING


def test_a_reader_that_is_being_cancelled_is_not_cancelled_twice():
    play = Play(graph("a b => c", on_node_failure="continue"))
    play.stores_a_batch("a")
    play.starts("c")
    play.breaks("a")
    assert effects(play.breaks("b")) == ["tell readers of b"]
    assert play.status("c") is NodeStatus.CANCELLING


def test_the_parent_whose_batch_started_a_reader_is_not_cancelled():
    play = Play(graph("a b => c", c={"fan_in": "any", "on_satisfied": "cancel"}))
    assert effects(play.stores_a_batch("a")) == ["run c"]
    play.starts("b")
    assert play.status("b") is NodeStatus.RUNNING


def test_the_other_parents_are_cancelled_when_a_reader_s_fan_in_is_met():
    play = Play(graph("a b => c", c={"fan_in": "any", "on_satisfied": "cancel"}))
    play.stores_a_batch("a")
    play.starts("b")
    step = play.succeeds("a")
    assert effects(step) == ["tell readers of a", "stop b"]
    assert play.status("b") is NodeStatus.CANCELLING


def test_the_other_parents_are_left_alone_until_the_reader_starts():
    play = Play(graph("a b => c", c={"fan_in": "any", "on_satisfied": "cancel", "when": "vars.x"}))
    play.stores_a_batch("a")
    play.succeeds("a")
    assert play.status("b") is NodeStatus.QUEUED
    play.condition("c", value=False)
    assert play.succeeds("b").status is TaskStatus.FINISHED


def test_a_reader_that_leaves_its_parents_alone_lets_the_other_run():
    play = Play(graph("a b => c", c={"fan_in": "any"}))
    play.stores_a_batch("a")
    play.succeeds("a")
    assert play.status("b") is NodeStatus.QUEUED


def test_a_retried_reader_starts_on_the_batch_of_a_parent_that_stayed():
    play = Play(graph("a b => c", b=ONCE))
    play.stores_a_batch("a")
    play.succeeds("a")
    play.fails("b")
    assert play.task.status is TaskStatus.FAILED
    assert started(play.retry()) == ["b", "c"]


def test_a_reader_may_finish_before_its_parents():
    play = Play(graph("a => b"))
    play.stores_a_batch("a")
    play.succeeds("b")
    assert play.succeeds("a").status is TaskStatus.FINISHED
