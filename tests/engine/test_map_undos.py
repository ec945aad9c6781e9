"""Undos of the children of maps."""

from typing import Any

from flowkit._engine import EndsRead, RetryRequested, Transition
from flowkit._records.record_parts import RecordWriter
from flowkit._tasks.explanations import explain_node
from flowkit._tasks.map_children import no_such_node
from flowkit._tasks.views import node_view
from flowkit.task import Mark, NodeStatus, TaskStatus
from tests.engine.drive import ONCE, STEADY, Play, changes, effects, graph, started

UNDO: dict[str, Any] = {"undo": {"type": "undo", "retry_policy": {"max": 1, **STEADY}}}
MAP: dict[str, Any] = {"map": {"over": []}, **ONCE, **UNDO}
GOES_ON: dict[str, Any] = {**MAP, "map": {"over": [], "on_item_failure": "continue"}}
TIDY: tuple[dict[str, Any], ...] = ({"node_id": "tidy", "type": "tidy", **ONCE},)


def saga(
    *, size: int = 3, order: tuple[int, ...] = (1, 2, 0), fields: dict[str, Any] = MAP
) -> Play:
    """Return a task whose map has finished, its children in this order, and then a node ``b`` with
    an undo. The node ``z`` is issued.
    """
    play = Play(graph("m b -> z", m=fields, b=UNDO, z=ONCE, final=TIDY))
    play.opens("m", size)
    for number in order:
        play.succeeds(f"m[{number}]")
    play.collects("m", *range(size))
    play.succeeds("b")
    return play


def in_undo(*, most: int = 100, **options: Any) -> Play:
    """Return a failed task. Its node ``b`` is undone, and the undo of the first child is issued.

    The order of up to ``most`` children is known.
    """
    play = saga(**options)
    play.breaks("z")
    play.reads_ends("m~undo", most=most)
    play.succeeds("b~undo")
    return play


def undone(play: Play, step: Transition, *, most: int = 100) -> list[str]:
    """Run the undos that follow from a transition, and return them in their order."""
    order: list[str] = []
    while True:
        asked = [words.split()[1] for words in effects(step) if words.startswith("order")]
        undos = [name for name in started(step) if name.endswith("~undo")]
        order += undos
        if asked:
            step = play.reads_ends(asked[0], most=most)
        elif undos:
            step = play.succeeds(undos[0])
        else:
            return order


# ---------------------------------------------------------------- order


def test_the_children_of_a_map_are_undone_one_at_a_time_the_last_end_first():
    play = saga()
    assert effects(play.breaks("z")) == ["order m~undo"]
    assert started(play.reads_ends("m~undo")) == ["b~undo"]
    assert started(play.succeeds("b~undo")) == ["m[0]~undo"]
    assert started(play.succeeds("m[0]~undo")) == ["m[2]~undo"]
    assert started(play.succeeds("m[2]~undo")) == ["m[1]~undo"]
    step = play.succeeds("m[1]~undo")
    assert "m~undo finished" in changes(step)
    assert started(step) == ["tidy"]


def test_the_children_of_maps_and_other_nodes_are_undone_in_one_order():
    play = Play(graph("m n a b -> z", m=MAP, n=MAP, a=UNDO, b=UNDO, z=ONCE))
    play.opens("m", 2)
    play.opens("n", 2)
    for name in ("n[1]", "m[0]", "a", "n[0]", "b", "m[1]"):
        play.succeeds(name)
    play.collects("m", 1, 2)
    play.collects("n", 1, 2)
    assert undone(play, play.breaks("z"), most=1) == [
        f"{name}~undo" for name in ("m[1]", "b", "n[0]", "a", "m[0]", "n[1]")
    ]


def test_the_order_is_read_some_children_at_a_time():
    play = saga(size=5, order=(4, 0, 3, 1, 2))
    assert undone(play, play.breaks("z"), most=2) == [
        "b~undo",
        *(f"m[{number}]~undo" for number in (2, 1, 3, 0, 4)),
    ]


def test_an_undo_of_a_child_that_is_to_be_retried_holds_back_the_others():
    play = in_undo()
    assert started(play.fails("m[0]~undo")) == []
    assert started(play.later(10)) == ["m[0]~undo"]
    assert started(play.fails("m[0]~undo")) == ["m[2]~undo"]
    assert play.record("m[0]~undo").letter == 2
    view = node_view(play.task, play.index("m~undo"))
    assert view.children == {"failed": 1, "queued": 2}


def test_a_child_that_did_not_finish_is_not_undone():
    play = Play(graph("m", m=GOES_ON))
    play.opens("m", 4)
    play.succeeds("m[0]")
    play.breaks("m[1]")
    play.starts("m[2]")
    play.withdraws(play.cancel())
    step = play.stops("m[2]")
    assert [play.status(f"m[{number}]~undo") for number in range(4)] == [
        NodeStatus.QUEUED,
        *[NodeStatus.SKIPPED] * 3,
    ]
    assert undone(play, step) == ["m[0]~undo"]
    assert play.task.status is TaskStatus.CANCELLED


