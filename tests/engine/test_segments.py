"""Segments: which chains they are, and what the engine makes of starts within them."""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import pytest

from flowkit._engine import EndSegments, SendCancel, pending_effects
from flowkit._engine.segment_rules import (
    LINK_RULES,
    MOST_NODES,
    NODE_RULES,
    TASK_RULES,
    nodes_after,
)
from flowkit._tasks.explanations import explain_node
from flowkit.messages import NextStart
from flowkit.task import Mark, NodeStatus, ParentNode, TaskStatus
from tests.engine.drive import FUNCTION, STEADY, Play, changes, effects, graph, started

PULLS_A: Mapping[str, Any] = {
    "io": {"input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {}}}
}


def links(*names: str) -> tuple[str, ...]:
    """Return the edges of a chain."""
    return tuple(f"{one} -> {other}" for one, other in pairwise(names))


def after(play: Play, name: str) -> str:
    """Return the nodes that the command of a node carries, each a letter."""
    ids = play.task.spec.plan.ids
    return "".join(ids[index] for index in nodes_after(play.task, play.index(name)))


def expression(text: str) -> dict[str, Any]:
    return {"io": {"input_inline": {"x": "${" + text + "}"}}}


# ---------------------------------------------------------------- which chains are segments


def test_a_chain_is_a_segment_up_to_the_most_nodes():
    names = [chr(ord("a") + number) for number in range(MOST_NODES + 3)]
    play = Play(graph(*links(*names)))
    assert after(play, "a") == "".join(names[1:MOST_NODES])


CHAINS: dict[str, tuple[tuple[str, ...], dict[str, Any], str]] = {
    "ordinary nodes": (links("a", "b", "c"), {}, "bc"),
    "a pull from the node before": (links("a", "b", "c"), {"b": PULLS_A}, "bc"),
    "expressions that read the segment": (
        links("a", "b", "c"),
        {"c": expression("results.a.n + results.b.n + params.n")},
        "bc",
    ),
    "long time limits": (("a -> b",), {"b": {"timeouts": {"heartbeat_sec": 9.0}}}, "b"),
    "a function below": (links("a", "b", "f"), {"f": FUNCTION}, "b"),
    # ------------------------------ rules for nodes
    "a worker runs it": (links("a", "b", "f", "c"), {"f": FUNCTION}, "b"),
    "it is no map": (("a -> b",), {"b": {"map": {"over": [1]}}}, ""),
    "it has no shards": (("a -> b",), {"b": {"io": {**PULLS_A["io"], "shards": 2}}}, ""),
    "it has no concurrency key": (("a -> b",), {"b": {"concurrency_key": "k"}}, ""),
    "it has no rate": (
        ("a -> b",),
        {"b": {"rate_limit": {"key": "r", "limit": 1, "per_sec": 1}}},
        "",
    ),
    "it has no cache": (("a -> b",), {"b": {"cache": {"key": "k", "ttl_sec": 9}}}, ""),
    "it has no undo": (("a -> b",), {"a": {"undo": {"type": "u"}}}, ""),
    "it has no short time limit": (
        ("a -> b",),
        {"b": {"timeouts": {"start_to_close_sec": 4.0}}},
        "",
    ),
    "it cancels no parents": (("a -> b",), {"b": {"on_satisfied": "cancel", "fan_in": "any"}}, ""),
    # ------------------------------ rules for links
    "the node before has no other child": (("a -> b", "a -> c"), {}, ""),
    "it has no other parent": (("a -> b", "c -> b"), {}, ""),
    "it has no condition": (("a -> b",), {"b": {"when": "true"}}, ""),
    "no route leads to it": (("a", "b"), {"a": {"routing": {"on_success": ["b"]}}}, ""),
    "it does not stream": (("a -> b",), {"b": {"io": {"start_when": "first_batch"}}}, ""),
    "no child streams from it": (
        links("a", "b", "c"),
        {"c": {"io": {"start_when": "first_batch"}}},
        "",
    ),
    "no map grows while it runs": (
        links("a", "b", "c"),
        {"c": {"map": {"over": {"artifacts": "b"}}}},
        "",
    ),
    "no child cancels it": (
        ("a -> b", "b -> c", "z -> c"),
        {"c": {"on_satisfied": "cancel", "fan_in": "any"}},
        "",
    ),
    "it has the priority of the node before": (("a -> b",), {"b": {"priority": -1}}, ""),
    "it pulls artifacts of no other node": (
        links("a", "b", "c"),
        {
            "c": {
                "io": {
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts",
                        "input_args": {"from_nodes": ["a"]},
                    }
                }
            }
        },
        "b",
    ),
    "its expressions read only earlier nodes of the segment": (
        ("z -> a", "z -> y", "a -> b"),
        {"b": expression("results.z.n")},
        "",
    ),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_rule_ends_the_segment_before_the_node(name: str):
    edges, nodes, expected = CHAINS[name]
    play = Play(graph(*edges, **nodes), check=False)
    if "z -> a" in edges:
        play.succeeds("z")
    assert after(play, "a") == expected


def test_each_rule_has_a_case():
    assert {*NODE_RULES, *LINK_RULES} <= CHAINS.keys()
    assert len(TASK_RULES) == 2  # the cases are the two tests below


def test_a_task_with_max_parallel_has_no_segments():
    assert after(Play(graph("a -> b", max_parallel=2)), "a") == ""


def test_a_task_in_the_place_of_a_key_has_no_segments():
    parent = ParentNode("p", "n", 0, 0, 1, exclusive=True)
    assert after(Play(graph("a -> b"), parent=parent), "a") == ""
    whole = Play(graph("a -> b", concurrency={"key": "k"}))
    assert after(whole, "a") == ""


def test_a_function_beside_that_may_change_vars_prevents_a_segment_until_it_has_ended():
    play = Play(graph("a -> b", "f -> g", f=FUNCTION))
    assert after(play, "a") == ""
    play.returns("f")
    assert after(play, "a") == "b"


def test_nodes_of_later_phases_and_errors_read_from_elsewhere_are_in_no_segment():
    reads_errors = graph("z -> a", "a -> b", b=expression("errors.z == null"))
    play = Play(reads_errors, check=False)
    play.succeeds("z")
    assert after(play, "a") == ""


def test_only_first_attempts_carry_nodes_and_only_nodes_without_attempts_are_carried():
    play = Play(
        graph(*links("a", "b", "c"), a={"retry_policy": STEADY}, b={"retry_policy": {"max": 0}})
    )
    play.starts("a")
    play.fails("a")
    play.later(10)
    assert (play.record("a").attempt, after(play, "a")) == (2, "")
    play.succeeds("a")
    assert after(play, "b") == "c"
    play.fails("b", permanent=True)
    play.retry()
    assert after(play, "b") == ""


# ---------------------------------------------------------------- starts


def chain() -> Play:
    """Return a task whose first node runs, with a command that carries the others."""
    play = issued_chain()
    play.starts("a")
    return play


def issued_chain(*beside: str, deadline_sec: float | None = None, **fields: Any) -> Play:
    """Return a task whose first node has a command that carries the others."""
    nodes = {key: {"retry_policy": STEADY} for key in "abc"}
    flow = graph(*links("a", "b", "c"), *beside, **nodes, **fields)
    return Play(flow, deadline_sec=deadline_sec, segments=True)


def goes_on(play: Play, name: str, following: str, **fields: Any) -> Any:
    return play.succeeds(name, then=play.next_start(following, name), **fields)


def test_a_success_with_a_start_finishes_a_node_and_starts_the_next_without_a_command():
    play = chain()
    step = goes_on(play, "a", "b")
    assert changes(step) == ["a finished", "b queued", "b running"]
    assert effects(step) == []
    record = play.record("b")
    assert (record.attempt, record.worker_id, record.started_at) == (1, "w", play.now)
    assert play.pending == []


def test_the_last_node_of_a_segment_is_followed_by_a_command():
    play = chain()
    goes_on(play, "a", "b")
    assert started(play.succeeds("b")) == ["c"]


def test_a_node_that_begins_in_a_segment_has_the_token_of_that_attempt_of_the_node_before():
    play = chain()
    start = play.next_start("b", "a")
    play.succeeds("a", then=start)
    assert play.token("b") == start.token
    assert start.token != play.task.spec.token(1, 1, 0)
    assert play.succeeds("b", token=play.task.spec.token(1, 1, 7)).ignored


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"token": "0" * 24}, id="token"),
        pytest.param({"attempt": 2}, id="attempt"),
        pytest.param({"index": 2}, id="node"),
    ],
)
def test_a_start_without_proof_is_cancelled_and_the_next_node_gets_a_command(wrong: dict[str, Any]):
    play = chain()
    start = play.next_start("b", "a").model_copy(update=wrong)
    step = play.succeeds("a", then=start)
    assert started(step) == ["b"]
    cancels = [one for one in step.effects if isinstance(one, SendCancel)]
    assert [(one.index, one.token) for one in cancels] == [(start.index, start.token)]


