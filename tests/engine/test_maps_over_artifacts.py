"""Maps over the artifacts of a parent: they grow while the parent runs."""

from typing import Any

import pytest

from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import ONCE, STEADY, Play, effects, graph, started


def over_artifacts(**fields: Any) -> dict[str, Any]:
    return {"map": {"over": {"artifacts": "p"}, **fields}}


def running(*lines: str, **nodes: Any) -> Play:
    """Return a task whose map ``m`` has begun, while its parent ``p`` runs."""
    play = Play(graph("p -> m", *lines, **{"m": over_artifacts(), **nodes}))
    assert "read m" in effects(play.stores_a_batch("p"))
    return play


def statuses(play: Play) -> list[str]:
    size = play.task.maps[play.index("m")].size
    return [play.status(f"m[{number}]").value for number in range(size)]


def test_a_map_starts_with_the_first_batch_of_its_parent():
    play = running()
    assert play.status("m") is NodeStatus.RUNNING
    assert started(play.grows("m", 2)) == ["m[0]", "m[1]"]


def test_each_batch_is_read():
    play = running()
    play.grows("m", 1)
    assert effects(play.stores_a_batch("p")) == ["read m"]
    assert started(play.grows("m", 1)) == ["m[1]"]


def test_a_growth_that_another_coordinator_has_stored_is_read_again():
    play = running()
    play.grows("m", 2)
    step = play.grows("m", 1, after=0)
    assert step.ignored
    assert effects(step) == ["read m"]
    assert statuses(play) == ["queued", "queued"]


def test_the_map_ends_when_its_parent_and_all_children_have_ended():
    play = running()
    play.grows("m", 1)
    assert effects(play.succeeds("m[0]")) == []
    assert "read m" in effects(play.succeeds("p"))
    assert effects(play.grows("m", 0, ended=True)) == ["collect m"]
    play.collects("m", 7)
    assert play.task.status is TaskStatus.FINISHED


def test_a_child_may_end_last():
    play = running()
    play.grows("m", 1)
    play.succeeds("p")
    assert effects(play.grows("m", 0, ended=True)) == []
    assert effects(play.succeeds("m[0]")) == ["collect m"]


def test_a_parent_without_artifacts_gives_an_empty_list():
    play = Play(graph("p -> m", m=over_artifacts()))
    assert effects(play.succeeds("p")) == ["read m"]
    play.grows("m", 0, ended=True)
    assert play.record("m").result == []
    assert play.task.status is TaskStatus.FINISHED


def test_children_get_places_in_blocks_of_growing_size():
    play = Play(graph("p -> m n", m=over_artifacts(), n=over_artifacts()))
    play.stores_a_batch("p")
    for _ in range(200):
        play.grows("m", 1)
        play.grows("n", 1)
    state = play.task.maps[play.index("m")]
    assert len(state.blocks) < 8
    assert [play.task.spec.plan.ids[child] for child in state.children()] == [
        f"m[{number}]" for number in range(200)
    ]
    assert [play.index(f"n[{number}]") for number in range(200)] == list(
        play.task.maps[play.index("n")].children()
    )
    assert "m[200]" not in play.task.spec.plan.index


def test_a_parent_that_fails_stops_the_map():
    play = running(p=ONCE)
    play.grows("m", 2)
    play.starts("m[0]")
    play.breaks("p")
    assert play.status("m") is NodeStatus.CANCELLING
    play.stops("m[0]")
    assert [play.status(name).value for name in ("p", "m")] == ["failed", "cancelled"]


def test_a_parent_that_fails_leaves_a_map_that_waits_for_ends():
    play = Play(
        graph(
            "p -> m",
            on_node_failure="continue",
            p=ONCE,
            m={**over_artifacts(), "fan_in": "ended"},
        )
    )
    play.stores_a_batch("p")
    play.grows("m", 1)
    assert "read m" in effects(play.breaks("p"))
    play.grows("m", 1, ended=True)
    play.succeeds("m[0]")
    assert effects(play.succeeds("m[1]")) == ["collect m"]


@pytest.mark.parametrize("ending", ["stops", "succeeds"])
def test_a_map_is_skipped_when_its_optional_parent_fails(ending: str):
    play = running("m o -> z", p={"optional": True, **ONCE})
    play.grows("m", 2)
    play.succeeds("m[0]")
    play.starts("m[1]")
    play.breaks("p")
    getattr(play, ending)("m[1]")
    assert (play.status("m"), play.record("m").reason_code) == (
        NodeStatus.SKIPPED,
        "upstream_skipped",
    )
    assert started(play.succeeds("o")) == ["z"]
    assert play.succeeds("z").status is TaskStatus.FINISHED


