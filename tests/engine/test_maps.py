"""Maps: one child for each item, and the results of the children in the order of the items."""

from typing import Any

import pytest

from flowkit._engine import CollectMap, OpenMap
from flowkit._tasks.explanations import explain_node
from flowkit._tasks.views import node_view
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import ONCE, STEADY, Play, changes, effects, graph, started

GO_ON = {"on_node_failure": "continue"}


def mapped(**fields: Any) -> dict[str, Any]:
    """Return the fields of a map."""
    return {"map": {"over": [], **fields}}


def statuses(play: Play, name: str = "m") -> list[str]:
    """Return the statuses of the children of a map."""
    size = play.task.maps[play.index(name)].size
    return [play.status(f"{name}[{number}]").value for number in range(size)]


def running(size: int, *lines: str, settings: dict[str, Any] | None = None, **nodes: Any) -> Play:
    """Return a task whose map ``m`` has begun with children."""
    play = Play(graph(*lines, "m", **{"m": mapped(), **nodes}), **(settings or {}))
    play.opens("m", size)
    return play


def test_the_items_of_a_map_are_evaluated_when_it_begins():
    play = Play(graph("a -> m", m=mapped()))
    assert effects(play.succeeds("a")) == ["open m"]
    assert play.status("m") is NodeStatus.RUNNING


def test_each_item_has_a_child():
    play = Play(graph("m", m=mapped()))
    assert started(play.opens("m", 3)) == ["m[0]", "m[1]", "m[2]"]


def test_the_results_are_collected_when_the_last_child_has_ended():
    play = running(2)
    assert effects(play.succeeds("m[1]")) == []
    assert effects(play.succeeds("m[0]")) == ["collect m"]
    play.collects("m", "a", "b")
    assert play.record("m").result == ["a", "b"]
    assert play.task.status is TaskStatus.FINISHED


def test_nodes_below_a_map_start_when_it_has_finished():
    play = running(1, "m -> z")
    play.succeeds("m[0]")
    assert play.status("z") is NodeStatus.QUEUED
    assert started(play.collects("m", 1)) == ["z"]


def test_an_empty_list_finishes_the_map_at_once():
    play = Play(graph("m -> z", m=mapped()))
    assert started(play.opens("m", 0)) == ["z"]
    assert play.record("m").result == []


def test_a_map_whose_items_are_unusable_fails():
    play = Play(graph("m", m=mapped()))
    play.map_fails("m", "bad_map")
    assert play.task.error == "node 'm' failed: bad_map: no list"


def test_at_most_max_parallel_children_are_in_flight():
    play = running(5, m=mapped(max_parallel=2))
    assert statuses(play) == ["queued"] * 5
    assert play.task.in_flight == 2
    assert started(play.succeeds("m[0]")) == ["m[2]"]
    assert started(play.succeeds("m[2]")) == ["m[3]"]


def test_a_child_between_attempts_leaves_its_place_to_the_next():
    play = running(3, m={**mapped(max_parallel=1), "retry_policy": STEADY})
    assert started(play.fails("m[0]")) == ["m[1]"]
    play.later(10)
    assert started(play.succeeds("m[1]")) == ["m[0]"]
    assert started(play.succeeds("m[0]")) == ["m[2]"]


def test_children_leave_places_to_other_nodes_of_the_task():
    play = running(4, "b", settings={"max_in_flight": 3})
    assert play.task.in_flight == 3
    assert started(play.succeeds("b")) == ["m[2]"]


def test_max_parallel_of_the_graph_limits_children_too():
    play = Play(graph("m", max_parallel=2, m=mapped()))
    assert started(play.opens("m", 3)) == ["m[0]", "m[1]"]


def test_a_map_itself_takes_no_place():
    play = Play(graph("m n", max_parallel=1, m=mapped()))
    assert play.task.in_flight == 1
    assert play.status("n") is NodeStatus.QUEUED
    assert started(play.opens("m", 1)) == []
    assert started(play.succeeds("n")) == ["m[0]"]


