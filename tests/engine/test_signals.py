"""Signals: which node takes them, which are kept, and what happens if none comes."""

from typing import Any

import pytest

from flowkit._engine import MAX_KEPT
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import Play, effects, graph, started


def wait(signal: str = "go", **fields: Any) -> dict[str, Any]:
    io = {name: fields.pop(name) for name in ("timeout_sec", "on_timeout") if name in fields}
    return {"type": "wait_signal", "io": {"signal": signal, **io}, **fields}


def kept(play: Play) -> list[Any]:
    return [signal.payload for signal in play.task.signals.kept]


def test_a_node_waits_for_a_signal_and_its_payload_is_the_result() -> None:
    play = Play(graph("w -> b", w=wait()))
    assert (play.status("w"), play.task.status) == (NodeStatus.DEFERRED, TaskStatus.DEFERRED)
    assert play.task.wake_at is None
    step = play.signal("go", {"n": 1})
    assert started(step) == ["b"]
    assert (play.status("w"), play.record("w").result) == ("finished", {"n": 1})
    assert kept(play) == []


@pytest.mark.parametrize("payload", [None, False, 0, "", [], {}])
def test_an_empty_payload_is_a_result_too(payload: Any) -> None:
    play = Play(graph("w", w=wait()))
    play.signal("go", payload)
    assert (play.status("w"), play.record("w").result) == ("finished", payload)


def test_the_history_shows_the_signal_and_the_node_that_took_it() -> None:
    play = Play(graph("w", w=wait()))
    step = play.signal("go", "secret", signal_id="s1")
    assert [entry[1:] for entry in step.log[:2]] == [
        (-1, "signal", None, {"signal": "go", "number": 1}),
        (0, "status", "finished", {"signal": "go", "number": 1}),
    ]


def test_a_signal_that_comes_first_is_kept_until_a_node_waits_for_it() -> None:
    play = Play(graph("a -> w", w=wait()))
    play.signal("go", 1)
    play.signal("go", 2)
    play.signal("other", 3)
    assert kept(play) == [1, 2, 3]
    play.succeeds("a")
    assert (play.status("w"), play.record("w").result) == ("finished", 1)
    assert kept(play) == [2, 3]


def test_of_several_nodes_the_one_that_has_waited_the_longest_takes_the_signal() -> None:
    play = Play(graph("a -> w", "v", w=wait(), v=wait()))
    play.now += 1
    play.succeeds("a")
    play.signal("go", 1)
    assert (play.status("v"), play.status("w")) == ("finished", "deferred")
    play.signal("go", 2)
    assert play.record("w").result == 2


def test_a_signal_is_taken_only_by_nodes_whose_schema_it_matches() -> None:
    play = Play(graph("v", "w", v=wait(), w=wait()))
    play.signal("go", 1, nodes=("w",))
    assert (play.status("v"), play.status("w")) == ("deferred", "finished")
    play.signal("go", 2, nodes=("w",))
    assert (play.status("v"), kept(play)) == ("deferred", [2])


def test_one_id_counts_once_also_after_the_signal_was_taken() -> None:
    play = Play(graph("a -> v", "w", w=wait(), v=wait()))
    play.signal("go", 1, signal_id="x")
    assert play.signal("go", 2, signal_id="x").ignored
    assert play.signal("other", 2, signal_id="x").ignored
    play.signal("go", 3, signal_id="y")
    assert kept(play) == [3]
    assert play.task.signals.ids == ("x", "y")


def test_no_more_signals_are_kept_than_the_limit() -> None:
    play = Play(graph("a -> w", w=wait()), check=False)
    for number in range(MAX_KEPT):
        assert not play.signal("go", number).ignored
    assert play.signal("go").ignored


def test_an_ended_task_ignores_signals() -> None:
    play = Play(graph("w", w=wait()))
    play.cancel()
    assert play.signal("go").ignored


def test_a_node_that_runs_again_waits_for_a_new_signal() -> None:
    play = Play(graph("w -> b", w=wait()))
    play.signal("go", 1)
    play.breaks("b")
    play.retry("w")
    assert play.status("w") == NodeStatus.DEFERRED
    play.signal("go", 2)
    assert play.record("w").result == 2


def test_a_kept_signal_outlives_a_cancellation_and_a_retry() -> None:
    play = Play(graph("a -> w", w=wait()))
    play.signal("go", 1)
    play.cancel()
    play.retry()
    play.succeeds("a")
    assert play.record("w").result == 1


def test_a_paused_task_takes_signals_and_starts_nothing() -> None:
    play = Play(graph("w -> b", w=wait()))
    play.pause()
    assert started(play.signal("go")) == []
    assert play.status("w") == NodeStatus.FINISHED
    assert started(play.resume()) == ["b"]


# ---------------------------------------------------------------- time


def test_a_node_fails_if_no_signal_comes_in_time_and_is_not_retried() -> None:
    limits = {"timeouts": {"start_to_close_sec": 100}, "retry_policy": {"max": 5}}
    play = Play(graph("w", w=wait(timeout_sec="${60}", **limits)))
    play.evaluates("w", timeout_sec=60)
    play.later(60)
    assert play.status("w") == NodeStatus.FAILED
    assert play.task.error == "node 'w' failed: signal_timeout: no signal 'go' within 60 s"


def test_a_node_is_skipped_if_no_signal_comes_in_time_and_the_graph_says_so() -> None:
    play = Play(graph("w a -> b", "w -> c", w=wait(timeout_sec=60, on_timeout="skip")))
    play.succeeds("a")
    step = play.later(60)
    assert (play.status("w"), play.record("w").reason_code) == ("skipped", "signal_timeout")
    assert started(step) == ["b"]
    assert play.record("c").reason_code == "upstream_skipped"


def test_a_signal_after_the_time_is_kept() -> None:
    play = Play(graph("w -> b", "a", w=wait(timeout_sec=60, on_timeout="skip")))
    play.later(60)
    play.signal("go", 1)
    assert kept(play) == [1]


# ---------------------------------------------------------------- expressions


def test_the_name_of_a_signal_may_be_an_expression() -> None:
    play = Play(graph("w", w=wait("order-${params.n}", timeout_sec="${params.t}")))
    play.signal("order-7", 1)
    assert effects(play.later(5)) == ["evaluate w"]
    assert play.status("w") == NodeStatus.DEFERRED
    play.evaluates("w", signal="order-7", timeout_sec=60)
    assert play.record("w").result == 1


def test_a_name_of_the_wrong_type_fails_the_node() -> None:
    play = Play(graph("w", w=wait("${params.n}")))
    play.evaluates("w", signal=7)
    assert play.record("w").reason_code == "bad_input"
    assert play.record("w").error == "io.signal must be a string, not 7"
