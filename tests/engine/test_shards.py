"""Shards of a node: they run like the children of a map, and then the node has its own end."""

from typing import Any

import pytest

from flowkit._tasks.explanations import explain_node
from flowkit._tasks.views import node_view
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import ONCE, STEADY, Play, changes, effects, graph, started

SHARDED = {"io": {"shards": 2}}
GO_ON = {"on_node_failure": "continue"}


def running(*lines: str, shards: int = 2, **nodes: Any) -> Play:
    """Return a task whose node ``n`` reads ``p`` with shards that have begun."""
    n = nodes.pop("n", {}) | {"io": {"shards": shards}}
    options = {name: nodes.pop(name) for name in [*nodes] if name in ("max_parallel", *GO_ON)}
    play = Play(graph("p => n", *lines, n=n, **nodes, **options))
    play.stores_a_batch("p")
    play.opens("n", shards)
    return play


def at_the_end(*lines: str, **nodes: Any) -> Play:
    """Return a task whose node ``n`` has finished all of its shards."""
    play = running(*lines, **nodes)
    for name in ("p", "n[0]", "n[1]"):
        play.succeeds(name)
    return play


def explained(play: Play, name: str) -> str:
    return explain_node(play.task, play.index(name), play.task.records, now=play.now)


def test_the_shards_begin_with_the_first_batch():
    play = Play(graph("p => n", n=SHARDED))
    assert effects(play.stores_a_batch("p")) == ["open n"]
    assert started(play.opens("n", 2)) == ["n[0]", "n[1]"]
    assert play.status("n") is NodeStatus.RUNNING


def test_the_node_ends_in_an_attempt_of_its_own_after_its_shards():
    play = running("n -> z")
    play.succeeds("p")
    assert effects(play.succeeds("n[1]")) == []
    assert effects(play.succeeds("n[0]")) == ["collect n"]
    assert started(play.collects_shards("n", rows=7)) == ["n"]
    step = play.starts("n")
    assert step.log[0][4] == {"worker_id": "w", "attempt": 1}
    assert started(play.succeeds("n", "whole")) == ["z"]
    record = play.record("n")
    assert (record.result, record.attempt) == ("whole", 1)
    assert record.metrics == {"rows": 7, "n": 1}
    assert (record.batches, record.skipped, record.pulled) == (4, 1, True)


def test_sums_that_come_twice_or_too_early_count_once():
    play = running()
    assert play.collects_shards("n").ignored
    for name in ("p", "n[0]", "n[1]"):
        play.succeeds(name)
    assert play.collects_shards("n", attempt=2).ignored
    play.collects_shards("n")
    assert play.collects_shards("n").ignored


def test_a_batch_of_any_shard_starts_the_readers_of_the_node_once():
    play = running("n => r s")
    step = play.stores_a_batch("n[1]")
    assert started(step) == ["r", "s"]
    assert changes(step) == ["n[1] running", "n batch", "r queued", "s queued"]
    assert changes(play.stores_a_batch("n[0]")) == ["n[0] running"]


def test_running_shards_are_notified_that_a_parent_ended():
    play = running()
    play.starts("n[0]")
    assert effects(play.succeeds("p")) == ["tell readers of p"]


def test_a_shard_is_retried_alone_and_the_node_has_the_highest_attempt():
    play = running(n={"retry_policy": STEADY})
    play.fails("n[1]")
    play.later(10)
    play.succeeds("p")
    play.succeeds("n[0]")
    assert (play.record("n[0]").attempt, play.record("n[1]").attempt) == (1, 2)
    play.succeeds("n[1]")
    play.collects_shards("n")
    assert node_view(play.task, play.index("n")).attempt == 2
    assert play.record("n").attempt == 2