def test_a_repeated_success_leaves_the_node_that_it_started_alone():
    play = chain()
    start = play.next_start("b", "a")
    token = play.token("a")
    play.succeeds("a", then=start)
    step = play.succeeds("a", token=token, then=start)
    assert step.ignored
    assert step.effects == []
    play.succeeds("b")
    assert play.succeeds("a", token=token, then=start).effects == []


def test_the_segment_of_an_attempt_whose_result_does_not_count_is_cancelled():
    play = chain()
    late, start = play.token("a"), play.next_start("b", "a")
    play.fails("a")
    play.later(10)
    assert started(play.succeeds("a", "second")) == ["b"]
    step = play.succeeds("a", "first", attempt=1, token=late, then=start)
    assert step.ignored
    assert effects(step) == ["stop b"]
    assert play.succeeds("b", token=start.token).ignored
    assert play.record("a").result == "second"


def test_a_start_after_another_attempt_of_the_node_before_is_cancelled():
    play = chain()
    after_the_first = play.next_start("b", "a")
    play.fails("a")
    play.later(10)
    step = play.succeeds("a", then=after_the_first)
    assert started(step) == ["b"]
    assert "stop b" in effects(step)


def test_a_late_success_that_counts_brings_its_segment():
    play = chain()
    late, start = play.token("a"), play.next_start("b", "a")
    play.fails("a")
    play.later(10)
    step = play.succeeds("a", attempt=1, token=late, then=start)
    assert effects(step) == ["stop a"] or "stop b" not in effects(step)
    assert play.status("b") is NodeStatus.RUNNING


