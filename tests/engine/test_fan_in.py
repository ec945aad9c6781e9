"""The start of nodes, and the end of nodes that can never start."""

from typing import Any

import pytest

from flowkit._engine import TaskSubmitted, advance, derive
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import NOON, ONCE, STEADY, Play, changes, effects, graph, new_task, started


def test_the_roots_start_when_the_task_is_submitted():
    step = advance(new_task(graph("a b -> c")), TaskSubmitted(), now=NOON)
    assert started(step) == ["a", "b"]
    assert changes(step) == ["queued", "a queued", "b queued"]


def test_a_task_is_submitted_once():
    play = Play(graph("a"))
    assert play.do(TaskSubmitted()).ignored


def test_a_node_waits_for_all_its_parents():
    play = Play(graph("a b -> c"))
    assert started(play.succeeds("a")) == []
    assert started(play.succeeds("b")) == ["c"]


def test_a_node_that_waits_for_any_parent_starts_after_the_first():
    play = Play(graph("a b -> c", c={"fan_in": "any"}))
    assert started(play.succeeds("a")) == ["c"]
    assert started(play.succeeds("b")) == []
    assert play.status("c") is NodeStatus.QUEUED


def test_a_node_that_waits_for_two_of_three_starts_after_the_second():
    play = Play(graph("a b c -> d", d={"fan_in": "count:2"}))
    assert started(play.succeeds("c")) == []
    assert started(play.succeeds("a")) == ["d"]


def test_any_survives_failures_until_no_parent_is_left():
    play = Play(
        graph(
            "a b -> c",
            "a b !> h",
            on_node_failure="continue",
            c={"fan_in": "any"},
            h={"fan_in": "any"},
        )
    )
    play.breaks("a")
    assert play.status("c") is NodeStatus.QUEUED
    assert started(play.succeeds("b")) == ["c"]


@pytest.mark.parametrize(
    ("fan_in", "failures"), [("all", 1), ("any", 3), ("count:2", 2), ("count:3", 1)]
)
def test_a_fan_in_that_cannot_be_met_skips_the_node_at_once(fan_in: str, failures: int):
    play = Play(graph("a b c -> d", on_node_failure="continue", d={"fan_in": fan_in}))
    for place, name in enumerate("abc"[:failures], 1):
        assert play.status("d") is NodeStatus.QUEUED
        step = play.breaks(name)
        assert ("d skipped" in changes(step)) == (place == failures)
    assert play.record("d").reason_code == "upstream_failed"


def test_a_skipped_parent_counts_as_ended_without_data():
    play = Play(graph("a b -> c", a={"when": "false"}))
    play.condition("a", value=False)
    assert play.status("a") is NodeStatus.SKIPPED
    assert started(play.succeeds("b")) == ["c"]


def test_a_skipped_parent_does_not_help_any_or_count():
    play = Play(
        graph("a b -> c d", a={"when": "false"}, c={"fan_in": "any"}, d={"fan_in": "count:2"})
    )
    step = play.condition("a", value=False)
    assert changes(step) == ["a skipped", "d skipped"]
    assert started(play.succeeds("b")) == ["c"]
    assert play.record("d").reason_code == "upstream_skipped"


def test_a_node_all_of_whose_parents_were_skipped_is_skipped_too():
    play = Play(graph("a b -> c", "c -> d", a={"when": "false"}, b={"when": "false"}))
    play.condition("a", value=False)
    assert changes(play.condition("b", value=False)) == [
        "b skipped",
        "c skipped",
        "d skipped",
        "finished",
    ]


def test_ten_thousand_nodes_in_a_chain_are_skipped_at_once():
    size = 10_000
    flow = graph(*(f"n{index} -> n{index + 1}" for index in range(size)), n0={"when": "false"})
    play = Play(flow, check=False)
    step = play.condition("n0", value=False)
    assert play.marks == "S" * (size + 1)
    assert step.status is TaskStatus.FINISHED