def test_a_map_that_needs_one_of_its_parents_goes_on_when_the_optional_one_fails():
    play = Play(
        graph("p o -> m", p={"optional": True, **ONCE}, m={**over_artifacts(), "fan_in": "any"})
    )
    play.succeeds("o")
    play.stores_a_batch("p")
    play.grows("m", 1)
    assert "read m" in effects(play.breaks("p"))
    play.grows("m", 0, ended=True)
    assert effects(play.succeeds("m[0]")) == ["collect m"]


def test_a_retry_of_the_optional_parent_runs_a_skipped_map_again():
    play = running("m o -> z", p={"optional": True, **ONCE}, z=ONCE)
    play.grows("m", 2)
    play.succeeds("m[0]")
    play.starts("m[1]")
    play.breaks("p")
    play.stops("m[1]")
    play.succeeds("o")
    play.breaks("z")
    assert started(play.retry()) == ["z"]
    play.breaks("z")
    assert started(play.retry("p", "z")) == ["p"]
    play.stores_a_batch("p")
    assert play.status("m") is NodeStatus.RUNNING


def test_a_map_that_fails_waits_for_its_children():
    play = running()
    play.grows("m", 2)
    play.starts("m[0]")
    play.map_fails("m", "map_too_large")
    assert statuses(play) == ["cancelling", "cancelled"]
    assert play.status("m") is NodeStatus.RUNNING
    assert play.grows("m", 1).ignored
    play.stops("m[0]")
    assert play.status("m") is NodeStatus.FAILED
    assert play.record("m").reason_code == "map_too_large"


def test_a_map_that_fails_keeps_its_first_reason():
    play = running(m={**over_artifacts(), **ONCE})
    play.grows("m", 2)
    play.starts("m[0]")
    play.breaks("m[1]")
    assert play.map_fails("m", "artifact_lost").ignored
    play.stops("m[0]")
    assert play.record("m").reason_code == "map_item_failed"


def test_a_retry_keeps_finished_children_and_reads_further_artifacts():
    play = running(p=ONCE)
    play.grows("m", 2)
    play.succeeds("m[0]")
    play.starts("m[1]")
    play.breaks("p")
    play.stops("m[1]")
    assert started(play.retry()) == ["p"]
    assert effects(play.stores_a_batch("p")) == ["read m", "open m"]
    assert started(play.begins("m")) == ["m[1]"]
    assert started(play.grows("m", 1)) == ["m[2]"]
    for name in ("m[1]", "m[2]", "p"):
        play.succeeds(name)
    assert effects(play.grows("m", 0, ended=True)) == ["collect m"]


def test_a_retry_starts_the_children_that_it_keeps_before_it_reads_further_artifacts():
    play = running(m={**over_artifacts(), **ONCE})
    play.grows("m", 2)
    play.succeeds("p")
    play.succeeds("m[0]")
    play.breaks("m[1]")
    assert effects(play.retry()) == ["read m", "open m"]
    assert started(play.begins("m")) == ["m[1]"]


def test_a_parent_that_starts_from_nothing_makes_new_children():
    play = running("m -> z", z=ONCE)
    play.grows("m", 1)
    play.succeeds("m[0]")
    play.succeeds("p")
    play.grows("m", 0, ended=True)
    play.collects("m", 1)
    play.breaks("z")
    play.retry("p")
    assert "m[0]" not in play.task.spec.plan.index


@pytest.mark.parametrize("count", [0, 3])
def test_artifacts_are_read_again_after_a_restart(count: int):
    play = running()
    play.grows("m", count)
    assert "read m" in play.pending


def test_a_map_looks_for_artifacts_whose_report_was_lost():
    play = running()
    play.grows("m", 1)
    assert "read m" in effects(play.later(60))
    assert play.task.wake_at is not None


def test_a_child_is_not_held_back_for_the_parent():
    play = running(max_parallel=2, p={"retry_policy": STEADY})
    play.fails("p")
    assert play.status("p") is NodeStatus.DEFERRED
    assert started(play.grows("m", 3)) == ["m[0]", "m[1]"]


def test_a_map_begins_in_the_last_place_while_its_parent_waits_for_its_next_attempt():
    play = Play(graph("p -> m", max_parallel=1, m=over_artifacts(), p={"retry_policy": STEADY}))
    play.stores_a_batch("p")
    assert play.status("m") is NodeStatus.QUEUED
    assert "read m" in effects(play.fails("p"))
    assert started(play.grows("m", 1)) == ["m[0]"]


def test_a_map_that_had_read_all_artifacts_reads_those_of_a_retried_parent():
    fields = {**over_artifacts(), "fan_in": "ended", **ONCE}
    play = Play(graph("p -> m", on_node_failure="continue", p=ONCE, m=fields))
    play.stores_a_batch("p")
    play.grows("m", 1)
    play.breaks("p")
    play.grows("m", 0, ended=True)
    play.breaks("m[0]")
    play.retry()
    play.stores_a_batch("p")
    assert started(play.begins("m")) == ["m[0]"]
    assert started(play.grows("m", 1)) == ["m[1]"]