def test_a_success_before_the_report_of_its_start_does_not_count():
    play = chain()
    start = play.next_start("b", "a")
    early = play.succeeds("b", attempt=1, token=start.token)
    assert early.ignored
    play.succeeds("a", then=start)
    play.succeeds("b")
    assert play.status("b") is NodeStatus.FINISHED


def test_a_task_that_is_being_cancelled_starts_and_stops_the_next_node_of_a_segment():
    play = chain()
    start = play.next_start("b", "a")
    play.cancel()
    step = play.succeeds("a", then=start)
    assert changes(step) == ["a finished", "b queued", "b running", "b cancelling"]
    assert effects(step) == ["stop b", "end segments"]
    assert (play.record("b").attempt, play.record("b").worker_id) == (1, "w")
    assert (play.status("c"), play.task.status) == (NodeStatus.QUEUED, TaskStatus.CANCELLING)


def with_stray(outcome: str = "finished", **fields: Any) -> tuple[Play, str]:
    """Return a task whose node ``a`` was resolved while its worker began ``b``, with the token of
    that run.
    """
    play = issued_chain(**fields)
    play.starts("a")
    start = play.next_start("b", "a")
    assert effects(play.resolve("a", outcome)) == ["end segments", "stop a"]
    play.succeeds("a", "own", then=start)
    return play, start.token


@pytest.mark.parametrize("outcome", ["finished", "skipped", "failed"])
def test_a_resolved_node_ends_after_the_next_node_that_its_worker_has_begun(outcome: str):
    play, _ = with_stray(outcome)
    assert [play.status(name) for name in "abc"] == [
        NodeStatus.CANCELLING,
        NodeStatus.CANCELLING,
        NodeStatus.QUEUED,
    ]
    assert (play.record("b").attempt, play.record("b").worker_id) == (1, "w")
    step = play.stops("b")
    assert play.status("a") == outcome
    assert started(step) == (["b"] if outcome == "finished" else [])
    assert play.record("b").attempt == (2 if outcome == "finished" else 1)