def test_children_share_the_concurrency_key_of_their_map():
    play = running(3, m={**mapped(), "concurrency_key": "k"})
    assert play.task.in_flight == 1
    assert started(play.succeeds("m[0]")) == ["m[1]"]


def test_a_map_that_ends_passes_its_concurrency_key_on():
    key = {"concurrency_key": "k"}
    play = Play(graph("m", "b", on_node_failure="continue", m={**mapped(), **key, **ONCE}, b=key))
    play.starts("b")
    play.opens("m", 2)
    assert started(play.is_released("b")) == ["m[0]"]
    assert started(play.breaks("m[0]")) == ["b"]


def test_a_map_and_another_node_take_turns_on_a_concurrency_key():
    key = {"concurrency_key": "k"}
    play = Play(graph("a m", a=key, m={**mapped(), **key}))
    assert started(play.opens("m", 2)) == []
    assert started(play.succeeds("a")) == ["m[0]"]


def test_a_map_that_waits_for_its_key_and_needs_it_no_more_leaves_it_to_the_next():
    key = {"concurrency_key": "k"}
    fields = {**mapped(), **key, "retry_policy": STEADY, "priority": 1}
    play = Play(graph("s -> a b", "m", m=fields, a=key, b=key))
    play.opens("m", 1)
    play.starts("m[0]")
    play.succeeds("s")
    assert started(play.fails("m[0]")) == ["a"]
    play.later(10)
    play.succeeds("m[0]", attempt=1)
    assert started(play.succeeds("a")) == ["b"]


def test_a_child_is_retried_alone():
    play = running(2, m={**mapped(), "retry_policy": STEADY})
    play.fails("m[1]")
    assert statuses(play) == ["queued", "deferred"]
    assert started(play.later(10)) == ["m[1]"]
    assert play.record("m[1]").attempt == 2
    assert play.record("m[0]").attempt == 1


def test_a_child_that_is_handed_back_starts_again():
    play = running(2, m=mapped(max_parallel=1))
    play.starts("m[0]")
    assert started(play.is_released("m[0]")) == ["m[0]"]


def test_a_child_that_fails_stops_the_others_and_fails_the_map():
    play = running(3, m={**mapped(max_parallel=2), **ONCE})
    play.starts("m[0]")
    step = play.breaks("m[1]")
    assert effects(step) == ["stop m[0]"]
    assert statuses(play) == ["cancelling", "failed", "cancelled"]
    assert play.status("m") is NodeStatus.RUNNING
    play.stops("m[0]")
    assert play.status("m") is NodeStatus.FAILED
    assert play.record("m").reason_code == "map_item_failed"
    assert play.task.error == "node 'm' failed: map_item_failed: 'm[1]' failed: boom: it broke"


def test_children_that_have_not_begun_end_without_an_event():
    play = running(100, m={**mapped(max_parallel=1), **ONCE})
    play.starts("m[0]")
    assert changes(play.breaks("m[0]")) == ["m[0] failed", "m failed", "failed"]
    assert set(statuses(play)) == {"failed", "cancelled"}


def test_a_failure_of_a_map_takes_its_branch():
    play = Play(graph("m !> h", m={**mapped(), **ONCE}))
    play.opens("m", 2)
    assert started(play.breaks("m[0]")) == ["h"]


def test_with_continue_the_map_finishes_without_the_results_of_failed_children():
    play = running(2, m={**mapped(on_item_failure="continue"), **ONCE})
    play.breaks("m[0]")
    assert effects(play.succeeds("m[1]")) == ["collect m"]
    play.collects("m", None, 1)
    assert play.task.status is TaskStatus.FINISHED
    assert play.record("m").result == [None, 1]


