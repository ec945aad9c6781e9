"""Maps whose children run child tasks."""

from dataclasses import replace
from typing import Any

from flowkit._engine import ChildrenCreated, RunChild, child_node, pending_effects
from flowkit.messages import ChildEnded
from flowkit.task import Mark, NodeStatus, TaskStatus
from tests.engine.drive import Play, effects, graph


def opened(size: int, *lines: str, **fields: Any) -> Play:
    """Return a task whose mapped sub-flow ``s`` has begun with children."""
    inner = {"nodes": [{"node_id": "x", "type": "work"}]}
    spec = {"over": [], **fields.pop("map", {})}
    node = {"type": "subflow", "io": {"graph": inner}, "map": spec, **fields}
    play = Play(graph(*(lines or ["s"]), s=node))
    play.opens("s", size)
    return play


def test_each_child_runs_a_child_task_and_the_map_none() -> None:
    play = opened(3, map={"max_parallel": 2})
    assert play.status("s") is NodeStatus.RUNNING
    assert pending_effects(play.task) == [RunChild(1, 1), RunChild(2, 1)]
    assert effects(play.child_finishes("s[1]", {"x": 1})) == ["follow s[2]"]
    for name in ("s[0]", "s[2]"):
        step = play.child_finishes(name)
    assert effects(step) == ["collect s"]
    play.collects("s", 1, 2, 3)
    assert play.task.status is TaskStatus.FINISHED


def test_a_pause_a_resume_and_a_forced_cancel_reach_the_children_that_have_begun() -> None:
    play = opened(3, map={"max_parallel": 2})
    followed = ["follow s[0]", "follow s[1]"]
    assert effects(play.pause()) == followed
    assert effects(play.resume()) == followed
    assert effects(play.cancel()) == followed
    assert effects(play.cancel(force=True)) == followed
    assert (play.status("s"), play.status("s[2]")) == ("cancelling", "cancelled")
    for name in ("s[0]", "s[1]"):
        assert play.task.status is TaskStatus.CANCELLING
        play.child_fails(name)
    assert (play.status("s"), play.task.status) == ("cancelled", "cancelled")


def test_a_failed_child_has_the_others_stopped_and_the_map_ends_after_them() -> None:
    play = opened(3)
    assert effects(play.child_fails("s[1]")) == ["follow s[0]", "follow s[2]"]
    play.child_fails("s[2]")
    play.later(100_000)
    assert (play.status("s"), play.status("s[0]")) == ("running", "cancelling")
    play.child_fails("s[0]")
    assert (play.status("s"), play.record("s").reason_code) == ("failed", "map_item_failed")


def test_a_notice_about_anything_but_a_running_child_has_nothing_read() -> None:
    play = opened(2, "s -> b")
    assert effects(play.do(ChildEnded(task_id="t", index=3))) == ["follow s[1]"]
    play.child_finishes("s[0]")
    for index in (0, 1, 2, 4, 99):
        assert effects(play.do(ChildEnded(task_id="t", index=index))) == []


def test_stored_child_tasks_are_recorded_for_the_children_that_still_wait_for_them() -> None:
    play = opened(3)
    nodes = [child_node(play.task, index, play.task.records[index]) for index in (1, 2, 3)]
    play.child_finishes("s[1]")
    step = play.do(ChildrenCreated([nodes[0], nodes[1], replace(nodes[2], attempt=2)]))
    assert not step.ignored
    links = [play.record(f"s[{number}]").child for number in range(3)]
    assert [link and link.created for link in links] == [True, False, False]
    assert play.do(ChildrenCreated(nodes[:2])).ignored


def test_a_retry_keeps_the_child_task_of_a_child_that_had_not_finished() -> None:
    play = opened(3)
    play.creates("s[0]", "s[1]", "s[2]")
    play.child_finishes("s[0]")
    play.child_fails("s[1]")
    play.child_fails("s[2]")
    play.retry("s[0]")
    records = [play.record(f"s[{number}]") for number in range(3)]
    assert [record.generation for record in records] == [1, 0, 0]
    assert [record.child and record.child.created for record in records] == [None, True, True]


def test_a_child_that_has_not_begun_is_a_mark_and_no_record() -> None:
    play = opened(1_000, map={"max_parallel": 2})
    assert set(play.task.records) == {0, 1, 2}
    assert play.task.marks.count(Mark.WAITING) == 998