def test_the_end_of_the_node_has_retries_of_its_own():
    play = running(n={"retry_policy": STEADY | {"max": 1}})
    play.fails("n[1]")
    play.later(10)
    for name in ("p", "n[0]", "n[1]"):
        play.succeeds(name)
    play.collects_shards("n")
    play.fails("n")
    assert play.status("n") is NodeStatus.DEFERRED
    play.later(10)
    assert play.record("n").attempt == 3
    play.succeeds("n", 1)
    assert play.task.status is TaskStatus.FINISHED


def test_a_node_fails_with_the_reason_of_its_shard_when_the_others_have_stopped():
    play = running(n=ONCE)
    play.starts("n[0]")
    play.fails("n[1]", "no_disk")
    assert play.status("n") is NodeStatus.RUNNING
    play.stops("n[0]")
    record = play.record("n")
    assert play.status("n") is NodeStatus.FAILED
    assert (record.reason_code, record.error) == ("no_disk", "'n[1]' failed: it broke")
    assert node_view(play.task, play.index("n[0]")).reason_code == "shard_failed"
    assert "another shard of 'n' failed" in explained(play, "n[0]")


def test_a_retry_runs_the_shards_that_did_not_finish():
    play = running(n=ONCE)
    play.succeeds("p")
    play.succeeds("n[0]")
    play.fails("n[1]")
    assert play.task.status is TaskStatus.FAILED
    play.retry()
    assert started(play.begins("n")) == ["n[1]"]
    assert play.record("n[1]").generation == play.record("n").generation == 0
    play.succeeds("n[1]")
    assert started(play.collects_shards("n")) == ["n"]
    assert play.record("n").attempt == 2


@pytest.mark.parametrize("chosen", [(), ("p",)])
def test_a_shard_that_finished_because_its_source_failed_goes_on_with_it(chosen: tuple[str, ...]):
    play = running(p=ONCE)
    play.starts("n[0]")
    play.starts("n[1]")
    play.fails("p")
    play.succeeds("n[0]")
    play.stops("n[1]")
    assert (play.status("n[0]"), play.status("n")) == ("finished", "cancelled")
    play.retry(*chosen)
    play.stores_a_batch("p")
    assert started(play.begins("n")) == ["n[0]", "n[1]"]
    assert {play.record(name).generation for name in ("p", "n", "n[0]", "n[1]")} == {0}
    play.succeeds("p")
    play.succeeds("n[0]")
    assert effects(play.succeeds("n[1]")) == ["collect n"]


def test_a_finished_shard_stays_finished_if_its_source_has_ended():
    play = running("p -> x", x=ONCE)
    play.succeeds("p")
    play.succeeds("n[0]")
    play.starts("n[1]")
    play.fails("x")
    play.stops("n[1]")
    play.retry()
    assert play.status("n[0]") is NodeStatus.FINISHED
    assert play.status("n[1]") is NodeStatus.QUEUED


def test_a_retry_after_a_failed_end_runs_the_end_alone():
    play = at_the_end(n=ONCE)
    play.collects_shards("n")
    play.fails("n")
    assert play.task.status is TaskStatus.FAILED
    play.retry()
    assert effects(play.begins("n")) == ["collect n"]
    assert started(play.collects_shards("n")) == ["n"]


@pytest.mark.parametrize("named", ["n", "n[0]"])
def test_a_retry_from_a_finished_shard_runs_all_shards_from_nothing(named: str):
    play = running(n=ONCE)
    play.succeeds("p")
    play.succeeds("n[0]")
    play.fails("n[1]")
    play.retry(named)
    if named == "n":  # it had failed, and keeps what is finished
        assert started(play.begins("n")) == ["n[1]"]
        return
    assert play.record("n").generation == 1
    assert started(play.opens("n", 2)) == ["n[0]", "n[1]"]
    assert play.record("n[0]").generation == 1