def test_ten_thousand_children_start_in_one_step():
    flow = graph(f"a -> {' '.join(f'n{index}' for index in range(10_000))}")
    play = Play(flow, check=False, max_in_flight=100_000)
    assert len(started(play.succeeds("a"))) == 10_000


def test_parents_that_still_run_are_left_alone_when_the_node_starts():
    play = Play(graph("a b -> c", c={"fan_in": "any"}))
    play.starts("b")
    play.succeeds("a")
    assert play.status("b") is NodeStatus.RUNNING


def test_parents_that_are_not_needed_any_more_are_cancelled_if_the_node_says_so():
    play = Play(
        graph(
            "a b c -> d",
            "c -> e",
            "x -> y",
            "y -> d",
            d={"fan_in": "any", "on_satisfied": "cancel"},
        )
    )
    play.starts("b")
    step = play.succeeds("a")
    assert effects(step) == ["run d", "stop b", "stop c"]
    assert play.status("b") is NodeStatus.CANCELLING
    assert play.status("c") is NodeStatus.CANCELLED
    assert play.status("e") is NodeStatus.SKIPPED
    assert play.status("y") is NodeStatus.CANCELLED
    assert play.record("b").reason_code == "not_needed"
    play.stops("b")
    assert play.status("b") is NodeStatus.CANCELLED
    play.succeeds("x")
    play.succeeds("d")
    assert play.task.status is TaskStatus.FINISHED


def test_parents_are_not_cancelled_before_the_node_starts():
    play = Play(graph("a b -> c", c={"fan_in": "any", "on_satisfied": "cancel", "when": "vars.x"}))
    play.succeeds("a")
    assert play.status("b") is NodeStatus.QUEUED
    play.condition("c", value=False)
    assert play.status("b") is NodeStatus.QUEUED
    play.succeeds("b")
    assert play.task.status is TaskStatus.FINISHED


def test_a_parent_that_is_being_cancelled_is_not_cancelled_twice():
    play = Play(
        graph(
            "a b -> c d",
            c={"fan_in": "any", "on_satisfied": "cancel"},
            d={"fan_in": "any", "on_satisfied": "cancel"},
        )
    )
    play.starts("b")
    assert effects(play.succeeds("a")) == ["run c", "stop b", "run d"]


def test_a_success_after_all_counts_though_the_parent_was_not_needed():
    play = Play(graph("a b -> c", "b -> d", c={"fan_in": "any", "on_satisfied": "cancel"}))
    play.starts("b")
    play.succeeds("a")
    assert started(play.succeeds("b")) == ["d"]


# ---------------------------------------------------------------- the end of all parents

TIDY = {"tidy": {"fan_in": "ended"}}


def test_a_node_that_waits_for_the_end_of_its_parents_starts_after_the_last_however_it_ended():
    play = Play(
        graph(
            "e -> below",
            "e below off ok late -> tidy",
            on_node_failure="continue",
            off={"when": "vars.x"},
            **TIDY,
        )
    )
    play.breaks("e")
    play.condition("off", value=False)
    assert started(play.succeeds("ok")) == []
    assert started(play.succeeds("late")) == ["tidy"]
    assert play.succeeds("tidy").status is TaskStatus.FAILED


def test_a_node_that_waits_for_the_end_of_its_parents_starts_though_all_of_them_failed():
    play = Play(graph("a b -> tidy", "tidy -> x", on_node_failure="continue", **TIDY))
    assert started(play.breaks("a")) == []
    assert started(play.breaks("b")) == ["tidy"]
    assert started(play.succeeds("tidy")) == ["x"]


def test_a_node_that_waits_for_the_end_of_its_parents_starts_though_all_of_them_were_skipped():
    play = Play(graph("a -> tidy", a={"when": "vars.x"}, **TIDY))
    assert started(play.condition("a", value=False)) == ["tidy"]


def test_a_wait_for_the_end_of_parents_handles_no_failure():
    play = Play(graph("a b -> tidy", **TIDY))
    step = play.breaks("a")
    assert (step.status, play.marks) == (TaskStatus.FAILED, "XCC")
    play = Play(graph("a b -> tidy", **TIDY))
    play.cancel()
    assert (play.task.status, play.marks) == (TaskStatus.CANCELLED, "CCC")


