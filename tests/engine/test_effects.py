"""All pending effects follow from the stored task, so a crash loses no decision."""

from flowkit._engine import CancelRequested, advance, pending_effects
from flowkit._records.task_records import decode_task, header_of
from flowkit.graph import Graph
from flowkit.task import Task
from tests.engine.drive import (
    FUNCTION,
    NOON,
    STEADY,
    Play,
    copy_of,
    effects,
    graph,
    kept_at_hand,
    record_of,
    started,
    told,
)


def after_a_crash(play: Play, flow: Graph) -> Task:
    """Return the task as another process reads it from the store."""
    return decode_task(record_of(play.task, flow))


def test_a_command_is_to_be_sent_until_it_was():
    play = Play(graph("a b"))
    assert play.pending == ["run a", "run b"]
    play.sent(("a", 1))
    assert play.pending == ["run b"]
    play.starts("b")
    assert play.pending == []


def test_only_the_present_attempt_s_command_counts_as_sent():
    play = Play(graph("a", a={"retry_policy": STEADY}))
    play.fails("a")
    play.later(10)
    play.sent(("a", 1))
    assert play.pending == ["run a"]


def test_a_command_that_is_issued_again_is_sent_again():
    play = Play(graph("a"))
    play.sent(("a", 1))
    play.is_released("a")
    assert play.pending == ["run a"]


def test_functions_conditions_and_cancellations_are_to_be_done_until_they_are():
    play = Play(graph("f", "c d", "x", f=FUNCTION, c={"when": "vars.x"}, d={"when": "vars.x"}))
    assert play.pending == ["call f", "decide c", "decide d", "run x"]
    play.starts("x")
    play.cancel("enough")
    assert play.pending == ["stop f", "stop x"]
    assert [effect.reason for effect in pending_effects(play.task)] == ["enough", "enough"]


def test_a_condition_that_was_delayed_is_to_be_evaluated_until_it_is():
    play = Play(graph("a -> b", b={"when": "vars.x"}), resend_sec=5.0)
    play.succeeds("a")
    assert not play.delays("b").ignored
    assert play.task.wake_at == play.now + 5
    assert play.delays("b").ignored
    assert effects(play.later(5)) == ["decide b"]
    assert play.task.wake_at == play.now + 5
    assert effects(play.later(30)) == ["decide b"]
    assert play.task.wake_at == play.now + 35
    assert play.pending == ["decide b"]
    assert started(play.condition("b", value=True, since=NOON)) == ["b"]
    assert play.pending == ["run b"]


def test_a_delayed_evaluation_counts_only_for_the_run_that_it_began_in():
    play = Play(graph("a", a={"when": "vars.x"}))
    play.delays("a")
    play.cancel()
    assert play.condition("a", value=True, since=NOON).ignored
    play.later(1)
    assert effects(play.retry()) == ["decide a"]
    assert play.condition("a", value=True, since=NOON).ignored
    play.delays("a")
    assert play.condition("a", value=True, since=NOON).ignored
    assert started(play.condition("a", value=True, since=play.now)) == ["a"]


def test_a_running_node_needs_nothing():
    play = Play(graph("a"))
    play.starts("a")
    assert play.pending == []


def test_a_cancellation_without_a_reason_is_sent_without_one():
    play = Play(graph("a b -> c", c={"fan_in": "any", "on_satisfied": "cancel"}))
    play.starts("b")
    play.succeeds("a")
    assert "stop b" in play.pending


def test_nothing_is_left_to_do_for_a_task_that_has_ended():
    play = Play(graph("a"))
    play.breaks("a")
    assert play.pending == []


def test_a_task_read_from_the_store_is_the_task_that_was_stored():
    flow = graph(
        "f -> a b",
        "a => c",
        "b -> c",
        f=FUNCTION,
        a={"concurrency_key": "k"},
        b={"concurrency_key": "k"},
    )
    play = Play(flow, deadline_sec=60)
    play.returns("f", {"n": 1})
    play.stores_a_batch("a")
    play.pause()
    task = after_a_crash(play, flow)
    assert kept_at_hand(task) == kept_at_hand(play.task)
    assert told(task, pending_effects(task)) == told(play.task, pending_effects(play.task))
    task.version, task.ready, task.vars = play.task.version, play.task.ready, play.task.vars
    assert task == play.task


def test_a_task_goes_on_where_another_process_left_it():
    flow = graph(
        "a b c -> d",
        a={"concurrency_key": "k"},
        b={"concurrency_key": "k"},
        c={"retry_policy": STEADY},
    )
    play = Play(flow)
    play.fails("c")
    play.task = after_a_crash(play, flow)
    assert play.pending == ["run a"]
    assert started(play.succeeds("a")) == ["b"]
    play.task = after_a_crash(play, flow)
    assert started(play.succeeds("b")) == []
    play.task = after_a_crash(play, flow)
    assert started(play.later(10)) == ["c"]
    assert started(play.succeeds("c", attempt=1)) == ["d"]


def test_nodes_that_waited_for_room_start_in_another_process():
    flow = graph("a b c", c={"priority": 1})
    play = Play(flow, max_in_flight=1)
    play.task = after_a_crash(play, flow)
    assert started(play.succeeds("c")) == ["a"]
    play.task = after_a_crash(play, flow)
    assert started(play.succeeds("a")) == ["b"]


def test_the_header_follows_the_task():
    play = Play(graph("a"), deadline_sec=60)
    header = header_of(play.task)
    assert (header.task_id, header.status, header.wake_at, header.finished_at) == (
        "t",
        "queued",
        play.now + 5,
        None,
    )


def test_a_transition_that_is_not_applied_leaves_the_task_alone():
    play = Play(graph("a -> b"))
    before = copy_of(play.task)
    advance(play.task, CancelRequested(), now=play.now)
    assert play.task == before