def test_shards_that_run_from_nothing_continue_the_attempts_of_the_node():
    play = running(n={"retry_policy": STEADY | {"max": 1}})
    for name in ("p", "n[0]"):
        play.succeeds(name)
    play.fails("n[1]")
    play.later(10)
    play.fails("n[1]")
    assert play.status("n") is NodeStatus.FAILED
    play.retry("n[0]")
    play.opens("n", 2)
    assert [play.record(name).attempt for name in ("n[0]", "n[1]")] == [3, 3]
    play.fails("n[0]")
    play.later(10)
    for name in ("n[0]", "n[1]"):
        play.succeeds(name)
    play.collects_shards("n")
    assert [play.record(name).attempt for name in ("n", "n[0]", "n[1]")] == [4, 4, 3]


def test_a_shard_that_has_a_dead_letter_keeps_the_batches_of_all():
    play = at_the_end("p -> x", x=ONCE, **GO_ON)
    play.collects_shards("n")
    play.succeeds("n", 1)
    play.fails("x")
    play.retry("n[1]", fill=True)
    assert play.record("n").generation == 0
    assert started(play.begins("n")) == ["n[1]"]


def test_a_cancelled_node_ends_with_its_last_shard():
    play = running()
    play.starts("n[0]")
    play.cancel()
    assert play.status("n") is NodeStatus.CANCELLING
    assert "1 of its 2 shards have not ended" in explained(play, "n")
    play.stops("n[0]")
    play.stops("p")
    assert play.task.status is TaskStatus.CANCELLED


def test_a_resolved_node_stops_its_shards():
    play = running()
    play.starts("n[0]")
    play.resolve("n", "finished", result=3)
    play.stops("n[0]")
    assert (play.status("n"), play.record("n").result) == (NodeStatus.FINISHED, 3)


def test_shards_take_the_places_of_nodes_that_run_and_leave_one_for_the_end():
    play = Play(graph("p => n", "n => r", n=SHARDED, max_parallel=2))
    assert effects(play.stores_a_batch("p")) == ["open n"]
    assert started(play.opens("n", 2)) == ["n[0]"]
    play.stores_a_batch("n[0]")
    assert started(play.succeeds("p")) == ["n[1]"]
    assert started(play.succeeds("n[0]")) == ["r"]
    play.succeeds("n[1]")
    assert started(play.collects_shards("n")) == ["n"]


def test_a_reader_with_shards_does_not_take_the_place_of_the_end_of_its_source():
    play = Play(graph("p => n", "n => r", n=SHARDED, r=SHARDED, max_parallel=2))
    play.stores_a_batch("p")
    play.opens("n", 2)
    play.succeeds("p")
    play.stores_a_batch("n[0]")
    play.succeeds("n[0]")
    assert started(play.opens("r", 2)) == ["r[0]"]
    assert started(play.succeeds("n[1]")) == []
    assert started(play.collects_shards("n")) == ["n"]


def test_each_shard_and_the_end_ask_for_the_key_of_the_node():
    play = Play(graph("p => n", n=SHARDED | {"concurrency_key": "k"}))
    play.stores_a_batch("p")
    assert started(play.opens("n", 2)) == ["n[0]"]
    play.succeeds("p")
    assert started(play.succeeds("n[0]")) == ["n[1]"]
    play.succeeds("n[1]")
    assert started(play.collects_shards("n")) == ["n"]
    assert play.record("n").holds_key


def test_an_explanation_says_what_a_node_with_shards_does():
    play = Play(graph("p => n", n=SHARDED))
    play.stores_a_batch("p")
    assert explained(play, "n") == "'n' is running: its shards are about to begin."
    play.opens("n", 2)
    assert explained(play, "n") == "'n' is running: 0 of its 2 shards have ended."
    for name in ("p", "n[0]", "n[1]"):
        play.succeeds(name)
    assert (
        explained(play, "n") == "'n' is running: the metrics of its 2 shards are being collected."
    )
    play.collects_shards("n")
    assert explained(play, "n").startswith("'n', whose shards have ended, was issued")


def test_the_shards_are_opened_again_after_a_crash():
    play = Play(graph("p => n", n=SHARDED))
    play.stores_a_batch("p")
    assert effects(play.later(60)) == ["ask for p", "open n"]