def test_a_cancelled_task_ends_when_all_children_have_stopped():
    play = running(3, m=mapped(max_parallel=1))
    play.starts("m[0]")
    play.cancel()
    assert play.status("m") is NodeStatus.CANCELLING
    play.stops("m[0]")
    assert statuses(play) == ["cancelled"] * 3
    assert play.status("m") is NodeStatus.CANCELLED
    assert play.task.status is TaskStatus.CANCELLED


def test_a_map_that_is_being_stopped_takes_no_place():
    play = Play(graph("m a -> z", m=mapped(), z={"fan_in": "any", "on_satisfied": "cancel"}))
    play.opens("m", 1)
    play.starts("m[0]")
    play.succeeds("a")
    assert [play.status(name).value for name in ("m", "m[0]", "z")] == [
        "cancelling",
        "cancelling",
        "queued",
    ]
    assert play.task.in_flight == 2
    index = play.index("m")
    assert explain_node(play.task, index, play.task.records, now=play.now) == (
        "'m' is being cancelled: node 'z' needs no more parents. 1 of its 1 children have not"
        " ended."
    )


def test_a_map_whose_items_are_not_known_is_cancelled_at_once():
    play = Play(graph("m", m=mapped()))
    play.cancel()
    assert play.task.status is TaskStatus.CANCELLED
    assert play.opens("m", 2).ignored


def test_a_child_that_ignores_its_cancellation_is_given_up_after_the_grace():
    play = running(1)
    play.starts("m[0]")
    play.cancel()
    play.later(10)
    assert play.task.status is TaskStatus.CANCELLED


def test_a_paused_task_starts_no_children():
    play = running(3, m=mapped(max_parallel=1))
    play.pause()
    assert started(play.succeeds("m[0]")) == []
    assert started(play.resume()) == ["m[1]"]


def test_the_deadline_of_the_task_stops_its_children():
    play = Play(graph("m", m=mapped()), deadline_sec=5)
    play.opens("m", 2)
    play.later(5)
    assert play.task.status is TaskStatus.FAILED
    assert statuses(play) == ["cancelled"] * 2


def test_timeouts_of_a_map_limit_the_attempts_of_its_children():
    play = running(1, m={**mapped(), **ONCE, "timeouts": {"start_to_close_sec": 3}})
    play.starts("m[0]")
    play.later(3)
    assert play.record("m[0]").reason_code == "start_to_close_timeout"


def test_a_map_that_is_not_needed_any_more_is_stopped():
    play = Play(graph("m a -> z", m=mapped(), z={"fan_in": "any", "on_satisfied": "cancel"}))
    play.opens("m", 2)
    play.starts("m[1]")
    step = play.succeeds("a")
    assert "stop m[1]" in effects(step)
    assert statuses(play) == ["cancelled", "cancelling"]
    play.stops("m[1]")
    assert play.status("m") is NodeStatus.CANCELLED


def reasons(play: Play) -> dict[str, tuple[str | None, str | None]]:
    """Return the reason codes and errors of the map and its children."""
    ids = play.task.spec.plan.ids
    views = [node_view(play.task, index) for index in range(len(ids))]
    return {one.node_id: (one.reason_code, one.error) for one in views if one.node_id[0] == "m"}


def test_children_have_the_reason_of_their_map():
    play = Play(graph("m a -> z", m=mapped(), z={"fan_in": "any", "on_satisfied": "cancel"}))
    play.opens("m", 3)
    play.starts("m[1]")
    play.succeeds("a")
    expected = ("not_needed", "node 'z' needs no more parents")
    assert set(reasons(play).values()) == {expected}
    play.stops("m[1]")
    play.succeeds("z")
    assert play.task.status is TaskStatus.FINISHED
    assert set(reasons(play).values()) == {expected}