def test_the_finished_children_of_a_map_that_failed_are_undone():
    play = Play(graph("m", m=MAP))
    play.opens("m", 3)
    play.succeeds("m[2]")
    play.starts("m[0]")
    play.breaks("m[1]")
    assert play.status("m~undo") is NodeStatus.QUEUED
    step = play.succeeds("m[0]")
    assert play.status("m") is NodeStatus.FAILED
    assert undone(play, step) == ["m[0]~undo", "m[2]~undo"]


def test_the_children_of_a_map_whose_results_cannot_be_used_are_undone():
    play = Play(graph("m", m=MAP))
    play.opens("m", 2)
    play.succeeds("m[0]")
    play.succeeds("m[1]")
    assert undone(play, play.map_fails("m", "result_too_large")) == ["m[1]~undo", "m[0]~undo"]


def test_a_map_without_finished_children_has_nothing_to_undo():
    for size in (0, 2):
        play = Play(graph("m", "z", m=MAP, z=ONCE))
        play.opens("m", size)
        if not size:
            play.collects("m")
        play.starts("z")
        play.withdraws(play.breaks("z"))
        assert play.status("m~undo") is NodeStatus.SKIPPED
        assert play.task.status is TaskStatus.FAILED
        why = explain_node(play.task, play.index("m~undo"), {}, now=0, unserved=None)
        assert why == (
            "'m~undo' was skipped: no child of 'm' finished, so there is nothing to undo."
        )


def test_no_child_is_undone_in_a_task_that_finishes():
    play = saga()
    assert started(play.succeeds("z")) == ["tidy"]
    assert play.status("m~undo") is NodeStatus.SKIPPED
    assert play.index("m[0]~undo") == len(play.task.marks)
    assert "'m~undo' has children when the task fails" in str(no_such_node(play.task, "m[0]~undo"))


def test_the_children_of_a_map_over_artifacts_are_undone_over_several_blocks_of_places():
    fields = {"map": {"over": {"artifacts": "a"}}, **ONCE, **UNDO}
    play = Play(graph("a -> m", m=fields, z=ONCE))
    play.starts("a")
    play.stores_a_batch("a")
    play.grows("m", 16)
    play.grows("m", 4)
    for number in (*range(1, 20), 0):
        play.succeeds(f"m[{number}]")
    play.breaks("z")
    assert undone(play, play.stops("a"), most=7) == [
        f"m[{number}]~undo" for number in (0, *range(19, 0, -1))
    ]


def test_the_undo_of_a_map_stores_nothing_before_it_runs():
    with_undo, without = saga(), saga(fields={**MAP, "undo": None})
    for number in range(3):
        assert with_undo.record(f"m[{number}]") == without.record(f"m[{number}]")
    assert len(with_undo.log) == len(without.log)
    assert with_undo.index("m~undo") not in with_undo.task.records


# ---------------------------------------------------------------- other events


def test_cancel_pause_and_deadline_do_not_touch_the_undos_of_children():
    play = in_undo()
    assert play.cancel("again").ignored
    assert play.pause().ignored
    assert play.later(100_000).task.status is TaskStatus.CANCELLING
    assert play.status("m[0]~undo") is NodeStatus.QUEUED


def test_a_forced_cancel_ends_the_undos_of_children():
    play = in_undo(most=1)
    play.starts("m[0]~undo")
    play.cancel(force=True)
    assert play.status("m~undo") is NodeStatus.CANCELLING
    play.stops("m[0]~undo")
    assert {play.status(f"m[{number}]~undo") for number in range(3)} == {NodeStatus.CANCELLED}
    assert play.task.status is TaskStatus.FAILED


def test_the_order_that_was_not_read_is_asked_for_again():
    play = saga()
    play.breaks("z")
    for _ in range(2):
        assert play.pending == ["order m~undo"]
        assert play.task.wake_at is not None
        assert "order m~undo" in effects(play.later(play.task.wake_at - play.now))
    play.reads_ends("m~undo")
    assert play.pending == ["run b~undo"]


def test_an_order_that_is_known_already_changes_nothing():
    play = saga()
    play.breaks("z")
    before = play.record("m~undo").after
    play.reads_ends("m~undo", most=1)
    assert play.reads_ends("m~undo", before=before).ignored
    assert play.reads_ends("m~undo", attempt=7).ignored
    assert play.do(EndsRead(play.index("b~undo"), 1, 0, 0)).ignored


# ---------------------------------------------------------------- retries


