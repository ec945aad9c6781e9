"""Every entry of the tables is reached, and every other transition is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from flowkit._engine import (
    NODE_MOVES,
    NODE_REPORTS,
    TASK_MOVES,
    ArgumentsEvaluated,
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    ChildrenDue,
    CommandWithdrawn,
    ConditionDelayed,
    ConditionEvaluated,
    DecisionMade,
    EndsRead,
    FunctionFailed,
    FunctionReturned,
    IllegalMove,
    KeyBusy,
    KeyGranted,
    KeyNamed,
    KeyQueued,
    MapCollected,
    MapFailed,
    MapGrew,
    MapOpened,
    NodeResolved,
    ResultCached,
    ResultWanted,
    RoundChecked,
    RunNowRequested,
    ShardsCollected,
    Transition,
)
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import ENDED, STATUS_OF_MARK, Mark, NodeStatus, TaskStatus
from tests.engine.drive import FUNCTION, NOON, ONCE, RATE, STEADY, Play, graph, new_task

PATIENT: dict[str, Any] = {"retry_policy": STEADY}
MAP: dict[str, Any] = {"map": {"over": [1, 2]}}
PATIENT_FUNCTION: dict[str, Any] = {**FUNCTION, "retry_policy": STEADY}

Given = Callable[[], Play]
Act = Callable[[Play], Any]

# ------------------------------------------------ a node "n" in each state


def waiting() -> Play:
    return Play(graph("p -> n", n={"when": "vars.x"}))


def checking() -> Play:
    play = Play(graph("p => n", on_node_failure="continue", n={"when": "vars.x"}))
    play.pause()
    play.stores_a_batch("p")
    return play


def ready() -> Play:
    play = Play(graph("p => n", on_node_failure="continue"))
    play.pause()
    play.stores_a_batch("p")
    return play


def ready_by_one_of_two() -> Play:
    play = Play(graph("p q => n", n={"fan_in": "count:2"}, q={"when": "vars.x"}))
    play.pause()
    play.stores_a_batch("p")
    return play


def ready_with_an_attempt_behind_it() -> Play:
    play = Play(graph("n", n=PATIENT))
    play.fails("n")
    play.pause()
    play.later(10)
    return play


def ready_function() -> Play:
    play = Play(graph("n", n=PATIENT_FUNCTION))
    play.function_fails("n")
    play.pause()
    play.later(10)
    return play


def asks(**fields: Any) -> Given:
    """Return a task whose node asks for its key. Its parent streams to it."""

    def given() -> Play:
        key = {"concurrency": {"key": "k", **fields}}
        play = Play(graph("p => n", on_node_failure="continue", n=PATIENT | key), keys=False)
        play.stores_a_batch("p")
        return play

    return given


asking = asks()


def asking_function() -> Play:
    return Play(graph("n", n=PATIENT_FUNCTION | {"concurrency_key": "k"}), keys=False)


def asking_again() -> Play:
    play = asking()
    granted(play)
    play.fails("n")
    play.later(10)
    return play


def asking_function_again() -> Play:
    play = asking_function()
    granted(play)
    play.function_fails("n")
    play.later(10)
    return play


def ready_with_a_key() -> Play:
    play = Play(graph("p => n", n={"concurrency_key": "k"}), keys=False)
    play.pause()
    play.stores_a_batch("p")
    return play


def queued() -> Play:
    play = asking()
    comes_in_the_queue(play)
    return play


def queued_function() -> Play:
    play = asking_function()
    comes_in_the_queue(play)
    return play


def unnamed() -> Play:
    return Play(graph("n", n={"concurrency_key": "${params.key}"}), keys=False)


def named(play: Play) -> Transition:
    return play.do(KeyNamed(play.index("n"), play.record("n").key.number, "k"))


def granted(play: Play) -> Transition:
    return play.do(KeyGranted(play.index("n"), play.record("n").key.number))


def comes_in_the_queue(play: Play) -> Transition:
    return play.do(KeyQueued(play.index("n"), play.record("n").key.number))


def busy(play: Play) -> Transition:
    return play.do(KeyBusy(play.index("n"), play.record("n").key.number, "others hold it"))


def asks_its_cache() -> Play:
    """Return a task whose node has a cache and a key, and asks for its cached result first."""
    fields = {"cache": {"key": "x", "ttl_sec": 60}, "concurrency_key": "k"}
    play = Play(graph("n", n=PATIENT | fields), keys=False)
    play.do(KeyNamed(play.index("n"), 1, "role:n", kind="cache"))
    return play


def waits_for_a_result() -> Play:
    play = asks_its_cache()
    play.do(KeyQueued(play.index("n"), 1, "cache"))
    return play


def waits_for_its_key() -> Play:
    play = asks_its_cache()
    play.do(KeyGranted(play.index("n"), 1, kind="cache"))
    play.do(KeyQueued(play.index("n"), 1))
    return play


def lets_the_next_compute(play: Play) -> Transition:
    return play.do(ResultWanted(play.index("n"), 1))


def takes_a_result(play: Play) -> Transition:
    return play.do(ResultCached(play.index("n"), 1, "role:n", NOON, "stored"))


def granted_while_paused(play: Play) -> Transition:
    play.pause()
    return granted(play)


def issued() -> Play:
    return Play(graph("n", n=PATIENT))


def running() -> Play:
    play = issued()
    play.starts("n")
    return play


def running_function() -> Play:
    return Play(graph("n", n=PATIENT_FUNCTION))


def running_with_a_key() -> Play:
    """Return a task whose node runs with a place of a key, longer than it may."""
    fields = {"concurrency_key": "k", "timeouts": {"start_to_close_sec": 5.0}}
    play = Play(graph("n", n=PATIENT | fields))
    play.starts("n")
    play.later(6)
    return play


def asking_for_a_rate() -> Play:
    """Return a task whose node waits for its key, and asks for its rate next."""
    play = Play(graph("n", n=PATIENT | {"concurrency_key": "k", "rate_limit": RATE}), keys=False)
    comes_in_the_queue(play)
    return play


def running_with_a_rate() -> Play:
    """Return a task whose node runs, and is not known to have begun."""
    play = Play(graph("n", n=PATIENT | {"rate_limit": RATE}))
    play.starts("n")
    return play


def issued_with_a_key() -> Play:
    """Return a task whose node has a place of a key, and waits too long for a worker."""
    fields = {"concurrency_key": "k", "timeouts": {"schedule_to_start_sec": 5.0}}
    play = Play(graph("n", n=PATIENT | fields))
    play.later(6)
    return play


def cancelled_before_its_start() -> Play:
    play = issued_with_a_key()
    play.cancel()
    return play


def deferred() -> Play:
    play = issued()
    play.fails("n")
    return play


def issued_again() -> Play:
    play = deferred()
    play.later(60)
    return play


def deferred_function() -> Play:
    play = running_function()
    play.function_fails("n")
    return play


def cancelling() -> Play:
    play = running()
    play.cancel()
    return play


def cancelling_function() -> Play:
    play = running_function()
    play.cancel()
    return play


def plain_waiting() -> Play:
    play = Play(graph("p -> n", on_node_failure="continue"))
    play.pause()
    return play


def below_a_condition() -> Play:
    return Play(graph("p -> n", p={"when": "vars.x"}))


def map_ready() -> Play:
    play = Play(graph("p -> n", n=MAP))
    play.pause()
    play.succeeds("p")
    return play


def undoing() -> Play:
    play = Play(graph("n", n={**MAP, "undo": {"type": "undo"}}))
    play.opens("n", 1)
    play.succeeds("n[0]")
    play.cancel()
    return play


def mapping() -> Play:
    return Play(graph("n", n=MAP))


def mapping_artifacts() -> Play:
    play = Play(graph("p -> n", n={"map": {"over": {"artifacts": "p"}}}))
    play.stores_a_batch("p")
    return play


def mapping_over_two() -> Play:
    play = mapping()
    play.opens("n", 2)
    return play


def collecting() -> Play:
    play = mapping_over_two()
    play.succeeds("n[0]")
    play.succeeds("n[1]")
    return play


def run_a_child_and_cancel(play: Play) -> None:
    play.opens("n", 1)
    play.starts("n[0]")
    play.cancel()


def reading() -> Play:
    play = Play(graph("p => n", p={"optional": True}))
    play.stores_a_batch("p")
    return play


def stopped_reader() -> Play:
    play = reading()
    play.starts("n")
    play.breaks("p")
    return play


def closing_without_data() -> Play:
    play = Play(graph("p -> n", p={"optional": True}, n={"map": {"over": {"artifacts": "p"}}}))
    play.stores_a_batch("p")
    play.grows("n", 1)
    play.starts("n[0]")
    play.breaks("p")
    return play


def shards_have_ended() -> Play:
    play = Play(graph("p => n", n={"io": {"shards": 2}}))
    play.stores_a_batch("p")
    play.opens("n", 2)
    for name in ("p", "n[0]", "n[1]"):
        play.succeeds(name)
    play.pause()
    return play


def mapping_what_an_optional_node_stores() -> Play:
    play = Play(graph("p -> n", p={"optional": True}, n={"map": {"over": {"artifacts": "p"}}}))
    play.stores_a_batch("p")
    return play


def closing() -> Play:
    play = mapping()
    run_a_child_and_cancel(play)
    return play


def resolved() -> Play:
    play = running()
    play.resolve("n", "failed")
    return play


def resolved_map(outcome: str) -> Play:
    play = mapping()
    play.opens("n", 1)
    play.starts("n[0]")
    play.resolve("n", outcome)
    return play


def begun_after_a_resolved_node() -> Play:
    """Return a task whose node ``p`` was resolved while its worker began ``n`` in its segment."""
    play = Play(graph("p -> n"), segments=True)
    play.starts("p")
    start = play.next_start("n", "p")
    play.resolve("p", "finished")
    play.succeeds("p", then=start)
    return play


def hand_back(play: Play) -> None:
    play.pause()
    play.is_released("n")


def sleeping(**io: Any) -> Play:
    limits = {"timeouts": {"start_to_close_sec": 5.0}}
    return Play(graph("n", n={"type": "sleep", "io": io or {"for_sec": 9}, **limits}))


def waiting_for_a_signal() -> Play:
    io = {"signal": "go", "timeout_sec": 5, "on_timeout": "skip"}
    return Play(graph("n", n={"type": "wait_signal", "io": io}))


def waiting_for_a_decision() -> Play:
    return Play(graph("n", n={"type": "approval", "io": {"prompt": "Ship?"}}))


def before_its_arguments() -> Play:
    return sleeping(for_sec="${params.x}")


def ready_to_sleep() -> Play:
    play = Play(graph("p -> n", n={"type": "sleep", "io": {"for_sec": 9}}))
    play.pause()
    play.succeeds("p")
    return play


def cancelled_sleep() -> Play:
    play = sleeping()
    play.cancel()
    return play


def overslept() -> Play:
    play = sleeping()
    play.later(5)
    return play


def slept() -> Play:
    play = sleeping(until="1970-01-12T13:46:44Z")
    play.later(4)
    play.now -= 4
    return play


WORK = {"node_id": "x", "type": "work"}


def nested() -> Play:
    return Play(graph("n", n={"type": "subflow", "io": {"graph": {"nodes": [WORK]}}}))


def checked_loop() -> Play:
    io = {"graph": {"nodes": [WORK]}, "while": "true"}
    return Play(graph("n", n={"type": "loop", "io": io}))


def stopped_nested() -> Play:
    play = nested()
    play.cancel()
    return play


FINAL = ({"node_id": "n", "type": "tidy"},)


def held() -> Play:
    return Play(graph("p", final=FINAL))


NODE_WITNESSES: dict[tuple[int, int], tuple[Given, Act]] = {
    (Mark.HELD, Mark.WAITING): (held, lambda play: play.succeeds("p")),
    (Mark.WAITING, Mark.CHECKING): (waiting, lambda play: play.succeeds("p")),
    (Mark.WAITING, Mark.READY): (plain_waiting, lambda play: play.succeeds("p")),
    (Mark.WAITING, Mark.SKIPPED): (
        below_a_condition,
        lambda play: play.condition("p", value=False),
    ),
    (Mark.WAITING, Mark.UPSTREAM_FAILED): (plain_waiting, lambda play: play.breaks("p")),
    (Mark.WAITING, Mark.CANCELLED): (waiting, lambda play: play.cancel()),
    (Mark.CHECKING, Mark.READY): (checking, lambda play: play.condition("n", value=True)),
    (Mark.CHECKING, Mark.SKIPPED): (checking, lambda play: play.condition("n", value=False)),
    (Mark.CHECKING, Mark.UPSTREAM_FAILED): (checking, lambda play: play.breaks("p")),
    (Mark.CHECKING, Mark.FAILED): (checking, lambda play: play.condition("n", error="no")),
    (Mark.CHECKING, Mark.CANCELLED): (checking, lambda play: play.cancel()),
    (Mark.READY, Mark.ISSUED): (ready, lambda play: play.resume()),
    (Mark.READY, Mark.RUNNING): (ready_function, lambda play: play.resume()),
    (Mark.READY, Mark.MAPPING): (map_ready, lambda play: play.resume()),
    (Mark.MAPPING, Mark.FINISHED): (mapping, lambda play: play.opens("n", 0)),
    (Mark.MAPPING, Mark.FAILED): (mapping, lambda play: play.map_fails("n")),
    (Mark.MAPPING, Mark.CLOSING): (mapping, run_a_child_and_cancel),
    (Mark.CLOSING, Mark.CANCELLED): (closing, lambda play: play.stops("n[0]")),
    (Mark.MAPPING, Mark.CANCELLED): (mapping, lambda play: play.cancel()),
    (Mark.MAPPING, Mark.READY): (shards_have_ended, lambda play: play.collects_shards("n")),
    (Mark.READY, Mark.FINISHED): (ready_with_an_attempt_behind_it, lambda play: play.succeeds("n")),
    (Mark.READY, Mark.DEFERRED): (ready_to_sleep, lambda play: play.resume()),
    (Mark.READY, Mark.CANCELLED): (ready, lambda play: play.cancel()),
    (Mark.READY, Mark.SKIPPED): (
        ready_by_one_of_two,
        lambda play: play.condition("q", value=False),
    ),
    (Mark.READY, Mark.UPSTREAM_FAILED): (ready, lambda play: play.breaks("p")),
    (Mark.READY, Mark.ASKING): (ready_with_a_key, lambda play: play.resume()),
    (Mark.ASKING, Mark.READY): (asking, granted_while_paused),
    (Mark.ASKING, Mark.ISSUED): (asking, granted),
    (Mark.ASKING, Mark.RUNNING): (asking_function, granted),
    (Mark.ASKING, Mark.DEFERRED): (asking, comes_in_the_queue),
    (Mark.ASKING, Mark.FINISHED): (asking_again, lambda play: play.succeeds("n")),
    (Mark.ASKING, Mark.FAILED): (asks(on_conflict="fail"), busy),
    (Mark.ASKING, Mark.SKIPPED): (asks(on_conflict="skip"), busy),
    (Mark.ASKING, Mark.CANCELLED): (asking, lambda play: play.cancel()),
    (Mark.ASKING, Mark.UPSTREAM_FAILED): (asking, lambda play: play.breaks("p")),
    (Mark.DEFERRED, Mark.ASKING): (asking_for_a_rate, granted),
    (Mark.DEFERRED, Mark.ISSUED): (queued, granted),
    (Mark.DEFERRED, Mark.RUNNING): (queued_function, granted),
    (Mark.DEFERRED, Mark.UPSTREAM_FAILED): (queued, lambda play: play.breaks("p")),
    (Mark.ISSUED, Mark.RUNNING): (issued, lambda play: play.starts("n")),
    (Mark.ISSUED, Mark.CANCELLING): (issued_with_a_key, lambda play: play.cancel()),
    (Mark.ISSUED, Mark.READY): (issued, hand_back),
    (Mark.ISSUED, Mark.DEFERRED): (issued, lambda play: play.stops("n")),
    (Mark.ISSUED, Mark.FAILED): (lambda: Play(graph("n", n=ONCE)), lambda play: play.stops("n")),
    (Mark.ISSUED, Mark.CANCELLED): (issued, lambda play: play.cancel()),
    (Mark.RUNNING, Mark.CANCELLING): (running, lambda play: play.cancel()),
    (Mark.RUNNING, Mark.READY): (running, hand_back),
    (Mark.RUNNING, Mark.FINISHED): (running, lambda play: play.succeeds("n")),
    (Mark.RUNNING, Mark.DEFERRED): (running, lambda play: play.fails("n")),
    (Mark.RUNNING, Mark.FAILED): (running, lambda play: play.breaks("n")),
    (Mark.DEFERRED, Mark.READY): (deferred, lambda play: (play.pause(), play.later(10))),
    (Mark.DEFERRED, Mark.DEFERRED): (
        before_its_arguments,
        lambda play: play.evaluates("n", for_sec=9),
    ),
    (Mark.DEFERRED, Mark.SKIPPED): (waiting_for_a_signal, lambda play: play.later(5)),
    (Mark.DEFERRED, Mark.FAILED): (sleeping, lambda play: play.later(5)),
    (Mark.DEFERRED, Mark.FINISHED): (deferred, lambda play: play.succeeds("n")),
    (Mark.DEFERRED, Mark.CANCELLED): (deferred, lambda play: play.cancel()),
    (Mark.CANCELLING, Mark.WAITING): (begun_after_a_resolved_node, lambda play: play.stops("n")),
    (Mark.CANCELLING, Mark.FINISHED): (cancelling, lambda play: play.succeeds("n")),
    (Mark.CANCELLING, Mark.CANCELLED): (cancelling, lambda play: play.stops("n")),
    (Mark.CANCELLING, Mark.SKIPPED): (stopped_reader, lambda play: play.stops("n")),
    (Mark.ISSUED, Mark.SKIPPED): (reading, lambda play: play.breaks("p")),
    (Mark.CLOSING, Mark.SKIPPED): (closing_without_data, lambda play: play.stops("n[0]")),
    (Mark.WAITING, Mark.FINISHED): (waiting, lambda play: play.resolve("n", "finished")),
    (Mark.WAITING, Mark.FAILED): (waiting, lambda play: play.resolve("n", "failed")),
    (Mark.CHECKING, Mark.FINISHED): (checking, lambda play: play.resolve("n", "finished")),
    (Mark.READY, Mark.FAILED): (ready, lambda play: play.resolve("n", "failed")),
    (Mark.ISSUED, Mark.FINISHED): (issued_again, lambda play: play.succeeds("n", attempt=1)),
    (Mark.CANCELLING, Mark.FAILED): (resolved, lambda play: play.stops("n")),
    (Mark.CLOSING, Mark.FINISHED): (
        lambda: resolved_map("finished"),
        lambda play: play.stops("n[0]"),
    ),
    (Mark.CLOSING, Mark.FAILED): (lambda: resolved_map("failed"), lambda play: play.stops("n[0]")),
    (Mark.MAPPING, Mark.SKIPPED): (
        mapping_what_an_optional_node_stores,
        lambda play: play.breaks("p"),
    ),
}


def test_every_move_of_a_node_has_a_witness():
    assert set(NODE_WITNESSES) == {
        (before, after) for before, targets in NODE_MOVES.items() for after in targets
    }


@pytest.mark.parametrize("move", NODE_WITNESSES, ids=lambda move: f"{chr(move[0])}{chr(move[1])}")
def test_a_node_makes_the_move(move: tuple[int, int]):
    given, act = NODE_WITNESSES[move]
    play = given()
    assert play.task.marks[play.index("n")] == move[0]
    step = act(play)
    if move[1] != Mark.WAITING:  # such a node moves on at once
        assert play.task.marks[play.index("n")] == move[1]
    else:
        assert step.open == 1


@pytest.mark.parametrize("before", NODE_MOVES)
@pytest.mark.parametrize("after", NODE_MOVES)
def test_a_node_makes_no_other_move(before: int, after: int):
    task = new_task(graph("n"))
    task.marks[0] = before
    step = Transition(task, NOON)
    if after in NODE_MOVES[before]:
        step.move(0, after)
    else:
        with pytest.raises(IllegalMove, match="node 0 of task 't'"):
            step.move(0, after)


def test_a_node_that_has_ended_moves_no_more():
    assert all(bool(targets) == (mark not in ENDED) for mark, targets in NODE_MOVES.items())
    assert set(NODE_MOVES) == set(STATUS_OF_MARK)


def test_statuses_are_equal_to_their_names_and_say_whether_they_are_terminal():
    terminal = {"finished", "failed", "cancelled", "skipped"}
    for status in (*NodeStatus, *TaskStatus):
        assert status == status.name.lower()
        assert status.terminal == (status in terminal)


# ---------------------------------------------------------------- reports

REPORT_WITNESSES: dict[tuple[type, int], tuple[Given, Act]] = {
    (NodeStarted, Mark.ISSUED): (issued, lambda play: play.starts("n")),
    (NodeStarted, Mark.RUNNING): (running_with_a_rate, lambda play: play.starts("n", begun=True)),
    (NodeStarted, Mark.CANCELLING): (cancelled_before_its_start, lambda play: play.starts("n")),
    (CommandWithdrawn, Mark.ISSUED): (issued_with_a_key, lambda play: play.is_withdrawn("n")),
    (CommandWithdrawn, Mark.RUNNING): (running_with_a_key, lambda play: play.is_withdrawn("n")),
    (CommandWithdrawn, Mark.CANCELLING): (
        cancelled_before_its_start,
        lambda play: play.is_withdrawn("n"),
    ),
    (NodeProgressed, Mark.ISSUED): (issued, lambda play: play.progresses("n")),
    (NodeProgressed, Mark.RUNNING): (running, lambda play: play.progresses("n")),
    (BatchStored, Mark.ISSUED): (issued, lambda play: play.stores_a_batch("n")),
    (BatchStored, Mark.RUNNING): (running, lambda play: play.stores_a_batch("n")),
    (NodeHeldUp, Mark.ISSUED): (issued, lambda play: play.is_held_up("n", "r", 5)),
    (NodeHeldUp, Mark.RUNNING): (running, lambda play: play.is_held_up("n", None)),
    (BatchesRetried, Mark.ISSUED): (issued, lambda play: play.retries("n")),
    (BatchesRetried, Mark.RUNNING): (running, lambda play: play.retries("n")),
    (NodeSucceeded, Mark.READY): (ready_with_an_attempt_behind_it, lambda play: play.succeeds("n")),
    (NodeSucceeded, Mark.ISSUED): (issued, lambda play: play.succeeds("n")),
    (NodeSucceeded, Mark.RUNNING): (running, lambda play: play.succeeds("n")),
    (NodeSucceeded, Mark.DEFERRED): (deferred, lambda play: play.succeeds("n")),
    (NodeSucceeded, Mark.CANCELLING): (cancelling, lambda play: play.succeeds("n")),
    (NodeSucceeded, Mark.ASKING): (asking_again, lambda play: play.succeeds("n")),
    (FunctionReturned, Mark.ASKING): (asking_function_again, lambda play: play.returns("n")),
    (KeyNamed, Mark.ASKING): (unnamed, named),
    (KeyGranted, Mark.ASKING): (asking, granted),
    (KeyGranted, Mark.DEFERRED): (queued, granted),
    (KeyQueued, Mark.ASKING): (asking, comes_in_the_queue),
    (KeyBusy, Mark.ASKING): (asks(on_conflict="skip"), busy),
    (ResultCached, Mark.ASKING): (asks_its_cache, takes_a_result),
    (ResultCached, Mark.DEFERRED): (waits_for_a_result, takes_a_result),
    (ResultWanted, Mark.DEFERRED): (waits_for_its_key, lets_the_next_compute),
    (FunctionReturned, Mark.READY): (ready_function, lambda play: play.returns("n")),
    (FunctionReturned, Mark.RUNNING): (running_function, lambda play: play.returns("n")),
    (FunctionReturned, Mark.DEFERRED): (deferred_function, lambda play: play.returns("n")),
    (FunctionReturned, Mark.CANCELLING): (cancelling_function, lambda play: play.returns("n")),
    (NodeFailed, Mark.ISSUED): (issued, lambda play: play.fails("n")),
    (NodeFailed, Mark.RUNNING): (running, lambda play: play.fails("n")),
    (NodeFailed, Mark.CANCELLING): (cancelling, lambda play: play.fails("n")),
    (FunctionFailed, Mark.RUNNING): (running_function, lambda play: play.function_fails("n")),
    (FunctionFailed, Mark.CANCELLING): (cancelling_function, lambda play: play.function_fails("n")),
    (NodeStopped, Mark.ISSUED): (issued, lambda play: play.stops("n")),
    (NodeStopped, Mark.RUNNING): (running, lambda play: play.stops("n")),
    (NodeStopped, Mark.CANCELLING): (cancelling, lambda play: play.stops("n")),
    (NodeReleased, Mark.ISSUED): (issued, lambda play: play.is_released("n")),
    (NodeReleased, Mark.RUNNING): (running, lambda play: play.is_released("n")),
    (NodeReleased, Mark.CANCELLING): (cancelling, lambda play: play.is_released("n")),
    (ConditionEvaluated, Mark.CHECKING): (checking, lambda play: play.condition("n", value=True)),
    (ArgumentsEvaluated, Mark.DEFERRED): (
        before_its_arguments,
        lambda play: play.evaluates("n", for_sec=9),
    ),
    (DecisionMade, Mark.DEFERRED): (
        waiting_for_a_decision,
        lambda play: play.decide("n", "approve"),
    ),
    (RunNowRequested, Mark.DEFERRED): (deferred, lambda play: play.runs_now("n")),
    **{
        (NodeResolved, mark): (given, lambda play: play.resolve("n", "finished"))
        for mark, given in (
            (Mark.WAITING, plain_waiting),
            (Mark.CHECKING, checking),
            (Mark.ASKING, asking),
            (Mark.READY, ready),
            (Mark.ISSUED, issued),
            (Mark.RUNNING, running),
            (Mark.MAPPING, mapping),
            (Mark.DEFERRED, deferred),
        )
    },
    (ConditionDelayed, Mark.CHECKING): (checking, lambda play: play.delays("n")),
    (MapOpened, Mark.MAPPING): (mapping, lambda play: play.opens("n", 0)),
    (MapGrew, Mark.MAPPING): (mapping_artifacts, lambda play: play.grows("n", 1)),
    (MapFailed, Mark.MAPPING): (mapping, lambda play: play.map_fails("n")),
    (ChildrenDue, Mark.MAPPING): (mapping_over_two, lambda play: play.begins("n")),
    (MapCollected, Mark.MAPPING): (collecting, lambda play: play.collects("n", 1, 2)),
    (ShardsCollected, Mark.MAPPING): (
        shards_have_ended,
        lambda play: play.collects_shards("n"),
    ),
    (EndsRead, Mark.MAPPING): (undoing, lambda play: play.reads_ends("n~undo")),
    (ChildrenCreated, Mark.RUNNING): (nested, lambda play: play.creates("n")),
    (ChildrenCreated, Mark.CANCELLING): (stopped_nested, lambda play: play.creates("n")),
    (ChildFinished, Mark.RUNNING): (nested, lambda play: play.child_finishes("n")),
    (ChildFinished, Mark.CANCELLING): (stopped_nested, lambda play: play.child_finishes("n")),
    (ChildFailed, Mark.RUNNING): (nested, lambda play: play.child_fails("n")),
    (ChildFailed, Mark.CANCELLING): (stopped_nested, lambda play: play.child_fails("n")),
    (RoundChecked, Mark.RUNNING): (checked_loop, lambda play: play.checks("n", False)),
}


def test_every_report_that_counts_has_a_witness():
    assert set(REPORT_WITNESSES) == {
        (report, mark) for report, marks in NODE_REPORTS.items() for mark in marks
    }


@pytest.mark.parametrize(
    "case", REPORT_WITNESSES, ids=lambda case: f"{case[0].__name__}-{chr(case[1])}"
)
def test_a_report_counts_where_the_table_says(case: tuple[type, int]):
    given, act = REPORT_WITNESSES[case]
    play = given()
    name = "n~undo" if case[0] is EndsRead else "n"
    assert play.task.marks[play.index(name)] == case[1]
    assert not act(play).ignored


# ---------------------------------------------------------------- tasks


def task_queued() -> Play:
    return Play(graph("n", n=PATIENT))


def task_deferred() -> Play:
    """Return a task that is deferred before any node ran."""
    play = Play(graph("n", n={**PATIENT, "timeouts": {"schedule_to_start_sec": 1.0}}))
    play.later(1)
    return play


def task_paused(given: Given) -> Given:
    def paused() -> Play:
        play = given()
        play.pause()
        return play

    return paused


def task_failing() -> Play:
    play = Play(graph("n m"))
    play.starts("m")
    play.breaks("n")
    return play


def task_failed() -> Play:
    play = task_queued()
    play.breaks("n")
    return play


def task_finished() -> Play:
    play = task_queued()
    play.succeeds("n")
    return play


def finished_function() -> Play:
    play = running_function()
    play.returns("n")
    return play


def task_cancelled() -> Play:
    play = task_queued()
    play.cancel()
    return play


def failed_function() -> Play:
    play = running_function()
    play.function_fails("n", permanent=True)
    return play


def cancelled_function() -> Play:
    play = running_function()
    play.cancel()
    play.stops("n")
    return play


def reader_without_a_writer(*, cancel: bool) -> Given:
    """Return a task whose reader failed before the parent that it needs.

    A branch handles the failure.
    """

    def given() -> Play:
        play = Play(graph("p => n", "p !> h", "h -> x", on_node_failure="continue", n=ONCE))
        play.stores_a_batch("p")
        play.starts("n")
        if cancel:
            play.breaks("p")
            play.stops("n")
            play.starts("h")
            play.succeeds("h")
            play.starts("x")
            play.cancel()
            play.succeeds("x")
        else:
            play.fails("n")
            play.breaks("p")
            play.succeeds("h")
            play.succeeds("x")
        return play

    return given


def cancelled_beside_a_failure() -> Play:
    play = Play(graph("n -> m", "x", on_node_failure="continue"))
    play.breaks("n")
    play.starts("x")
    play.cancel()
    play.succeeds("x")
    return play


def with_a_tidy_end(*lines: str, **nodes: dict[str, object]) -> Play:
    return Play(graph(*lines, final=({"node_id": "tidy", **FUNCTION},), **nodes))


def deferred_with_a_tidy_end() -> Play:
    play = with_a_tidy_end("n", n=PATIENT)
    play.fails("n")
    return play


def ended_with_a_failed_undo(*, cancel: bool) -> Given:
    def given() -> Play:
        play = Play(graph("n -> m", n={"undo": {"type": "u", "retry_policy": {"max": 0}}}))
        play.succeeds("n")
        if cancel:
            play.withdraws(play.cancel())
        else:
            play.breaks("m")
        play.fails("n~undo")
        return play

    return given


def again(play: Play) -> None:
    """Retry the dead letter of the undo."""
    play.retry("n~undo", fill=True)


S = TaskStatus
TASK_WITNESSES: dict[tuple[TaskStatus, TaskStatus], tuple[Given, Act]] = {
    (S.QUEUED, S.RUNNING): (task_queued, lambda play: play.starts("n")),
    (S.QUEUED, S.DEFERRED): (task_queued, lambda play: play.stops("n")),
    (S.QUEUED, S.PAUSED): (task_queued, lambda play: play.pause()),
    (S.QUEUED, S.CANCELLING): (lambda: with_a_tidy_end("n"), lambda play: play.cancel()),
    (S.QUEUED, S.FINISHED): (task_queued, lambda play: play.succeeds("n")),
    (S.QUEUED, S.FAILED): (task_queued, lambda play: play.breaks("n")),
    (S.QUEUED, S.CANCELLED): (task_queued, lambda play: play.cancel()),
    (S.RUNNING, S.DEFERRED): (running, lambda play: play.fails("n")),
    (S.RUNNING, S.PAUSED): (running, lambda play: play.pause()),
    (S.RUNNING, S.CANCELLING): (running, lambda play: play.cancel()),
    (S.RUNNING, S.FINISHED): (running, lambda play: play.succeeds("n")),
    (S.RUNNING, S.FAILED): (running, lambda play: play.breaks("n")),
    (S.RUNNING, S.CANCELLED): (lambda: _after_one_of_two(), lambda play: play.cancel()),
    (S.DEFERRED, S.QUEUED): (task_deferred, lambda play: play.later(10)),
    (S.DEFERRED, S.RUNNING): (deferred, lambda play: play.later(10)),
    (S.DEFERRED, S.PAUSED): (deferred, lambda play: play.pause()),
    (S.DEFERRED, S.CANCELLING): (deferred_with_a_tidy_end, lambda play: play.cancel()),
    (S.DEFERRED, S.FINISHED): (deferred, lambda play: play.succeeds("n")),
    (S.DEFERRED, S.FAILED): (lambda: _deferred_with_a_deadline(), lambda play: play.later(60)),
    (S.DEFERRED, S.CANCELLED): (deferred, lambda play: play.cancel()),
    (S.PAUSED, S.QUEUED): (task_paused(task_queued), lambda play: play.resume()),
    (S.PAUSED, S.RUNNING): (task_paused(running), lambda play: play.resume()),
    (S.PAUSED, S.DEFERRED): (task_paused(deferred), lambda play: play.resume()),
    (S.PAUSED, S.CANCELLING): (task_paused(running), lambda play: play.cancel()),
    (S.PAUSED, S.FINISHED): (task_paused(running), lambda play: play.succeeds("n")),
    (S.PAUSED, S.FAILED): (task_paused(running), lambda play: play.breaks("n")),
    (S.PAUSED, S.CANCELLED): (task_paused(task_queued), lambda play: play.cancel()),
    (S.CANCELLING, S.CANCELLED): (cancelling, lambda play: play.stops("n")),
    (S.CANCELLING, S.FAILED): (task_failing, lambda play: play.stops("m")),
    (S.FINISHED, S.QUEUED): (task_finished, lambda play: play.retry("n", fill=True)),
    (S.FINISHED, S.RUNNING): (finished_function, lambda play: play.retry("n", fill=True)),
    (S.FINISHED, S.DEFERRED): (slept, lambda play: play.retry("n", fill=True)),
    (S.FAILED, S.DEFERRED): (overslept, lambda play: play.retry()),
    (S.CANCELLED, S.DEFERRED): (cancelled_sleep, lambda play: play.retry()),
    (S.FAILED, S.QUEUED): (task_failed, lambda play: play.retry()),
    (S.FAILED, S.RUNNING): (failed_function, lambda play: play.retry()),
    (S.FAILED, S.CANCELLING): (ended_with_a_failed_undo(cancel=False), again),
    (S.FAILED, S.FINISHED): (reader_without_a_writer(cancel=False), lambda play: play.retry()),
    (S.CANCELLED, S.QUEUED): (task_cancelled, lambda play: play.retry()),
    (S.CANCELLED, S.RUNNING): (cancelled_function, lambda play: play.retry()),
    (S.CANCELLED, S.CANCELLING): (ended_with_a_failed_undo(cancel=True), again),
    (S.CANCELLED, S.FINISHED): (reader_without_a_writer(cancel=True), lambda play: play.retry()),
    (S.CANCELLED, S.FAILED): (cancelled_beside_a_failure, lambda play: play.retry("m")),
}


def _after_one_of_two() -> Play:
    play = Play(graph("n -> m"))
    play.succeeds("n")
    return play


def _deferred_with_a_deadline() -> Play:
    play = Play(graph("n", n={"retry_policy": {**STEADY, "backoff_sec": 60.0}}), deadline_sec=30)
    play.fails("n")
    return play


def test_every_move_of_a_task_has_a_witness():
    assert set(TASK_WITNESSES) == {
        (before, after) for before, targets in TASK_MOVES.items() for after in targets
    }


@pytest.mark.parametrize("move", TASK_WITNESSES, ids=lambda move: f"{move[0]}-{move[1]}")
def test_a_task_makes_the_move(move: tuple[TaskStatus, TaskStatus]):
    given, act = TASK_WITNESSES[move]
    play = given()
    assert play.task.status is move[0]
    act(play)
    assert play.task.status is move[1]


@pytest.mark.parametrize("before", TASK_MOVES)
@pytest.mark.parametrize("after", TaskStatus)
def test_a_task_makes_no_other_move(before: TaskStatus, after: TaskStatus):
    task = new_task(graph("n"))
    task.status = before
    step = Transition(task, NOON)
    if after is before or after in TASK_MOVES[before]:
        step.set_status(after)
        assert step.status is after
    else:
        with pytest.raises(IllegalMove, match=f"task 't': {before} to {after}"):
            step.set_status(after)