def test_the_history_of_a_node_that_ran_after_a_resolved_one_has_its_run():
    play, _ = with_stray()
    assert [*changes(play.stops("b"))] == ["b queued", "a finished", "b queued"]
    statuses = [status for _, index, kind, status, _ in play.log if (index, kind) == (1, "status")]
    assert statuses == ["queued", "running", "cancelling", "queued", "queued"]


@pytest.mark.parametrize("end", ["succeeds", "fails", "is_released", "is lost"])
def test_each_end_of_a_run_after_a_resolved_node_ends_that_node(end: str):
    play, _ = with_stray()
    if end == "is lost":
        play.later(play.settings.cancel_grace_sec)
    else:
        getattr(play, end)("b")
    assert play.status("a") is NodeStatus.FINISHED
    assert (play.record("b").attempt, play.record("b").result) == (2, None)
    assert play.status("b") is NodeStatus.QUEUED


def test_a_resolved_node_ends_after_all_nodes_that_its_worker_has_begun():
    play, _ = with_stray()
    goes_on(play, "b", "c")
    assert [play.status(name) for name in "abc"] == [NodeStatus.CANCELLING] * 3
    play.succeeds("c", "own")
    assert play.status("a") is NodeStatus.FINISHED
    play.succeeds("b", 1)
    play.succeeds("c", 2)
    assert [play.record(name).result for name in "bc"] == [1, 2]
    assert [play.record(name).attempt for name in "bc"] == [2, 2]


def test_repeated_reports_do_not_end_a_resolved_node_before_the_next_one():
    play = chain()
    start, token = play.next_start("b", "a"), play.token("a")
    play.resolve("a", "finished")
    for _ in range(3):
        play.succeeds("a", token=token, then=start)
    assert [play.status(name) for name in "ab"] == [NodeStatus.CANCELLING] * 2
    stray = play.token("b")
    play.stops("b")
    assert play.succeeds("b", attempt=1, token=stray).ignored
    assert play.status("b") is NodeStatus.QUEUED


def test_nodes_of_finally_begin_after_the_run_that_was_begun_after_a_resolved_node():
    play, _ = with_stray("skipped", final=({"node_id": "f", "type": "f"},))
    assert started(play.cancel()) == []
    assert started(play.stops("b")) == ["f"]
    assert play.status("b") is NodeStatus.CANCELLED


def test_a_node_that_is_resolved_behind_the_run_after_a_resolved_node_ends_as_resolved():
    play, _ = with_stray()
    play.resolve("c", "finished", result=7)
    goes_on(play, "b", "c")
    play.stops("c")
    assert (play.status("c"), play.record("c").result) == (NodeStatus.FINISHED, 7)
    assert play.status("b") is NodeStatus.QUEUED
    play.succeeds("b")
    assert play.task.status is TaskStatus.FINISHED


def test_the_explanations_of_a_resolved_node_and_of_the_run_after_it_name_each_other():
    play, _ = with_stray("skipped")
    of_a, of_b = (
        explain_node(play.task, play.index(name), play.task.records, now=play.now) for name in "ab"
    )
    assert of_a == (
        "'a' is being cancelled: ann resolved it as skipped. It ends after 'b', which its worker"
        " has begun meanwhile."
    )
    assert of_b == (
        "'b' is being cancelled: the node before it, 'a': ann resolved it as skipped. It has a"
        " grace period to end by itself."
    )


def test_a_start_after_a_late_success_uses_up_its_number_if_the_node_waits():
    play = chain()
    late, start = play.token("a"), play.next_start("b", "a")
    play.fails("a")
    play.later(10)
    play.pause()
    play.succeeds("a", "second")
    assert effects(play.succeeds("a", attempt=1, token=late, then=start)) == ["stop b"]
    play.resume()
    assert play.record("b").attempt == 2


def test_a_node_that_is_handed_back_gets_a_command_with_another_token_and_its_attempt_again():
    play = chain()
    goes_on(play, "a", "b")
    before = play.token("b")
    assert started(play.is_released("b")) == ["b"]
    assert (play.record("b").attempt, play.token("b") != before) == (1, True)
    assert not play.succeeds("b", token=before).ignored