def test_a_wait_for_the_end_of_parents_is_satisfied_by_a_parent_that_is_not_needed():
    play = Play(
        graph("a b -> c", "b -> tidy", c={"fan_in": "any", "on_satisfied": "cancel"}, **TIDY)
    )
    play.starts("b")
    assert started(play.succeeds("a")) == ["c"]
    assert started(play.stops("b")) == ["tidy"]


def test_a_node_that_is_only_on_a_branch_not_taken_is_skipped_even_if_it_waits_for_ends():
    play = Play(graph("a b !> tidy", **TIDY))
    play.succeeds("a")
    step = play.succeeds("b")
    assert changes(step)[-2:] == ["tidy skipped", "finished"]
    assert play.record("tidy").reason_code == "upstream_skipped"


def test_a_node_on_one_taken_branch_waits_for_the_end_of_the_others():
    play = Play(graph("a b !> tidy", **TIDY))
    assert started(play.breaks("a")) == []
    assert started(play.succeeds("b")) == ["tidy"]
    assert play.succeeds("tidy").status is TaskStatus.FINISHED


def test_a_node_below_the_normal_branch_of_a_failure_that_is_not_handled_starts_at_its_end():
    play = Play(graph("a +> tidy", on_node_failure="continue", **TIDY))
    assert started(play.breaks("a")) == ["tidy"]


def test_a_node_that_waits_for_ends_starts_by_a_plain_edge_though_a_branch_to_it_was_not_taken():
    play = Play(graph("a !> tidy", "b -> tidy", **TIDY))
    play.succeeds("a")
    assert started(play.succeeds("b")) == ["tidy"]


def test_a_retry_runs_a_node_again_that_waited_for_the_end_of_a_failed_parent():
    play = Play(graph("a b -> tidy", "tidy -> x", on_node_failure="continue", **TIDY))
    play.breaks("a")
    for name in ("b", "tidy", "x"):
        play.succeeds(name)
    step = play.retry()
    assert (started(step), play.marks) == (["a"], "qF..")
    assert started(play.succeeds("a")) == ["tidy"]


# ---------------------------------------------------------------- optional nodes

OPTIONAL = {"a": {"optional": True}}


def test_the_failure_of_an_optional_node_fails_no_other_node_and_counts_as_ended_without_data():
    play = Play(graph("a b -> c", **OPTIONAL))
    play.breaks("a")
    assert started(play.succeeds("b")) == ["c"]
    step = play.succeeds("c")
    assert (step.status, play.marks, play.task.error) == (TaskStatus.FINISHED, "XFF", None)


def test_an_optional_node_fails_after_its_retries():
    play = Play(graph("a", a={"optional": True, "retry_policy": {"max": 1, **STEADY}}))
    play.fails("a")
    assert play.status("a") is NodeStatus.DEFERRED
    play.later(10)
    assert play.fails("a").status is TaskStatus.FINISHED
    assert (play.status("a"), play.record("a").reason_code) == (NodeStatus.FAILED, "boom")


def test_a_condition_of_an_optional_node_that_cannot_be_evaluated_does_not_fail_the_task():
    play = Play(graph("a b -> c", a={"optional": True, "when": "vars.x"}))
    play.condition("a", error="there is no x")
    assert started(play.succeeds("b")) == ["c"]


def test_a_node_whose_only_parent_is_optional_and_failed_is_skipped_and_fails_no_other_node():
    play = Play(graph("a -> c", "c b -> d", **OPTIONAL))
    play.breaks("a")
    assert play.record("c").reason_code == "upstream_skipped"
    assert started(play.succeeds("b")) == ["d"]


def test_an_optional_failure_does_not_help_any_or_count():
    play = Play(graph("a b -> c d", c={"fan_in": "any"}, d={"fan_in": "count:2"}, **OPTIONAL))
    assert "d skipped" in changes(play.breaks("a"))
    assert play.record("d").reason_code == "upstream_skipped"
    assert started(play.succeeds("b")) == ["c"]


