"""Nodes that run child tasks, and child tasks that follow the nodes that run them."""

from typing import Any

from flowkit._engine import FollowParent, RunChild, TellParent, Woke, pending_effects
from flowkit._records.record_parts import RecordWriter, encode_node
from flowkit._records.task_records import decode_task, encode_spec, header_of
from flowkit.messages import ChildEnded
from flowkit.protocols import TaskRecord
from flowkit.task import NodeStatus, ParentNode, Task, TaskStatus
from tests.engine.drive import NOON, STEADY, Play, changes, effects, graph, started

FINAL = ({"node_id": "f", "type": "work"},)
PARENT = ParentNode("p", "s", index=0, generation=0, attempt=1)


def subflow(**fields: Any) -> dict[str, Any]:
    inner = {"nodes": [{"node_id": "x", "type": "work"}]}
    return {"type": "subflow", "io": {"graph": inner}, **fields}


def parent(*lines: str, **fields: Any) -> Play:
    return Play(graph(*(lines or ["s"]), s=subflow(**fields)))


def child(*lines: str, **fields: Any) -> Play:
    play = Play(graph(*(lines or ["x"]), **fields), parent=PARENT)
    play.task.parent_attempt = 1
    return play


# ---------------------------------------------------------------- the node


def test_a_node_runs_while_its_child_task_does() -> None:
    play = parent("s -> b")
    assert play.status("s") == NodeStatus.RUNNING
    assert play.task.status is TaskStatus.RUNNING
    assert pending_effects(play.task) == [RunChild(0, 1)]
    assert started(play.child_finishes("s", {"x": 1})) == ["b"]
    assert play.record("s").result == {"x": 1}


def test_a_subflow_is_not_retried_by_default() -> None:
    play = parent()
    play.child_fails("s")
    assert (play.status("s"), play.record("s").reason_code) == (NodeStatus.FAILED, "subflow_failed")


def test_a_report_about_an_earlier_attempt_is_ignored() -> None:
    play = parent(retry_policy={"max": 1, **STEADY})
    play.child_fails("s")
    play.later(10)
    assert play.record("s").attempt == 2
    assert play.child_fails("s", attempt=1).ignored
    assert play.child_finishes("s", attempt=1).ignored
    assert play.status("s") == NodeStatus.RUNNING


def test_a_cancelled_node_ends_after_its_child_however_long_that_takes() -> None:
    play = parent()
    assert effects(play.cancel()) == ["follow s"]
    play.later(100_000)
    assert (play.status("s"), play.task.status) == (NodeStatus.CANCELLING, TaskStatus.CANCELLING)
    play.child_fails("s")
    assert (play.status("s"), play.task.status) == (NodeStatus.CANCELLED, TaskStatus.CANCELLED)


def test_a_forced_cancel_reaches_a_child_that_is_being_stopped() -> None:
    play = parent()
    assert effects(play.cancel()) == ["follow s"]
    assert not play.task.forced
    assert effects(play.cancel(force=True)) == ["follow s"]
    assert play.task.forced
    assert play.cancel(force=True).ignored
    play.child_fails("s")
    play.retry()
    assert not play.task.forced


def test_an_overdue_node_fails_when_its_child_has_stopped() -> None:
    play = parent(timeouts={"start_to_close_sec": 20})
    assert effects(play.later(20)) == ["follow s"]
    assert play.status("s") == NodeStatus.RUNNING
    play.child_fails("s")
    assert play.record("s").reason_code == "start_to_close_timeout"


def test_a_lost_notice_is_made_up_for_in_pauses_that_double() -> None:
    play = parent()
    pauses = []
    for _ in range(10):
        before = play.now
        assert play.task.wake_at is not None
        assert effects(play.later(play.task.wake_at - play.now)) == ["follow s"]
        pauses.append(play.now - before)
    assert pauses == [5, 10, 15, 30, 60, 120, 240, 320, 320, 320]


def test_child_tasks_that_began_at_different_times_are_checked_together() -> None:
    naps = {f"a{number}": {"type": "sleep", "io": {"for_sec": number}} for number in range(20)}
    nodes = {f"s{number}": subflow() for number in range(20)}
    play = Play(graph(*(f"a{number} -> s{number}" for number in range(20)), **naps, **nodes))
    wakes: list[int] = []
    while play.now < NOON + 2 * 3600:
        assert play.task.wake_at is not None
        play.now = play.task.wake_at + 0.01
        checked = effects(play.do(Woke(due_only=True)))
        if play.now > NOON + 3600:
            wakes.append(len(checked))
    assert len(wakes) <= 3600 / 160 + 1
    assert sum(wakes) >= 20 * 3600 / 320


def test_a_notice_changes_nothing_but_has_the_child_read() -> None:
    play = parent("s -> b")
    step = play.do(ChildEnded(task_id="t", index=0))
    assert (step.ignored, effects(step)) == (True, ["follow s"])
    for index in (1, 7):
        assert effects(play.do(ChildEnded(task_id="t", index=index))) == []


def test_a_retry_keeps_the_child_unless_the_node_had_finished() -> None:
    play = parent("s -> b")
    play.creates("s")
    first = play.record("s")
    play.child_fails("s")
    play.retry()
    assert play.record("s").generation == first.generation
    assert play.record("s").child == first.child
    play.child_finishes("s")
    play.breaks("b")
    play.retry("s")
    record = play.record("s")
    assert (record.generation, record.child and record.child.created) == (1, False)