def test_an_attempt_that_fails_in_a_segment_is_retried_with_a_command():
    play = chain()
    goes_on(play, "a", "b")
    before = play.token("b")
    play.fails("b")
    assert started(play.later(10)) == ["b"]
    assert play.record("b").attempt == 2
    play.starts("b")
    step = play.succeeds("b", attempt=1, token=before)
    assert play.status("b") is NodeStatus.FINISHED
    assert "stop b" in effects(step)


def test_a_lost_worker_costs_the_running_node_of_a_segment_an_attempt():
    play = chain()
    goes_on(play, "a", "b")
    play.later(25, silent={"w": 25.0})
    assert play.record("b").reason_code == "worker_lost"
    assert started(play.later(10)) == ["b"]
    assert [play.record(name).attempt for name in "ab"] == [1, 2]


# ---------------------------------------------------------------- pauses


def test_a_pause_ends_segments_and_starts_nothing():
    play = chain()
    assert effects(play.pause()) == ["end segments"]
    assert started(play.succeeds("a")) == []
    assert started(play.resume()) == ["b"]


def test_a_start_that_a_worker_reported_counts_also_if_a_pause_came_before_and_ends_the_segment():
    play = chain()
    play.pause()
    assert effects(goes_on(play, "a", "b")) == ["end segments"]
    assert play.status("b") is NodeStatus.RUNNING
    assert play.task.status is TaskStatus.PAUSED


def test_a_pause_withdraws_a_command_that_carries_other_nodes_and_a_resume_sends_another():
    play = issued_chain()
    assert effects(play.pause()) == ["end segments", "withdraw a"]
    assert "withdraw a" in play.pending
    assert effects(play.later(play.settings.resend_sec)) == ["withdraw a"]
    before = play.token("a")
    assert started(play.is_withdrawn("a")) == []
    assert "withdraw a" not in play.pending
    assert started(play.resume()) == ["a"]
    assert (play.record("a").attempt, play.token("a") != before) == (1, True)


def test_a_withdrawal_that_ends_after_the_resume_sends_another_command():
    play = issued_chain()
    play.pause()
    play.resume()
    assert started(play.is_withdrawn("a")) == ["a"]


def test_a_start_that_was_before_the_withdrawal_counts_and_ends_its_segment_again():
    play = issued_chain()
    play.pause()
    assert effects(play.starts("a")) == ["end segments"]
    assert started(play.succeeds("a")) == []
    assert started(play.resume()) == ["b"]


def test_a_coordinator_that_reads_a_paused_task_ends_its_segments():
    play = chain()
    assert EndSegments() not in pending_effects(play.task)
    play.pause()
    assert EndSegments() in pending_effects(play.task)


def test_a_pause_of_a_task_without_segments_sends_nothing_to_workers():
    play = Play(graph("a -> b", "a -> c"))
    play.starts("a")
    assert effects(play.pause()) == []


def test_the_start_of_a_node_that_the_graph_has_not_is_ignored():
    play = chain()
    nowhere = NextStart(index=50, attempt=1, token="x")
    assert play.succeeds("a", token="0" * 24, then=nowhere).effects == []
    assert started(play.succeeds("a", then=nowhere)) == ["b"]


# ---------------------------------------------------------------- stops


def test_a_stopped_task_keeps_the_nodes_open_that_a_worker_may_have_begun():
    play = chain()
    assert effects(play.cancel()) == ["end segments", "stop a"]
    assert play.marks == f"{chr(Mark.CANCELLING)}{chr(Mark.WAITING)}{chr(Mark.WAITING)}"
    assert EndSegments() in pending_effects(play.task)


@pytest.mark.parametrize("end", ["succeeds", "fails", "stops", "is_released"])
def test_an_end_without_a_start_cancels_the_nodes_that_no_worker_begins_any_more(end: str):
    play = chain()
    play.cancel()
    getattr(play, end)("a")
    assert play.task.status is TaskStatus.CANCELLED
    assert [play.status(name) for name in "bc"] == [NodeStatus.CANCELLED] * 2


def test_a_lost_end_cancels_them_after_the_grace():
    play = chain()
    play.cancel()
    play.later(play.settings.cancel_grace_sec)
    assert play.task.status is TaskStatus.CANCELLED


def test_a_node_that_is_kept_open_while_its_task_stops_cannot_be_resolved():
    play = chain()
    play.cancel()
    assert play.resolve("b", "finished").ignored
    assert play.resolve("c", "skipped").ignored