def test_the_branches_of_an_optional_node_decide_as_those_of_any_other():
    play = Play(graph("a +> good", "a !> bad", "a b -> c", **OPTIONAL))
    step = play.breaks("a")
    assert started(step) == ["bad"]
    assert play.record("good").reason_code == "upstream_skipped"
    assert started(play.succeeds("b")) == ["c"]
    play = Play(graph("a +> good", "good b -> c", **OPTIONAL))
    play.breaks("a")
    assert play.record("good").reason_code == "upstream_skipped"
    assert started(play.succeeds("b")) == ["c"]


def test_an_optional_node_below_a_failure_does_not_pass_the_failure_on():
    play = Play(graph("e -> a", "a b -> c", on_node_failure="continue", **OPTIONAL))
    play.breaks("e")
    assert play.record("a").reason_code == "upstream_failed"
    assert started(play.succeeds("b")) == ["c"]
    assert play.succeeds("c").status is TaskStatus.FAILED


def test_an_optional_node_that_is_not_needed_owes_its_children_nothing():
    play = Play(
        graph("x a -> c", "a b -> d", c={"fan_in": "any", "on_satisfied": "cancel"}, **OPTIONAL)
    )
    assert "a cancelled" in changes(play.succeeds("x"))
    assert started(play.succeeds("b")) == ["d"]


def test_a_retry_keeps_an_optional_failure_and_the_nodes_that_ran_without_its_data():
    play = Play(graph("a b -> c", "e", on_node_failure="continue", **OPTIONAL))
    play.breaks("a")
    play.succeeds("b")
    play.succeeds("c")
    assert play.breaks("e").status is TaskStatus.FAILED
    assert (started(play.retry()), play.marks) == (["e"], "XFFq")
    assert play.succeeds("e").status is TaskStatus.FINISHED


def test_an_optional_node_runs_again_by_name_and_with_it_what_ran_without_its_data():
    play = Play(graph("a b -> c", **OPTIONAL))
    play.breaks("a")
    play.succeeds("b")
    play.succeeds("c")
    assert (started(play.retry("a", fill=True)), play.marks) == (["a"], "qF.")
    assert started(play.succeeds("a")) == ["c"]


# ---------------------------------------------------------------- routes


def test_the_branch_that_is_not_taken_is_skipped():
    play = Play(graph("a +> good", "a !> bad", "good bad -> after"))
    step = play.succeeds("a")
    assert started(step) == ["good"]
    assert "bad skipped" in changes(step)
    assert play.record("bad").reason_code == "upstream_skipped"
    assert started(play.succeeds("good")) == ["after"]


def test_a_failure_with_a_branch_is_handled_and_the_task_can_finish():
    play = Play(graph("a +> good", "a !> bad"))
    step = play.breaks("a")
    assert started(step) == ["bad"]
    assert "good skipped" in changes(step)
    assert play.succeeds("bad").status is TaskStatus.FINISHED
    assert play.task.error is None


def test_a_branch_for_success_alone_handles_no_failure():
    play = Play(graph("a +> good"))
    assert play.breaks("a").status is TaskStatus.FAILED


def test_a_plain_child_of_a_handled_failure_is_skipped():
    play = Play(graph("a -> b", "a !> bad"))
    assert "b skipped" in changes(play.breaks("a"))
    assert play.record("b").reason_code == "upstream_failed"


def test_a_cancelled_parent_takes_neither_branch():
    play = Play(
        graph("w a -> x", "a +> good", "a !> bad", x={"fan_in": "any", "on_satisfied": "cancel"})
    )
    step = play.succeeds("w")
    assert "a cancelled" in changes(step)
    assert {"good skipped", "bad skipped"} <= set(changes(step))
    assert play.record("good").reason_code == "upstream_failed"
    assert play.record("bad").reason_code == "upstream_skipped"


# ---------------------------------------------------------------- failures