def test_the_id_of_a_child_follows_from_its_node_and_generation() -> None:
    ids = {
        ParentNode(task, name, 0, generation, attempt).child_id()
        for task in ("t", "u")
        for name in ("a", "b")
        for generation in (0, 1)
        for attempt in (1, 2)
    }
    assert len(ids) == 8
    assert {len(one) for one in ids} == {32}


# ---------------------------------------------------------------- the child task


def test_the_end_of_a_child_notifies_the_parent_also_after_a_crash() -> None:
    play = child()
    assert effects(play.succeeds("x")) == ["tell parent"]
    assert pending_effects(play.task) == [TellParent()]


def test_a_child_stops_with_its_node() -> None:
    play = child("x -> y")
    step = play.do(FollowParent(1, 0, paused=False, stop="enough"))
    assert changes(step) == ["x cancelled", "y cancelled", "cancelled"]
    assert play.task.reason == "enough"
    assert play.do(FollowParent(1, 0, paused=False, stop="enough")).ignored


def test_a_child_that_failed_runs_again_for_a_new_attempt_only() -> None:
    play = child()
    play.breaks("x")
    assert play.do(FollowParent(1, 0, paused=False)).ignored
    assert started(play.do(FollowParent(2, 0, paused=False))) == ["x"]
    assert play.do(FollowParent(2, 0, paused=False)).ignored


def test_an_attempt_that_was_stopped_never_starts_a_child_again() -> None:
    play = child()
    play.breaks("x")
    ended_at = play.task.finished_at
    play.now += 9
    assert effects(play.do(FollowParent(2, 0, paused=False, stop="enough"))) == ["tell parent"]
    assert (play.task.status, play.task.finished_at) == (TaskStatus.FAILED, ended_at)
    assert play.do(FollowParent(2, 0, paused=False)).ignored


def test_a_child_that_stops_for_an_earlier_attempt_runs_again_when_it_has_ended() -> None:
    play = child()
    play.starts("x")
    play.do(FollowParent(1, 0, paused=False, stop="too long"))
    assert play.do(FollowParent(2, 0, paused=False)).ignored
    play.stops("x")
    assert play.task.status is TaskStatus.CANCELLED
    assert started(play.do(FollowParent(2, 0, paused=False))) == ["x"]


def test_undos_and_finally_of_a_child_run_when_it_stops_and_end_only_by_force() -> None:
    play = child("x -> y", x={"undo": {"type": "work"}}, final=FINAL)
    play.succeeds("x")
    stopped = play.do(FollowParent(1, 0, paused=False, stop="enough"))
    assert started(play.withdraws(stopped)) == ["x~undo"]
    assert play.do(FollowParent(1, 0, paused=False, stop="enough")).ignored
    assert started(play.succeeds("x~undo")) == ["f"]
    play.starts("f")
    play.do(FollowParent(1, 0, paused=False, stop="enough", force=True))
    assert play.status("f") == NodeStatus.CANCELLING
    assert play.do(FollowParent(1, 0, paused=False, stop="enough", force=True)).ignored
    assert effects(play.stops("f")) == ["tell parent"]


def test_a_child_that_runs_finally_and_has_finished_otherwise_is_not_stopped() -> None:
    play = child(final=FINAL)
    play.succeeds("x")
    assert play.do(FollowParent(1, 0, paused=False, stop="enough")).ignored
    play.succeeds("f")
    assert play.task.status is TaskStatus.FINISHED


def test_a_child_runs_again_when_its_parent_is_not_paused() -> None:
    play = child()
    play.breaks("x")
    assert play.do(FollowParent(2, 1, paused=True)).ignored
    assert started(play.do(FollowParent(2, 2, paused=False))) == ["x"]


def test_a_resume_reaches_child_tasks_also_if_the_task_itself_is_not_paused() -> None:
    play = parent()
    assert effects(play.resume()) == ["follow s"]
    assert effects(play.pause()) == ["follow s"]
    assert effects(play.pause()) == ["follow s"]
    assert play.task.pauses == 3
    play.resume()
    play.child_finishes("s", {})
    plain = Play(graph("a"))
    assert plain.resume().ignored
    assert not plain.pause().ignored
    assert plain.pause().ignored


def test_each_pause_and_resume_of_the_parent_is_followed_once_and_in_order() -> None:
    play = child("x -> y")
    play.do(FollowParent(1, 1, paused=True))
    assert play.task.status is TaskStatus.PAUSED
    play.resume()
    assert play.do(FollowParent(1, 1, paused=True)).ignored
    play.do(FollowParent(1, 3, paused=True))
    assert play.task.paused
    assert play.do(FollowParent(1, 2, paused=False)).ignored
    play.do(FollowParent(1, 4, paused=False))
    assert not play.task.paused


def test_what_a_child_follows_is_stored() -> None:
    flow = graph("x -> y")
    play = Play(flow, parent=PARENT)
    play.do(FollowParent(3, 5, paused=True))
    task = play.task
    commit = RecordWriter(task, {}).commit(task, "")
    record = TaskRecord(header_of(task), encode_spec(task.spec, flow.source), commit.put)
    found: Task = decode_task(
        TaskRecord(
            record.header,
            record.spec,
            {**commit.put, **{f"n{i}": _node(play, i) for i in task.records}},
        )
    )
    assert (found.parent_attempt, found.parent_pauses, found.pauses) == (3, 5, 1)
    assert found.spec.parent == PARENT
    assert found.spec.created_at == NOON


def _node(play: Play, index: int) -> bytes:
    return encode_node(play.task.records[index])