def test_the_explanation_of_a_node_that_is_kept_open_says_until_when():
    play = chain()
    play.cancel()
    said = explain_node(play.task, play.index("b"), play.task.records, now=play.now)
    assert said == "'b' is cancelled after 'a', unless its worker began it."


def test_a_command_with_other_nodes_is_withdrawn_before_its_node_is_resolved():
    play = issued_chain()
    stopped = ["end segments", "stop a", "withdraw a"]
    assert effects(play.resolve("a", "skipped")) == stopped
    assert play.status("a") is NodeStatus.CANCELLING
    play.is_withdrawn("a")
    assert play.status("a") is NodeStatus.SKIPPED


def test_each_start_that_comes_after_a_cancel_leaves_the_rest_open():
    play = chain()
    play.cancel()
    goes_on(play, "a", "b")
    goes_on(play, "b", "c")
    assert play.status("c") is NodeStatus.CANCELLING
    play.stops("c")
    assert play.task.status is TaskStatus.CANCELLED
    assert [play.record(name).attempt for name in "abc"] == [1, 1, 1]
    play.retry()
    assert play.record("c").first_attempt == 2


def test_a_command_with_other_nodes_is_withdrawn_because_a_worker_may_have_begun_it_unseen():
    play = issued_chain()
    assert effects(play.cancel()) == ["end segments", "stop a", "withdraw a"]
    assert play.status("a") is NodeStatus.CANCELLING
    play.is_withdrawn("a")
    assert play.task.status is TaskStatus.CANCELLED


def test_a_start_before_the_withdrawal_keeps_the_task_open_until_its_end():
    play = issued_chain()
    play.cancel()
    goes_on(play, "a", "b")
    play.stops("b")
    assert play.task.status is TaskStatus.CANCELLED
    assert [play.status(name) for name in "abc"] == [
        NodeStatus.FINISHED,
        NodeStatus.CANCELLED,
        NodeStatus.CANCELLED,
    ]


def test_nodes_of_finally_begin_after_the_begun_nodes_of_a_segment_have_ended():
    play = issued_chain(final=({"node_id": "f", "type": "f"},))
    play.starts("a")
    play.cancel()
    goes_on(play, "a", "b")
    assert play.marks[play.index("f")] == chr(Mark.HELD)
    assert started(play.stops("b")) == ["f"]


@pytest.mark.parametrize("later", ["final", "undo"])
def test_a_forced_cancel_leaves_begun_nodes_open_and_starts_no_more(later: str):
    play = (
        issued_chain(final=({"node_id": "f", "type": "f"},))
        if later == "final"
        else issued_chain("u", u={"undo": {"type": "u"}})
    )
    if later == "undo":
        play.succeeds("u")
    play.starts("a")
    play.cancel(force=True)
    assert started(goes_on(play, "a", "b")) == []
    assert [play.status(name) for name in "bc"] == [NodeStatus.CANCELLING, NodeStatus.QUEUED]
    assert started(play.stops("b")) == []
    assert play.task.status is TaskStatus.CANCELLED
    assert play.status("c") is NodeStatus.CANCELLED


@pytest.mark.parametrize("stop", ["failure", "deadline"])
def test_a_failure_elsewhere_and_a_deadline_leave_begun_nodes_open_too(stop: str):
    play = issued_chain("z", deadline_sec=3.0)
    play.starts("a")
    if stop == "failure":
        play.fails("z", permanent=True)
    else:
        play.later(4.0)
    goes_on(play, "a", "b")
    assert play.status("b") is NodeStatus.CANCELLING
    play.stops("b")
    assert play.task.status is TaskStatus.FAILED


def test_a_command_that_carried_fewer_nodes_leaves_only_these_open():
    play = issued_chain()
    play.sent(("a", 1), carried=1)
    play.starts("a")
    play.cancel()
    assert [play.status(name) for name in "bc"] == [NodeStatus.QUEUED, NodeStatus.CANCELLED]