def test_the_first_failure_stops_the_task():
    play = Play(graph("a b c", "a -> d", "b -> e", "f"))
    play.starts("b")
    step = play.breaks("a")
    assert effects(step) == ["stop b", "stop c", "stop f"]
    assert changes(step)[-1] == "cancelling"
    assert play.marks == "XcCCCC"
    step = play.stops("b")
    assert step.status is TaskStatus.FAILED
    assert play.task.error == "node 'a' failed: boom: it broke"


def test_with_continue_what_does_not_depend_on_the_failure_runs_to_its_end():
    play = Play(graph("a -> b", "c -> d", on_node_failure="continue"))
    play.breaks("a")
    assert play.status("b") is NodeStatus.SKIPPED
    assert started(play.succeeds("c")) == ["d"]
    step = play.succeeds("d")
    assert step.status is TaskStatus.FAILED
    assert step.log[-1][4] == "node 'a' failed: boom: it broke"


def test_the_task_keeps_the_error_of_the_first_failure():
    play = Play(graph("a b", on_node_failure="continue"))
    play.fails("b", "second", permanent=True)
    play.fails("a", "third", permanent=True)
    assert play.task.error == "node 'b' failed: second: it broke"


def test_a_stopped_task_begins_nothing_more_when_something_succeeds_after_all():
    play = Play(graph("a b", "b -> c", a=ONCE))
    play.starts("b")
    play.fails("a")
    step = play.succeeds("b")
    assert step.effects == []
    assert play.marks == "XFC"
    assert play.task.status is TaskStatus.FAILED


# ---------------------------------------------------------------- data owed by a failure


def failed_above(*lines: str, **nodes: Any) -> Play:
    """Return a graph in which ``e`` failed.

    ``d`` and the failure branch ``h``, if present, finished.
    """
    play = Play(graph("e", "d", *lines, on_node_failure="continue", **nodes))
    play.succeeds("d")
    play.breaks("e")
    if "h" in play.task.spec.plan.index and play.status("h") is NodeStatus.QUEUED:
        play.succeeds("h")
    return play


def test_nothing_below_a_failure_runs_without_the_data_over_any_number_of_steps():
    play = failed_above("e -> f1", "f1 -> f2", "f2 -> f3", "f1 d -> g1", "f3 d -> g3", "g3 d -> h3")
    assert {play.status(name) for name in ("f1", "f2", "f3", "g1", "g3", "h3")} == {
        NodeStatus.SKIPPED
    }
    assert {play.record(name).reason_code for name in ("f1", "f2", "f3", "g1", "g3", "h3")} == {
        "upstream_failed"
    }
    assert play.task.status is TaskStatus.FAILED


def test_the_normal_branch_of_a_handled_failure_was_not_taken_and_a_join_of_both_branches_runs():
    play = failed_above("e +> a", "e !> h", "a h -> join")
    assert play.record("a").reason_code == "upstream_skipped"
    assert play.succeeds("join").status is TaskStatus.FINISHED


def test_the_normal_branch_of_a_failure_that_is_not_handled_is_below_the_failure():
    play = failed_above("e +> a", "a d -> join")
    assert (play.record("a").reason_code, play.record("join").reason_code) == (
        "upstream_failed",
        "upstream_failed",
    )


def test_a_plain_child_of_a_handled_failure_is_below_the_failure_and_so_is_a_join_with_the_branch():
    play = failed_above("e -> f", "e !> h", "f h -> join", "h d -> other")
    assert (play.record("f").reason_code, play.record("join").reason_code) == (
        "upstream_failed",
        "upstream_failed",
    )
    assert play.succeeds("other").status is TaskStatus.FINISHED


def test_a_node_below_a_failure_takes_neither_of_its_branches_and_passes_the_failure_on():
    play = failed_above("e -> f", "f +> good", "f !> bad", "good d -> x", "bad d -> y")
    assert (play.record("good").reason_code, play.record("x").reason_code) == (
        "upstream_failed",
        "upstream_failed",
    )
    assert (play.record("bad").reason_code, play.status("y")) == (
        "upstream_skipped",
        NodeStatus.QUEUED,
    )


