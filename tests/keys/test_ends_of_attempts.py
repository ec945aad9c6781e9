"""A place of a key is given back when the attempt that holds it is known to have ended."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest

from flowkit._engine import Event, KeyGranted, KeyNamed, TaskEnding, VarsOp, WithdrawCommand
from flowkit._records.claims import Claim, claim_record
from flowkit._tasks.explanations import explain_node
from flowkit.coordinator._withdrawals import Withdrawals
from flowkit.task import ParentNode, TaskStatus
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore, ManualClock
from tests.engine.drive import FUNCTION, STEADY, Play, effects, graph
from tests.keys.test_nodes_with_keys import finish, keyed

LIMITS = {"start_to_close_sec": 5.0, "schedule_to_start_sec": 5.0}
KEYED: dict[str, Any] = {"concurrency_key": "k", "retry_policy": STEADY, "timeouts": LIMITS}


def explained(play: Play) -> str:
    return explain_node(play.task, play.index("a"), play.task.records, now=play.now)


def overdue(*, started: bool) -> Play:
    """Return a task of which a node with a place has exceeded a limit."""
    play = Play(graph("a", a=KEYED))
    if started:
        play.starts("a")
    expected = ["stop a"] if started else ["stop a", "withdraw a"]
    assert effects(play.later(6)) == expected
    assert play.status("a") == ("running" if started else "queued")
    return play


@pytest.mark.parametrize("end", ["stops", "fails", "is_released"])
def test_an_attempt_beyond_its_limit_fails_with_that_when_its_end_is_reported(end: str) -> None:
    play = overdue(started=True)
    assert "return the key of a" not in effects(play.later(1_000))
    assert "return the key of a" in effects(getattr(play, end)("a"))
    record = play.record("a")
    assert (play.status("a"), record.reason_code) == ("deferred", "start_to_close_timeout")
    play.later(10)
    assert (play.status("a"), play.record("a").attempt) == ("queued", 2)


@pytest.mark.parametrize("kind", ["key", "key of the graph", "cache"])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_success_after_the_limit_fails_the_attempt(kind: str, retries: int) -> None:
    node: dict[str, Any] = {"timeouts": LIMITS, "retry_policy": {"max": retries}}
    node |= {"cache": {"key": "c", "ttl_sec": 60}} if kind == "cache" else {}
    node |= {"concurrency_key": "k"} if kind == "key" else {}
    play = Play(graph("a", a=node, concurrency={"key": "k"} if "graph" in kind else None))
    if kind == "cache":
        play.do(KeyNamed(0, 1, "c", kind="cache"))
        play.do(KeyGranted(0, 1, kind="cache"))
    play.starts("a")
    play.later(6)
    step = play.succeeds("a", result=1)
    record = play.record("a")
    assert play.status("a") == ("deferred" if retries else "failed")
    assert (record.reason_code, record.result) == ("start_to_close_timeout", None)
    assert not record.overdue
    assert ("return the key of a" in effects(step)) is (kind == "key")
    assert play.succeeds("a", result=1).ignored


def test_the_success_of_a_command_that_started_too_late_fails_the_attempt() -> None:
    play = overdue(started=False)
    play.succeeds("a")
    record = play.record("a")
    assert (play.status("a"), record.reason_code) == ("deferred", "schedule_to_start_timeout")


def test_a_function_that_returns_after_its_limit_changes_no_vars_and_does_not_end_the_task() -> (
    None
):
    play = Play(graph("f", f=FUNCTION | KEYED | {"timeouts": {"start_to_close_sec": 5.0}}))
    play.later(6)
    play.returns("f", None, VarsOp("set", {"kv": {"n": 1}}), ending=TaskEnding(TaskStatus.FINISHED))
    assert (play.status("f"), play.task.vars, play.task.outcome) == ("deferred", {}, None)
    assert play.record("f").reason_code == "start_to_close_timeout"


def test_an_attempt_that_succeeds_after_its_limit_and_its_cancellation_is_cancelled() -> None:
    play = overdue(started=True)
    play.cancel()
    assert play.status("a") == "cancelling"
    assert "return the key of a" in effects(play.succeeds("a"))
    assert play.status("a") == "cancelled"


def test_the_loss_of_the_worker_ends_an_attempt_beyond_its_limit() -> None:
    play = overdue(started=True)
    assert "return the key of a" in effects(play.later(1, silent={"w": 1_000.0}))
    assert play.record("a").reason_code == "start_to_close_timeout"


def test_a_node_that_keeps_its_place_until_its_attempt_has_ended_tells_so() -> None:
    play = overdue(started=True)
    stopped = "'a' is being stopped (start_to_close_timeout: it ran longer than 5 s)."
    held = "It holds its key 'k' until its attempt on 'w' is known to have ended."
    assert explained(play) == f"{stopped} {held}"
    play.cancel()
    assert explained(play).endswith(f". {held}")


def test_the_worker_of_an_attempt_that_does_not_end_is_asked_for_it() -> None:
    play = overdue(started=True)
    assert effects(play.later(1)) == ["stop a"]
    assert effects(play.later(20)) == ["stop a", "ask for a"]


def test_a_command_that_waits_too_long_is_withdrawn_before_the_next_attempt() -> None:
    play = overdue(started=False)
    assert effects(play.later(30)) == ["stop a", "withdraw a"]
    assert "return the key of a" in effects(play.is_withdrawn("a"))
    record = play.record("a")
    assert (play.status("a"), record.reason_code) == ("deferred", "schedule_to_start_timeout")


def test_a_worker_that_was_faster_than_the_withdrawal_is_stopped() -> None:
    play = overdue(started=False)
    assert "stop a" in effects(play.starts("a"))
    assert play.status("a") == "running"
    assert "return the key of a" in effects(play.stops("a"))


@pytest.mark.parametrize("verb", ["cancel", "resolve"])
def test_a_node_that_is_stopped_before_its_start_ends_when_its_command_is_withdrawn(
    verb: str,
) -> None:
    play = Play(graph("a", a=KEYED))
    step = play.cancel() if verb == "cancel" else play.resolve("a", "skipped")
    assert effects(step) == ["stop a", "withdraw a"]
    assert effects(play.later(100)) == ["stop a", "withdraw a"]
    assert play.pending == ["stop a", "withdraw a"]
    assert play.status("a") == "cancelling"
    assert "return the key of a" in effects(play.is_withdrawn("a"))
    assert play.status("a") == ("cancelled" if verb == "cancel" else "skipped")


def test_a_node_that_is_stopped_while_it_starts_ends_with_its_worker() -> None:
    play = Play(graph("a", a=KEYED))
    play.cancel()
    assert effects(play.starts("a")) == ["stop a"]
    assert play.starts("a").ignored
    assert play.is_withdrawn("a", token="other").ignored
    assert "return the key of a" not in effects(play.later(1_000))
    assert "return the key of a" in effects(play.later(1, silent={"w": 1_000.0}))
    assert play.status("a") == "cancelled"


def test_a_withdrawal_ends_no_attempt_that_has_begun() -> None:
    play = Play(graph("a", a=KEYED))
    play.starts("a")
    assert play.is_withdrawn("a").ignored


def test_the_success_of_an_earlier_attempt_does_not_end_the_one_that_has_the_place() -> None:
    play = Play(graph("a", a=KEYED))
    play.starts("a")
    play.later(1, silent={"w": 1_000.0})
    play.later(10)
    assert play.record("a").attempt == 2
    assert play.succeeds("a", attempt=1).ignored
    assert "return the key of a" in effects(play.succeeds("a"))


def test_a_function_beyond_its_limit_ends_after_a_grace() -> None:
    play = Play(
        graph("f", f=FUNCTION | KEYED | {"timeouts": {"start_to_close_sec": 5.0}}),
        cancel_grace_sec=10.0,
        lease_ttl_sec=20.0,
    )
    assert effects(play.later(6)) == ["stop f"]
    assert play.pending == ["stop f"]
    assert "return the key of f" not in effects(play.later(29))
    assert "return the key of f" in effects(play.later(1))
    assert play.record("f").reason_code == "start_to_close_timeout"


def test_a_node_without_a_key_below_one_that_holds_a_key_ends_by_proof_too() -> None:
    above = ParentNode("above", "s", 0, 0, 1, exclusive=True)
    play = Play(graph("a", a={"timeouts": LIMITS, "retry_policy": STEADY}), parent=above)
    assert "withdraw a" in effects(play.later(6))
    assert "stop a" in effects(play.starts("a"))
    assert effects(play.cancel()) == ["stop a"]
    assert explained(play).endswith(
        "It holds the key of its task until its attempt on 'w' is known to have ended."
    )
    play.later(1_000)
    assert play.status("a") == "cancelling"
    play.stops("a")
    assert play.status("a") == "cancelled"


async def test_withdrawals_name_the_workers_with_earlier_claims_and_are_reported_together() -> None:
    play, store = Play(graph("a b c", a=KEYED, b=KEYED, c=KEYED)), InMemoryStore()
    claim = claim_record("t", "b", play.token("b"), Claim("w", 5.0, "run"))
    await store.artifacts.put([claim])
    reported: list[list[str]] = []

    async def report(events: Mapping[str, Sequence[Event]]) -> None:
        assert [*events] == ["t"]
        reported.append([type(event).__name__ for event in events["t"]])

    async with anyio.create_task_group() as group:
        withdrawals = Withdrawals(
            group=group, store=store, clock=ManualClock(), report=report, leaving=bool
        )
        for index, name in enumerate("abca"):
            withdrawals.start(play.task, WithdrawCommand(index % 3, 1, play.token(name)))
    assert reported == [["CommandWithdrawn", "NodeStarted", "CommandWithdrawn"]]


async def test_the_next_node_starts_when_a_run_beyond_its_limit_has_really_ended() -> None:
    running: list[str] = []
    most = 0

    @handler("work")
    async def work(item: Any, ctx: RunContext) -> None:
        nonlocal most
        running.append(ctx.node_id)
        most = max(most, len(running))
        try:
            await ctx.clock.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                await ctx.clock.sleep(4)
            running.remove(ctx.node_id)

    slow = keyed("a")
    slow["nodes"][0] |= {"timeouts": {"start_to_close_sec": 5}, "retry_policy": {"max": 0}}
    async with Cluster(workers=2, handlers=[work]) as cluster:
        first = await cluster.client.create_task(graph=slow)
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=keyed("b"))
        failed, finished = await finish(cluster, first, second)
    assert failed.nodes["a"].reason_code == "start_to_close_timeout"
    assert (finished.status, most) == (TaskStatus.FINISHED, 1)


async def test_a_cancelled_node_without_a_worker_gives_its_place_back() -> None:
    async with Cluster(workers=0) as cluster:
        first = await cluster.client.create_task(graph=keyed("a"))
        await cluster.clock.sleep(1)
        second = await cluster.client.create_task(graph=keyed("b"))
        await cluster.clock.sleep(1)
        await cluster.client.cancel(first)
        (view,) = await finish(cluster, first)
        await cluster.clock.sleep(1)
        other = await cluster.client.get_task(second)
    assert (view.status, other.nodes["b"].waiting) == (TaskStatus.CANCELLED, None)