def test_a_retry_after_the_undos_runs_all_children_and_what_is_below_again():
    play = saga()
    undone(play, play.breaks("z"))
    play.succeeds("tidy")
    generation = play.record("m").generation
    assert effects(play.retry()) == ["open m", "run b"]
    assert play.record("m").generation == generation + 1
    assert play.status("z") is NodeStatus.QUEUED
    assert started(play.opens("m", 2)) == ["m[0]", "m[1]"]
    for name in ("m[1]", "b", "m[0]"):
        play.succeeds(name)
    play.collects("m", 1, 2)
    assert undone(play, play.breaks("z")) == ["m[0]~undo", "b~undo", "m[1]~undo"]


def test_all_children_are_new_if_a_retry_names_one_of_the_undone_ones():
    for fill in (False, True):
        play = Play(graph("m", m=MAP))
        play.opens("m", 2)
        play.succeeds("m[0]")
        undone(play, play.breaks("m[1]"))
        assert effects(play.retry("m[1]", fill=fill)) == ["open m"]
        assert started(play.opens("m", 3)) == ["m[0]", "m[1]", "m[2]"]


def test_children_whose_undo_has_not_begun_keep_their_results():
    play = in_undo()
    play.withdraws(play.cancel(force=True))
    play.retry()
    assert [play.status(f"m[{number}]") for number in range(3)] == [
        NodeStatus.QUEUED,
        NodeStatus.FINISHED,
        NodeStatus.FINISHED,
    ]
    play.succeeds("b")
    play.begins("m")
    play.succeeds("m[0]")
    play.collects("m", 1, 2, 3)
    assert undone(play, play.breaks("z")) == [
        f"{name}~undo" for name in ("m[0]", "b", "m[2]", "m[1]")
    ]


def test_the_dead_letters_of_a_map_that_runs_from_nothing_are_dropped():
    play = Play(graph("m", m=MAP))
    play.opens("m", 2)
    play.succeeds("m[0]")
    failed = play.index("m[1]")
    undone(play, play.breaks("m[1]"))
    assert [(one.index, one.attempt) for one in play.retry().letters] == [(failed, 1)]


def test_the_dead_letter_of_an_undo_of_a_child_runs_it_again_and_then_finally():
    play = in_undo()
    play.breaks("m[0]~undo")
    play.succeeds("m[2]~undo")
    play.breaks("m[1]~undo")
    play.succeeds("tidy")
    names = ("m[1]~undo", "m[0]~undo")
    step = play.do(RetryRequested(tuple(map(play.index, names)), fill=True))
    assert started(step) == ["m[0]~undo"]
    assert play.task.status is TaskStatus.CANCELLING
    assert started(play.succeeds("m[0]~undo")) == ["m[1]~undo"]
    assert started(play.succeeds("m[1]~undo")) == ["tidy"]
    play.succeeds("tidy")
    assert play.status("m~undo") is NodeStatus.FINISHED
    assert play.task.status is TaskStatus.FAILED
    assert play.task.marks.count(Mark.FAILED) == 1
    generations = [play.record(f"m[{number}]~undo").generation for number in range(3)]
    play.retry()
    assert play.record("m~undo").generation > max(generations)


# ---------------------------------------------------------------- views


def test_explanations_and_views_name_the_undo_of_a_child():
    play = saga(fields=GOES_ON)
    play.breaks("z")

    def why(name: str) -> str:
        return explain_node(play.task, play.index(name), play.task.records, now=0, unserved=None)

    later = (
        "waits until the undos of the nodes that ended later have ended: undos run one at a time."
    )
    assert why("m[0]~undo") == f"'m[0]~undo' {later}"
    play.reads_ends("m~undo", most=2)
    play.succeeds("b~undo")
    assert "waits until the undos" in why("m[2]~undo")
    assert why("m~undo") == "'m~undo' is running: 3 undos of children have not ended."
    play.breaks("m[0]~undo")
    assert "The other undos run all the same" in why("m[0]~undo")
    view = node_view(play.task, play.index("m[2]~undo"))
    assert (view.node_id, view.phase, view.type) == ("m[2]~undo", "undo", "undo")


def test_the_history_names_the_undos_of_children():
    play = saga()
    assert "m~undo children" in changes(play.breaks("z"))
    play.reads_ends("m~undo")
    play.succeeds("b~undo")
    assert changes(play.starts("m[0]~undo")) == ["m[0]~undo running"]


def test_a_retry_that_runs_many_undone_children_again_stays_small() -> None:
    size = 300
    play = Play(graph("m -> z", m=MAP, z=ONCE), check=False)
    play.opens("m", size)
    for number in range(size):
        play.succeeds(f"m[{number}]", "x" * 1000)
    play.collects("m", *range(size))
    play.breaks("z")
    step = play.reads_ends("m~undo", most=size)
    for _ in range(size - 1):
        (name,) = started(step)
        step = play.succeeds(name)
    play.cancel(force=True)
    writer = RecordWriter(play.task, {})
    writer.add(play.retry())
    commit = writer.commit(play.task, "")
    # The most children that a map has by default are 100,000, and a document has at most 16 MB.
    assert sum(len(name) + len(data) for name, data in commit.put.items()) < 130 * size