def test_children_that_have_not_begun_have_the_reason_that_another_child_failed():
    play = running(3, m={**mapped(max_parallel=2), **ONCE})
    play.starts("m[0]")
    play.breaks("m[1]")
    assert reasons(play)["m[2]"] == ("map_item_failed", "another child of 'm' failed")
    play.stops("m[0]")
    assert play.task.status is TaskStatus.FAILED
    assert reasons(play)["m[2]"] == ("map_item_failed", "another child of 'm' failed")


def test_the_children_of_an_earlier_list_have_no_ids():
    play = running(3, "m -> z", m=mapped(), z=ONCE)
    for child in ("m[0]", "m[1]", "m[2]"):
        play.succeeds(child)
    play.collects("m", 1, 2, 3)
    play.breaks("z")
    play.retry("m")
    assert "m[0]" not in play.task.spec.plan.index
    play.opens("m", 2)
    found = [name in play.task.spec.plan.index for name in ("m[0]", "m[1]", "m[2]")]
    assert found == [True, True, False]


def test_a_map_stops_the_parents_that_it_does_not_need():
    play = Play(graph("a b -> m", m={**mapped(), "fan_in": "any", "on_satisfied": "cancel"}))
    play.succeeds("a")
    assert play.status("b") is NodeStatus.CANCELLED


# ---------------------------------------------------------------- retries


def failed_at_one_of_three() -> Play:
    play = running(3, "m -> z", m={**mapped(), **ONCE})
    play.succeeds("m[0]")
    play.breaks("m[1]")
    return play


def test_a_retry_keeps_the_children_that_have_finished():
    play = failed_at_one_of_three()
    assert effects(play.retry()) == ["open m"]
    assert started(play.begins("m")) == ["m[1]", "m[2]"]
    play.succeeds("m[1]")
    assert effects(play.succeeds("m[2]")) == ["collect m"]


@pytest.mark.parametrize("end", ["cancel", "failure", "deadline"])
def test_the_children_of_a_map_end_with_it_if_it_has_not_begun_again(end: str):
    flow = graph("m", "x", "y", max_parallel=2, m=mapped(), x={"priority": 5}, y={"priority": 5})
    play = Play(flow, deadline_sec=60)
    play.succeeds("x")
    play.opens("m", 1)
    play.cancel()
    play.later(30)
    play.retry("x")
    assert (play.status("m"), statuses(play)) == (NodeStatus.QUEUED, ["queued"])
    if end == "cancel":
        play.cancel()
    elif end == "failure":
        play.fails("x", permanent=True)
    play.later(70)
    assert play.task.status.terminal
    assert (play.status("m"), statuses(play)) == (NodeStatus.CANCELLED, ["cancelled"])


def test_a_retry_of_a_child_and_of_a_parent_that_owed_data_evaluates_the_items_again():
    play = Play(graph("a b -> m", "m -> z", m=mapped(), a={"optional": True, **ONCE}, z=ONCE))
    play.breaks("a")
    play.succeeds("b")
    play.opens("m", 2)
    for child in ("m[0]", "m[1]"):
        play.succeeds(child)
    play.collects("m", 1, 2)
    play.breaks("z")
    play.retry("a", "m[0]")
    assert "m[0]" not in play.task.spec.plan.index


def test_the_children_of_a_map_end_with_it_if_the_retry_stops_it_at_once():
    z = {"type": "sleep", "io": {"for_sec": 0}, "fan_in": "any", "on_satisfied": "cancel"}
    play = Play(graph("m a -> z", "z -> y", m=mapped(), z=z, y=ONCE))
    play.opens("m", 2)
    play.succeeds("a")
    play.breaks("y")
    assert started(play.retry("z")) == ["y"]
    assert (play.status("m"), statuses(play)) == (NodeStatus.CANCELLED, ["cancelled"] * 2)
    play.succeeds("y")
    assert play.task.status is TaskStatus.FINISHED


def test_reports_of_attempts_before_a_retry_are_ignored():
    play = failed_at_one_of_three()
    token = play.token("m[1]")
    play.retry()
    play.begins("m")
    assert play.succeeds("m[1]", attempt=1, token=token).ignored


