"""Approvals: the first decision, rejections, and time limits."""

from typing import Any

import pytest

from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import Play, changes, effects, graph, started


def approval(**fields: Any) -> dict[str, Any]:
    names = ("choices", "assignees", "timeout_sec", "on_timeout", "on_reject", "form")
    io = {name: fields.pop(name) for name in names if name in fields}
    return {"type": "approval", "io": {"prompt": "Ship?", **io}, **fields}


def test_a_node_waits_for_a_decision_which_is_its_result() -> None:
    play = Play(graph("ok -> b", ok=approval()))
    assert (play.status("ok"), play.task.status) == (NodeStatus.DEFERRED, TaskStatus.DEFERRED)
    step = play.decide("ok", "approve", by="ann", values={"n": 1}, comment="fine")
    assert started(step) == ["b"]
    assert play.record("ok").result == {
        "choice": "approve",
        "by": "ann",
        "at": "1970-01-12T13:46:40+00:00",
        "values": {"n": 1},
        "comment": "fine",
    }


def test_only_the_first_decision_about_the_current_attempt_counts() -> None:
    play = Play(graph("ok", "b", ok=approval()))
    assert play.decide("ok", "approve", attempt=2).ignored
    assert not play.decide("ok", "approve", by="ann").ignored
    assert play.decide("ok", "reject", by="bob").ignored
    assert play.record("ok").result["by"] == "ann"


def test_a_node_that_waits_for_something_else_takes_no_decision() -> None:
    play = Play(graph("w", w={"type": "wait_signal", "io": {"signal": "go"}}))
    assert play.decide("w", "approve").ignored
    assert play.signal("approve").marks == {}


def test_a_rejection_fails_the_node_permanently() -> None:
    limits = {"timeouts": {"start_to_close_sec": 9}, "retry_policy": {"max": 3}}
    play = Play(graph("ok -> b", ok=approval(**limits)))
    play.decide("ok", "reject", by="ann", comment="too late")
    assert play.status("ok") == NodeStatus.FAILED
    assert play.task.error == "node 'ok' failed: rejected: ann rejected it: too late"
    assert play.record("ok").result["choice"] == "reject"


def test_a_rejection_continues_if_the_graph_says_so() -> None:
    play = Play(graph("ok -> b", ok=approval(on_reject="continue")))
    assert started(play.decide("ok", "reject")) == ["b"]
    assert play.record("ok").result["choice"] == "reject"


@pytest.mark.parametrize(("on_timeout", "status"), [("fail", "failed"), ("skip", "skipped")])
def test_a_node_ends_if_no_decision_comes_in_time(on_timeout: str, status: str) -> None:
    play = Play(graph("ok", ok=approval(timeout_sec=60, on_timeout=on_timeout)))
    play.later(60)
    assert (play.status("ok"), play.record("ok").reason_code) == (status, "approval_timeout")
    assert play.record("ok").error in ("no decision within 60 s", None)


def test_a_retried_approval_waits_for_a_new_decision() -> None:
    play = Play(graph("ok", ok=approval()))
    play.decide("ok", "reject")
    play.retry()
    assert play.status("ok") == NodeStatus.DEFERRED
    assert play.record("ok").result is None
    assert changes(play.decide("ok", "approve"))[-1] == "finished"


def test_prompt_choices_and_assignees_may_be_expressions() -> None:
    play = Play(graph("ok", ok=approval(choices="${params.choices}", assignees=["${params.boss}"])))
    assert play.pending == ["evaluate ok"]
    assert effects(play.later(5)) == ["evaluate ok"]
    play.evaluates("ok", prompt="Ship 7?", choices=["yes", "no"], assignees=["ann"])
    assert play.record("ok").wait.arguments == {
        "prompt": "Ship 7?",
        "choices": ["yes", "no"],
        "assignees": ["ann"],
    }


@pytest.mark.parametrize(
    ("field", "value", "error"),
    [
        ("choices", "yes", "io.choices must be a list, not 'yes'"),
        ("choices", None, "io.choices must be a list, not null"),
        ("choices", [], "io.choices is empty; name at least one, or remove it"),
        ("choices", ["a", "a"], "io.choices has a value twice; remove one"),
        ("assignees", None, "io.assignees is null"),
        ("assignees", [], "io.assignees is empty; name at least one, or remove it"),
        ("timeout_sec", None, "io.timeout_sec is null"),
    ],
)
def test_a_wrong_value_fails_the_node(field: str, value: Any, error: str) -> None:
    play = Play(graph("ok", ok=approval(**{field: "${params.given}"})))
    play.evaluates("ok", **{field: value})
    assert (play.status("ok"), play.record("ok").reason_code) == ("failed", "bad_input")
    assert play.record("ok").error == error


def test_a_literal_null_is_as_if_it_was_not_there() -> None:
    given = {"choices": "${params.choices}", "assignees": None, "timeout_sec": None}
    play = Play(graph("ok", ok=approval(**given)))
    play.evaluates("ok", **given | {"choices": ["yes", "no"]})
    assert play.status("ok") == NodeStatus.DEFERRED
