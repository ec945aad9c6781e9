"""Cancel, pause, resume and retry in every state of a task."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit._engine import SendCancel
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import FUNCTION, NOON, ONCE, STEADY, Play, changes, effects, graph, started


def queued() -> Play:
    return Play(graph("a -> b"))


def running() -> Play:
    play = queued()
    play.starts("a")
    return play


def deferred() -> Play:
    play = Play(graph("a -> b", a={"retry_policy": STEADY}))
    play.fails("a")
    return play


def paused() -> Play:
    play = running()
    play.pause()
    return play


def cancelling() -> Play:
    play = running()
    play.cancel("enough")
    return play


def finished() -> Play:
    play = queued()
    play.succeeds("a")
    play.succeeds("b")
    return play


def failed() -> Play:
    play = queued()
    play.succeeds("a")
    play.breaks("b")
    return play


def cancelled() -> Play:
    play = queued()
    play.cancel("enough")
    return play


Given = Callable[[], Play]
STATES: tuple[Given, ...] = (
    queued,
    running,
    deferred,
    paused,
    cancelling,
    finished,
    failed,
    cancelled,
)


@pytest.mark.parametrize("given", STATES)
def test_the_states_are_what_they_are_called(given: Given):
    assert given().task.status == given.__name__


# ---------------------------------------------------------------- cancel


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        (queued, "cancelled"),
        (running, "cancelling"),
        (deferred, "cancelled"),
        (paused, "cancelling"),
    ],
)
def test_cancel_stops_what_runs_and_lets_nothing_begin(given: Given, becomes: str):
    play = given()
    play.cancel("enough")
    assert play.task.status == becomes
    assert play.status("b") is NodeStatus.CANCELLED


@pytest.mark.parametrize("given", [cancelling, finished, failed, cancelled])
def test_cancel_changes_nothing_in_a_task_that_ends_or_has_ended(given: Given):
    play = given()
    assert play.cancel("again").ignored


def test_a_cancelled_task_tells_why():
    play = cancelling()
    step = play.stops("a")
    assert step.log[-1][3:] == ("cancelled", "enough")
    assert play.task.reason == "enough"
    assert play.task.error is None


def test_cancelling_a_task_cancels_its_runs_with_the_reason():
    play = Play(graph("a b f", f=FUNCTION))
    play.starts("a")
    step = play.cancel("enough")
    assert [
        (effect.index, effect.reason) for effect in step.effects if isinstance(effect, SendCancel)
    ] == [
        (0, "enough"),
        (1, "enough"),
        (2, "enough"),
    ]


def test_a_command_that_was_on_its_way_when_the_task_was_cancelled_is_stopped_when_it_begins():
    play = cancelled()
    step = play.starts("a")
    assert step.ignored
    assert step.effects == [SendCancel(0, 1, play.token("a"), "enough")]


def test_a_cancelled_node_keeps_the_reason_however_its_run_ends():
    for report in ("stops", "fails", "is_released"):
        play = cancelling()
        getattr(play, report)("a")
        assert play.status("a") is NodeStatus.CANCELLED
        assert (play.record("a").reason_code, play.record("a").finished_at) == ("cancelled", NOON)


# ---------------------------------------------------------------- pause and resume


@pytest.mark.parametrize("given", [queued, running, deferred])
def test_a_paused_task_begins_nothing(given: Given):
    play = given()
    before = play.task.status
    assert play.pause().status is TaskStatus.PAUSED
    step = play.succeeds("a")
    assert started(step) == []
    assert play.task.status is TaskStatus.PAUSED
    assert started(play.resume()) == ["b"]
    assert before != TaskStatus.PAUSED


@pytest.mark.parametrize("given", [paused, cancelling, finished, failed, cancelled])
def test_pause_changes_nothing_in_a_task_that_is_paused_or_ends(given: Given):
    assert given().pause().ignored


@pytest.mark.parametrize(
    "given", [queued, running, deferred, cancelling, finished, failed, cancelled]
)
def test_resume_changes_nothing_in_a_task_that_is_not_paused(given: Given):
    assert given().resume().ignored


@pytest.mark.parametrize("given", [queued, running, deferred])
def test_resume_leads_back_to_where_the_task_was(given: Given):
    play = given()
    before = play.task.status
    play.pause()
    assert play.resume().status is before


def test_a_retry_that_is_due_waits_for_the_end_of_the_pause():
    play = deferred()
    play.pause()
    assert started(play.later(10)) == []
    assert started(play.resume()) == ["a"]


def test_what_runs_when_the_task_is_paused_may_end_it():
    play = Play(graph("a"))
    play.pause()
    assert play.succeeds("a").status is TaskStatus.FINISHED
    assert play.resume().ignored


def test_a_failure_ends_the_pause():
    play = Play(graph("a b"))
    play.starts("b")
    play.pause()
    assert play.breaks("a").status is TaskStatus.CANCELLING
    assert play.resume().ignored
    play.stops("b")
    assert started(play.retry()) == ["a", "b"]


# ---------------------------------------------------------------- retry


@pytest.mark.parametrize("given", [queued, running, deferred, paused, cancelling, finished])
def test_retry_is_for_tasks_that_failed_or_were_cancelled(given: Given):
    assert given().retry().ignored
    assert given().retry("a").ignored


def test_a_failed_task_runs_again_from_its_failed_nodes_and_keeps_what_is_finished():
    play = failed()
    step = play.retry()
    assert started(step) == ["b"]
    assert changes(step) == ["b queued", "b queued", "queued"]
    assert play.marks == "Fq"
    assert play.record("a").generation == 0
    play.now += 5
    assert play.succeeds("b").status is TaskStatus.FINISHED
    assert (play.task.error, play.task.started_at, play.task.finished_at) == (
        None,
        NOON + 5,
        NOON + 5,
    )


def test_a_cancelled_task_runs_again():
    play = cancelled()
    assert started(play.retry()) == ["a"]
    assert play.task.reason is None
    play.succeeds("a")
    assert play.succeeds("b").status is TaskStatus.FINISHED


def test_named_nodes_and_all_below_them_run_again():
    play = Play(graph("a -> b", "b -> c d", "d -> e", "x"), max_in_flight=10)
    for name in "abcx":
        play.succeeds(name, name)
    play.breaks("d")
    step = play.retry("b")
    assert started(step) == ["b"]
    assert play.marks == "Fq...F"
    assert play.record("b").generation == 1
    assert play.record("b").result is None
    assert [entry[1] for entry in step.log if entry[4] == {"retry": True}] == [1, 2, 3, 4]


def test_stopped_nodes_run_again_whichever_node_is_retried():
    play = Play(graph("a b -> c"))
    play.starts("a")
    play.breaks("a")
    assert started(play.retry("a")) == ["a", "b"]


def test_a_failure_that_was_not_chosen_fails_the_task_again_at_its_end():
    play = Play(graph("a b", on_node_failure="continue", a=ONCE, b=ONCE))
    play.fails("a")
    play.fails("b", "worse")
    assert play.task.error == "node 'a' failed: boom: it broke"
    assert started(play.retry("a")) == ["a"]
    assert play.task.error == "node 'b' failed: worse: it broke"
    assert play.succeeds("a").status is TaskStatus.FAILED


def test_a_failure_that_was_not_chosen_stops_nothing():
    play = Play(graph("a", "b"))
    play.succeeds("b")
    play.breaks("a")
    play.retry("b")
    assert play.status("b") is NodeStatus.QUEUED
    assert play.succeeds("b").status is TaskStatus.FAILED


def test_a_handled_failure_is_not_retried():
    play = Play(graph("a !> h", "h -> x", "y", a=ONCE, x=ONCE))
    play.fails("a")
    play.succeeds("h")
    play.succeeds("y")
    play.fails("x")
    assert started(play.retry()) == ["x"]


def test_nodes_that_were_skipped_below_a_failure_get_another_chance():
    play = Play(graph("a -> b", "b -> c", on_node_failure="continue"))
    play.breaks("a")
    assert play.marks == "Xxx"
    play.retry()
    assert play.marks == "q.."


def test_a_node_of_any_parent_that_finished_stays_finished():
    play = Play(graph("a b -> c", "x", on_node_failure="continue", c={"fan_in": "any"}))
    play.breaks("a")
    for name in "bcx":
        play.succeeds(name)
    assert started(play.retry()) == ["a"]
    assert play.status("c") is NodeStatus.FINISHED
    assert play.succeeds("a").status is TaskStatus.FINISHED


def test_a_retry_runs_all_that_was_skipped_below_the_failure_and_nothing_that_was_not():
    play = Play(graph("e -> f", "d f -> g", "g -> h", "d -> i", on_node_failure="continue"))
    for name in "di":
        play.succeeds(name)
    play.breaks("e")
    assert started(play.retry()) == ["e"]
    assert play.marks == "q.F..F"
    for name in "efg":
        play.succeeds(name)
    assert play.succeeds("h").status is TaskStatus.FINISHED


def test_a_join_that_ran_without_a_branch_below_a_failure_runs_again_for_the_branch():
    play = Play(
        graph(
            "e -> f", "f !> h", "h d -> j", "j -> k", "d -> x", on_node_failure="continue", f=ONCE
        )
    )
    play.breaks("e")
    for name in "djkx":
        play.succeeds(name)
    play.retry()
    assert play.marks == "q..F..F"
    play.succeeds("e")
    play.fails("f")
    for name in "hj":
        play.succeeds(name)
    assert play.succeeds("k").status is TaskStatus.FINISHED


def test_what_was_made_of_a_node_that_runs_again_runs_again_also_below_any():
    play = Play(
        graph(
            "e -> f",
            "f !> h",
            "h d -> j",
            "j d -> k",
            on_node_failure="continue",
            k={"fan_in": "any"},
        )
    )
    play.breaks("e")
    for name in "djk":
        play.succeeds(name)
    play.retry()
    assert play.status("j") is play.status("k") is NodeStatus.QUEUED


@pytest.mark.parametrize("fan_in", ["any", "count:1"])
@pytest.mark.parametrize("arrow", ["=>", "->"])
def test_a_node_of_some_parents_that_read_part_of_the_batches_of_a_failed_one_runs_again(
    fan_in: str, arrow: str
):
    play = Play(graph(f"a b {arrow} c", on_node_failure="continue", c={"fan_in": fan_in}))
    play.stores_a_batch("a")
    play.breaks("a")
    play.succeeds("b")
    play.succeeds("c", pulled=True)
    play.retry()
    assert (play.status("c"), play.record("c").generation) == (NodeStatus.QUEUED, 1)


def test_a_node_that_pulled_part_of_the_batches_of_a_node_far_above_runs_again():
    pull = {
        "input_inline": {
            "input_adapter": "pull.from_artifacts",
            "input_args": {"from_nodes": ["x"]},
        }
    }
    flow = graph(
        "x d -> m",
        "m -> c",
        on_node_failure="continue",
        m={"fan_in": "any"},
        c={"io": pull},
    )
    play = Play(flow)
    play.stores_a_batch("x")
    play.breaks("x")
    play.succeeds("d")
    play.succeeds("m")
    play.succeeds("c", pulled=True)
    play.retry()
    assert (play.marks, play.record("c").generation) == ("qFFq", 1)


def test_a_node_that_had_the_other_parents_stopped_was_owed_nothing_by_them():
    play = Play(graph("a b => c", "x", c={"fan_in": "any", "on_satisfied": "cancel"}))
    play.stores_a_batch("a")
    play.succeeds("b")
    play.stops("a")
    play.succeeds("c", pulled=True)
    play.breaks("x")
    play.retry()
    assert (play.status("a"), play.status("c")) == (NodeStatus.QUEUED, NodeStatus.FINISHED)


def without_b(*flow: str, finish: str, **fields: Any) -> Play:
    """Return a finished task that stopped ``b``.

    ``c`` did not need it after these nodes had finished.
    """
    play = Play(graph(*flow, **{"c": {"fan_in": "any", "on_satisfied": "cancel"}, **fields}))
    for name in finish:
        play.succeeds(name)
    assert (play.task.status, play.status("b")) == (TaskStatus.FINISHED, NodeStatus.CANCELLED)
    return play


def test_a_node_that_a_finished_task_stopped_runs_again_if_a_child_that_runs_again_needs_it():
    play = without_b("a b -> c", "b -> d", finish="ac", on_node_failure="continue")
    assert play.marks == "FCFx"
    play.retry("a", fill=True)
    assert play.marks == "qq.."
    play.breaks("a")
    play.succeeds("b")
    play.succeeds("c", "of b")
    assert (play.succeeds("d").status, play.record("c").result) == (TaskStatus.FAILED, "of b")


def test_stopped_nodes_run_again_with_stopped_nodes_that_need_them():
    play = Play(
        graph(
            "r -> b",
            "r z -> w",
            "a b -> c",
            **{name: {"fan_in": "any", "on_satisfied": "cancel"} for name in "wc"},
        )
    )
    for name in "azcw":
        play.succeeds(name)
    assert play.marks == "CCFFFF"
    play.retry("a", fill=True)
    assert play.marks == "q.FFq."


def test_a_stopped_node_runs_again_if_a_node_below_it_that_was_skipped_is_needed():
    play = Play(
        graph(
            "q -> p",
            "q z -> w",
            "a p -> c",
            w={"fan_in": "any", "on_satisfied": "cancel"},
            c={"fan_in": "any"},
        )
    )
    for name in "zwac":
        play.succeeds(name)
    assert play.marks == "CxFFFF"
    play.retry("w", fill=True)
    assert play.marks == "CxFqFF"
    play.succeeds("w")
    play.retry("a", fill=True)
    assert play.marks == "q.FFq."


def test_a_stopped_node_stays_stopped_if_the_parents_that_keep_their_results_are_enough():
    play = without_b("a b -> c", finish="ac")
    play.retry("c", fill=True)
    assert play.marks == "FCq"


def test_a_stopped_node_stays_stopped_if_a_child_that_runs_again_waits_for_its_failure_alone():
    play = without_b("a b -> c", "b !> h", "d -> h", finish="acdh")
    play.retry("d", fill=True)
    assert (play.status("b"), play.status("h")) == (NodeStatus.CANCELLED, NodeStatus.QUEUED)


def test_a_child_that_can_start_at_once_stops_no_parent_whose_result_a_retry_replaces():
    play = Play(
        graph("z -> m", "m d -> c", "m -> e", c={"fan_in": "any", "on_satisfied": "cancel"})
    )
    play.succeeds("z")
    play.pause()
    for name in "md":
        play.succeeds(name)
    play.resume()
    for name in "ce":
        play.succeeds(name)
    assert play.task.status is TaskStatus.FINISHED
    play.retry("z", fill=True)
    for name in "czme":
        play.succeeds(name, "new")
    assert play.task.status is TaskStatus.FINISHED
    assert {play.record(name).result for name in "zmce"} == {"new"}


def test_a_node_that_a_retry_names_is_not_stopped_as_not_needed():
    play = Play(graph("a b -> c", c={"fan_in": "any", "on_satisfied": "cancel"}))
    play.succeeds("a")
    play.breaks("c")
    assert play.marks == "FCX"
    play.retry("b")
    assert play.marks == "Fqq"
    play.succeeds("c")
    assert play.succeeds("b").status is TaskStatus.FINISHED


def test_a_reader_that_finished_before_its_parent_failed_runs_again():
    play = Play(graph("a => b", on_node_failure="continue"))
    play.stores_a_batch("a")
    play.succeeds("b")
    play.breaks("a")
    assert play.marks == "XF"
    play.retry()
    assert (play.marks, play.record("b").generation) == ("q.", 1)


def test_a_retry_leaves_alone_what_is_below_a_handled_failure_and_a_failure_that_was_not_chosen():
    play = Play(
        graph("e !> h", "e -> f", "x -> y", "z -> w", "f y -> j", on_node_failure="continue")
    )
    play.breaks("e")
    play.succeeds("h")
    play.breaks("x")
    play.breaks("z")
    play.retry("x")
    assert play.status("x") is NodeStatus.QUEUED
    assert {play.status(name) for name in "fwj"} == {NodeStatus.SKIPPED}
    assert play.record("j").reason_code == "upstream_failed"


def test_a_retry_with_nothing_left_to_run_ends_well():
    play = Play(graph("a"))
    play.starts("a")
    play.cancel()
    assert play.succeeds("a").status is TaskStatus.CANCELLED
    began = play.task.started_at
    play.later(10)
    assert play.retry().status is TaskStatus.FINISHED
    assert (play.task.started_at, play.task.finished_at) == (began, NOON + 10)
    assert play.retry().ignored


def test_what_stands_below_a_node_that_begins_from_nothing_begins_from_nothing_too():
    play = Play(graph("a => b", "b -> c", "x -> c"))
    play.starts("a")
    play.stores_a_batch("a")
    play.succeeds("x")
    play.starts("b")
    play.stores_a_batch("b")
    play.succeeds("a")
    play.fails("b", permanent=True)
    assert play.task.status is TaskStatus.FAILED
    play.retry("a")
    generations = {
        name: play.task.records[play.task.spec.plan.index[name]].generation for name in "abx"
    }
    assert generations == {"a": 1, "b": 1, "x": 0}


def test_a_retry_begins_a_fresh_run_of_the_retry_policy():
    play = Play(graph("a", a={"retry_policy": {**STEADY, "max": 1}}))
    play.fails("a")
    play.later(10)
    play.fails("a")
    assert play.task.status is TaskStatus.FAILED
    play.retry()
    assert play.record("a").attempt == 3
    play.fails("a")
    assert play.task.status is TaskStatus.DEFERRED
    play.later(10)
    assert play.fails("a").status is TaskStatus.FAILED


def test_attempts_before_a_retry_count_for_nothing():
    play = Play(graph("a", a=ONCE))
    play.fails("a")
    play.retry()
    assert play.succeeds("a", attempt=1).ignored
    assert play.succeeds("a", attempt=2).status is TaskStatus.FINISHED


def test_progress_outlives_a_retry_but_not_a_finished_run():
    play = Play(graph("a -> b"))
    play.progresses("a", 1)
    play.succeeds("a")
    play.progresses("b", 2)
    play.breaks("b")
    play.retry()
    assert play.record("b").progress == 2
    play.breaks("b")
    play.retry("a")
    assert play.record("a").progress is None


def test_every_run_of_a_task_has_the_whole_deadline():
    play = Play(graph("a"), deadline_sec=100)
    play.later(100)
    for _ in range(2):
        play.retry()
        assert (play.task.deadline_at, play.task.outcome) == (play.now + 100, None)
        play.later(99)
        assert play.task.status is TaskStatus.QUEUED
        assert play.later(1).status is TaskStatus.FAILED


def test_a_retried_node_whose_parents_are_still_against_it_is_skipped_again():
    play = Play(graph("a -> b", "b -> c", on_node_failure="continue"))
    play.breaks("a")
    step = play.retry("b")
    assert changes(step) == ["b queued", "c queued", "b skipped", "c skipped"]
    assert step.status is TaskStatus.FAILED


def test_a_retried_condition_is_evaluated_again():
    play = Play(graph("a -> b", b={"when": "vars.x"}))
    play.succeeds("a")
    play.condition("b", error="there is no x")
    assert effects(play.retry()) == ["decide b"]
    assert started(play.condition("b", value=True)) == ["b"]


def test_ten_thousand_nodes_in_a_chain_are_retried_at_once():
    size = 10_000
    play = Play(graph(*(f"n{index} -> n{index + 1}" for index in range(size))), check=False)
    play.breaks("n0")
    play.retry()
    assert play.marks == "q" + "." * size