def test_one_branch_may_handle_the_failure_of_each_node_of_a_chain():
    play = failed_above("e -> f", "e f !> h")
    assert play.status("h") is NodeStatus.FINISHED
    assert play.task.status is TaskStatus.FINISHED


def test_any_and_count_may_be_met_by_parents_that_are_not_below_the_failure():
    play = failed_above(
        "e -> f", "f d -> one two", one={"fan_in": "any"}, two={"fan_in": "count:2"}
    )
    assert play.record("two").reason_code == "upstream_failed"
    assert play.succeeds("one").status is TaskStatus.FAILED


def test_a_node_that_any_keeps_alive_does_not_pass_the_failure_on():
    play = failed_above("e -> f", "f d -> one", "one d -> x", one={"fan_in": "any"})
    assert started(play.succeeds("one")) == ["x"]


def test_a_skip_by_condition_or_branch_is_not_passed_on_as_a_failure():
    play = Play(graph("a b -> c", "c -> x", "x b -> y", a={"when": "vars.x"}, c={"when": "vars.x"}))
    play.condition("a", value=False)
    play.succeeds("b")
    play.condition("c", value=False)
    assert play.record("x").reason_code == "upstream_skipped"
    assert play.succeeds("y").status is TaskStatus.FINISHED


def test_a_parent_that_was_not_needed_owes_its_children_what_a_failed_one_does():
    play = Play(
        graph("a b -> c", "b -> f", "f c -> g", c={"fan_in": "any", "on_satisfied": "cancel"})
    )
    play.succeeds("a")
    play.succeeds("c")
    assert (play.record("f").reason_code, play.record("g").reason_code) == (
        "upstream_failed",
        "upstream_failed",
    )


@pytest.mark.parametrize("parents", ["a b", "b a"])
def test_why_a_node_is_skipped_does_not_depend_on_the_order_of_edges(parents: str):
    play = Play(
        graph(
            "e +> a",
            "e -> b",
            "e !> h",
            *(f"{name} -> j" for name in parents.split()),
            "c -> j",
            j={"fan_in": "count:3"},
        )
    )
    play.breaks("e")
    assert (play.record("a").reason_code, play.record("b").reason_code) == (
        "upstream_skipped",
        "upstream_failed",
    )
    assert play.record("j").reason_code == "upstream_failed"


def test_what_a_failure_owes_is_known_from_the_stored_marks_alone():
    fields = {"d": {"when": "vars.x"}, "g": {"fan_in": "count:2"}}
    play = Play(graph("e -> f", "f d x -> g", on_node_failure="continue", **fields))
    play.breaks("e")
    for name in "ef":
        del play.task.records[play.index(name)]
    derive(play.task)
    play.condition("d", value=False)
    assert play.record("g").reason_code == "upstream_failed"


# ---------------------------------------------------------------- conditions


def test_a_condition_is_evaluated_when_the_fan_in_holds():
    play = Play(graph("a -> b", b={"when": "vars.x"}))
    assert effects(play.succeeds("a")) == ["decide b"]
    assert started(play.condition("b", value=True)) == ["b"]


def test_a_false_condition_skips_the_node():
    play = Play(graph("a", a={"when": "vars.x"}))
    assert play.condition("a", value=False).status is TaskStatus.FINISHED
    assert play.record("a").reason_code == "condition_false"
    assert play.task.started_at is None


def test_a_condition_that_cannot_be_evaluated_fails_the_node():
    play = Play(graph("a", "a !> b", a={"when": "vars.x"}))
    assert started(play.condition("a", error="there is no x")) == ["b"]
    assert (play.record("a").reason_code, play.record("a").error) == (
        "bad_condition",
        "there is no x",
    )


def test_a_condition_counts_once():
    play = Play(graph("a", a={"when": "vars.x"}))
    play.condition("a", value=True)
    assert play.condition("a", value=False).ignored