def test_a_retry_of_a_child_runs_it_and_what_is_below_the_map():
    play = running(2, "m -> z", "z -> y", m=mapped(), y=ONCE)
    for child in ("m[0]", "m[1]"):
        play.succeeds(child)
    play.collects("m", 1, 2)
    play.succeeds("z")
    play.breaks("y")
    play.retry("m[1]")
    assert started(play.begins("m")) == ["m[1]"]
    assert play.status("z") is NodeStatus.QUEUED
    play.succeeds("m[1]")
    assert started(play.collects("m", 1, 3)) == ["z"]


def test_a_child_that_runs_again_has_artifacts_of_its_own():
    play = running(2, "m -> z", m=mapped(), z=ONCE)
    for child in ("m[0]", "m[1]"):
        play.succeeds(child)
    play.collects("m", 1, 2)
    play.breaks("z")
    play.retry("m[1]")
    play.begins("m")
    assert [play.record(name).generation for name in ("m[0]", "m[1]", "m")] == [0, 1, 1]


def test_a_retry_of_a_finished_map_evaluates_its_items_again():
    play = running(2, "m -> z", m=mapped(), z=ONCE)
    for child in ("m[0]", "m[1]"):
        play.succeeds(child)
    play.collects("m", 1, 2)
    play.breaks("z")
    token = play.token("m[0]")
    assert effects(play.retry("m")) == ["open m"]
    assert started(play.opens("m", 1)) == ["m[0]"]
    assert play.record("m[0]").generation == 1
    assert play.succeeds("m[0]", attempt=1, token=token).ignored
    assert not play.succeeds("m[0]").ignored


def test_results_that_were_collected_before_a_retry_are_ignored():
    play = running(1)
    play.succeeds("m[0]")
    attempt = play.record("m").attempt
    play.cancel()
    play.retry()
    play.begins("m")
    assert play.collects("m", 7, attempt=attempt).ignored
    play.collects("m", 7)
    assert play.task.status is TaskStatus.FINISHED


def test_with_continue_a_retry_runs_a_failed_child_only_if_it_is_named():
    fields = {**mapped(on_item_failure="continue"), **ONCE}
    for named, again in (((), []), (("m[0]",), ["m[0]"])):
        play = running(2, "m -> z", m=fields, z=ONCE)
        play.breaks("m[0]")
        play.succeeds("m[1]")
        play.collects("m", None, 1)
        play.breaks("z")
        step = play.retry(*named)
        if named:
            step = play.begins("m")
        assert [name for name in started(step) if name != "z"] == again


def test_the_letter_of_a_failed_child_runs_it_again():
    play = running(2, m={**mapped(on_item_failure="continue"), **ONCE})
    play.breaks("m[0]")
    play.succeeds("m[1]")
    play.collects("m", None, 1)
    play.retry("m[0]", fill=True)
    assert started(play.begins("m")) == ["m[0]"]


# ---------------------------------------------------------------- restarts


@pytest.mark.parametrize("size", [0, 1, 3])
def test_the_items_of_a_map_are_evaluated_again_after_a_restart(size: int):
    play = Play(graph("m", m=mapped()))
    assert play.pending == ["open m"]
    play.opens("m", size)
    assert "open m" not in play.pending


def test_the_results_of_a_map_are_collected_again_after_a_restart():
    play = running(1)
    assert play.pending == ["run m[0]"]
    play.succeeds("m[0]")
    assert play.pending == ["collect m"]


def test_a_map_that_waits_for_its_items_or_results_is_woken():
    play = Play(graph("m", m=mapped()))
    assert play.task.wake_at is not None
    assert [type(effect) for effect in play.later(5).effects] == [OpenMap]
    play.opens("m", 1)
    play.succeeds("m[0]")
    assert [type(effect) for effect in play.later(5).effects] == [CollectMap]