@pytest.mark.parametrize("end", ["stops", "succeeds", "is lost"])
def test_a_stopped_task_ends_also_if_it_hears_late_that_a_command_carried_no_nodes(end: str):
    play = issued_chain()
    if end != "succeeds":
        play.starts("a")
    play.cancel()
    play.sent(("a", 1))
    if end == "stops":
        play.stops("a")
    elif end == "succeeds":
        play.succeeds("a")
    else:
        play.later(60)
    assert play.task.status is TaskStatus.CANCELLED
    assert [play.status(name) for name in "bc"] == [NodeStatus.CANCELLED] * 2


def test_a_command_without_other_nodes_is_cancelled_at_once():
    play = issued_chain()
    play.sent(("a", 1))
    assert effects(play.cancel()) == ["stop a"]
    assert play.task.status is TaskStatus.CANCELLED


def test_the_graph_and_the_settings_say_whether_commands_carry_nodes():
    edges = links("a", "b")
    for chosen, setting, promised in [
        (None, False, 0),
        (None, True, 1),
        ("safe", False, 1),
        ("eager", False, 1),
        ("off", True, 0),
    ]:
        play = Play(graph(*edges, segments=chosen), segments=setting)
        assert play.record("a").promised == promised


# ---------------------------------------------------------------- resolutions


def resolved_while_a_runs(name: str = "b", outcome: str = "finished", **more: Any) -> Play:
    """Return a task with a node that an operator has resolved while its worker might begin it."""
    play = chain()
    assert effects(play.resolve(name, outcome, **more)) == ["end segments"]
    assert play.status(name) is NodeStatus.QUEUED
    return play


def test_a_resolved_node_that_a_worker_may_begin_ends_when_the_worker_says_that_it_does_not():
    play = resolved_while_a_runs(result=7)
    step = play.starts("a", ends_segment=True)
    assert changes(step) == ["b finished", "c queued"]
    assert play.record("b").result == 7
    assert started(step) == ["c"]
    assert play.status("a") is NodeStatus.RUNNING


@pytest.mark.parametrize("outcome", ["finished", "skipped", "failed"])
def test_a_resolved_node_that_its_worker_has_begun_is_stopped_and_ends_as_resolved(outcome: str):
    play = resolved_while_a_runs(outcome=outcome)
    step = goes_on(play, "a", "b")
    assert changes(step) == ["a finished", "b queued", "b running", "b cancelling"]
    assert "stop b" in effects(step)
    assert (play.record("b").attempt, play.record("b").worker_id) == (1, "w")
    play.stops("b")
    assert play.status("b") == outcome


@pytest.mark.parametrize("end", ["succeeds", "fails", "is_released"])
def test_a_resolved_node_ends_when_the_node_before_ends_without_its_start(end: str):
    play = resolved_while_a_runs(result=7)
    getattr(play, end)("a")
    assert play.status("b") is NodeStatus.FINISHED
    assert play.record("b").result == 7
    assert play.record("b").attempt == 0


def test_a_resolved_node_ends_as_resolved_if_the_node_before_fails_for_good():
    play = resolved_while_a_runs(result=7)
    play.fails("a", permanent=True)
    assert play.status("b") is NodeStatus.FINISHED


def test_the_failure_of_a_node_before_does_not_skip_a_resolved_node_if_the_task_goes_on():
    play = issued_chain(on_node_failure="continue")
    play.starts("a")
    play.resolve("b", "finished", result=7)
    step = play.fails("a", permanent=True)
    assert (play.status("b"), play.record("b").result) == (NodeStatus.FINISHED, 7)
    assert started(step) == ["c"]


def test_a_node_further_down_keeps_its_resolution_while_the_nodes_before_it_run():
    play = resolved_while_a_runs("c", "skipped")
    goes_on(play, "a", "b")
    assert play.status("c") is NodeStatus.QUEUED
    play.succeeds("b")
    assert play.status("c") is NodeStatus.SKIPPED
    assert play.task.status is TaskStatus.FINISHED


def test_the_command_of_a_node_before_that_no_worker_has_started_is_withdrawn():
    play = issued_chain()
    assert effects(play.resolve("b", "finished", result=7)) == ["end segments", "withdraw a"]
    assert "withdraw a" in play.pending
    assert effects(play.later(play.settings.resend_sec)) == ["withdraw a"]
    before = play.token("a")
    step = play.is_withdrawn("a")
    assert {*changes(step)} >= {"a queued", "b finished"}
    assert {*started(step)} == {"a", "c"}
    assert (play.record("a").attempt, play.token("a") != before) == (1, True)


def test_a_start_that_was_before_the_withdrawal_ends_the_segment_for_a_resolved_node_again():
    play = issued_chain()
    play.resolve("b", "skipped")
    assert effects(play.starts("a")) == ["end segments"]


def test_a_worker_that_ends_the_segment_with_its_start_is_not_asked_again():
    play = issued_chain()
    play.resolve("b", "skipped")
    assert "end segments" not in effects(play.starts("a", ends_segment=True))
    assert play.status("b") is NodeStatus.SKIPPED


def test_the_withdrawal_of_a_command_that_carried_no_nodes_ends_a_resolved_node():
    play = issued_chain()
    play.resolve("b", "skipped")
    play.sent(("a", 1))
    step = play.is_withdrawn("a")
    assert play.status("b") is NodeStatus.SKIPPED
    assert started(step) == ["a"]


def test_a_withdrawal_counts_also_if_the_command_is_known_to_carry_no_nodes_since_a_resume():
    play = issued_chain()
    play.pause()
    play.resume()
    play.sent(("a", 1))
    assert started(play.is_withdrawn("a")) == ["a"]


@pytest.mark.parametrize("paused", [False, True])
def test_a_resolved_node_ends_also_in_a_paused_task(*, paused: bool):
    play = resolved_while_a_runs()
    if paused:
        play.pause()
    play.succeeds("a")
    assert play.status("b") is NodeStatus.FINISHED


def test_the_first_of_two_resolutions_of_a_node_that_is_kept_open_counts():
    play = resolved_while_a_runs(outcome="skipped")
    assert play.resolve("b", "finished", result=7).ignored
    play.succeeds("a")
    assert play.status("b") is NodeStatus.SKIPPED


@pytest.mark.parametrize("stop", ["before", "after"])
def test_a_cancel_does_not_change_the_outcome_of_a_resolved_node(stop: str):
    play = resolved_while_a_runs(result=7)
    if stop == "before":
        play.cancel()
    goes_on(play, "a", "b")
    if stop == "after":
        play.cancel()
    play.stops("b")
    assert (play.status("b"), play.record("b").result) == (NodeStatus.FINISHED, 7)
    assert play.status("c") is NodeStatus.CANCELLED
    assert play.task.status is TaskStatus.CANCELLED


def test_a_worker_that_ends_its_segment_ends_the_nodes_of_a_stopped_task_that_it_may_have_begun():
    play = chain()
    play.cancel()
    assert play.status("b") is NodeStatus.QUEUED
    play.starts("a", ends_segment=True)
    assert [play.status(name) for name in "abc"] == [
        NodeStatus.CANCELLING,
        NodeStatus.CANCELLED,
        NodeStatus.CANCELLED,
    ]


def test_the_end_of_a_segment_that_another_attempt_reports_says_nothing():
    play = chain()
    play.resolve("b", "skipped")
    assert play.starts("a", token="0" * 24, ends_segment=True).ignored
    assert play.status("b") is NodeStatus.QUEUED


def test_the_explanation_of_a_resolved_node_that_is_kept_open_says_until_when():
    play = resolved_while_a_runs(outcome="skipped", reason="not needed")
    said = explain_node(play.task, play.index("b"), play.task.records, now=play.now)
    assert said == (
        "'b' is queued: ann resolved it as skipped: not needed. It ends when it is known whether"
        " the worker of 'a' has begun it."
    )


# ---------------------------------------------------------------- times


def test_a_node_of_a_segment_was_queued_when_its_worker_began_it():
    play = chain()
    play.now += 5.0
    play.succeeds("a", then=play.next_start("b", "a"), at=play.now - 1.0)
    times = [entry[0] for entry in play.log if entry[1] in (0, 1)]
    assert times == sorted(times)
    record = play.record("b")
    assert record.issued_at == record.started_at == play.now - 1.0


@pytest.mark.parametrize("wrong_by", [-1000.0, 1000.0])
def test_a_worker_with_a_wrong_clock_changes_no_time_of_issue(wrong_by: float):
    play = chain()
    issued_at = play.now
    play.now += 5.0
    play.succeeds("a", then=play.next_start("b", "a"), at=play.now + wrong_by)
    assert issued_at <= play.record("b").issued_at <= play.now
