"""Cancellation of runs: by signal, after their grace period, and before they began."""

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from flowkit._dead_letters.unusable_messages import PATIENCE_SEC
from flowkit.errors import RunCancelled, StoreUnavailable
from flowkit.graph import RetryPolicy
from flowkit.messages import Source
from flowkit.protocols import Message, RecordChange
from flowkit.worker import Batch, BatchResult, Handler, RunContext
from flowkit_testing import InMemoryBus, ManualClock
from tests.builders import until
from tests.hooked_store import HookedStore, parks
from tests.worker.bench import Bench, open_bench


async def test_a_run_that_is_cancelled_knows_it_and_why(bench: Bench) -> None:
    seen: list[Any] = []

    async def work(item: Any, ctx: RunContext) -> None:
        seen.append((ctx.cancelled(), ctx.cancel_reason))
        while not ctx.cancelled():
            await anyio.lowlevel.checkpoint()
        seen.append((ctx.cancelled(), ctx.cancel_reason))
        ctx.raise_if_cancelled()

    async with bench.worker({"work": work}):
        command = await bench.send()
        await bench.started(command)
        await bench.cancel(command, reason="not wanted")
        assert (await bench.end(command)).kind == "node_stopped"
    assert seen == [(False, None), (True, "not wanted")]


async def test_cancellable_gives_up_at_once(bench: Bench) -> None:
    cut: list[str] = []

    async def long() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            cut.append("inside")

    async def work(item: Any, ctx: RunContext) -> None:
        try:
            await ctx.cancellable(long())
        except RunCancelled as error:
            cut.append(str(error))
        with pytest.raises(RunCancelled):
            await ctx.cancellable(long())
        raise RunCancelled("enough")

    async with bench.worker({"work": work}):
        command = await bench.send()
        await bench.started(command)
        began = bench.clock.monotonic()
        await bench.cancel(command, reason="stop it")
        assert (await bench.end(command)).kind == "node_stopped"
        assert bench.clock.monotonic() - began < 5
    assert cut == ["inside", "stop it"]


async def test_cancellable_returns_what_it_awaited(bench: Bench) -> None:
    async def answer() -> int:
        return 42

    async def work(item: Any, ctx: RunContext) -> int:
        return await ctx.cancellable(answer())

    async with bench.worker({"work": work}):
        assert (await bench.run()).result == 42


async def test_a_run_that_ends_well_within_the_grace_has_succeeded(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> str:
        while not ctx.cancelled():
            await anyio.lowlevel.checkpoint()
        await ctx.clock.sleep(5)
        return "saved"

    async with bench.worker({"work": work}, cancel_grace_sec=10):
        command = await bench.send()
        await bench.started(command)
        await bench.cancel(command)
        end = await bench.end(command)
        await bench.clock.sleep(20)
    assert (end.kind, end.result) == ("node_succeeded", "saved")


async def test_a_run_that_ignores_cancellation_is_terminated_after_the_grace_period(
    bench: Bench,
) -> None:
    async def work() -> None:
        await anyio.sleep_forever()

    async with bench.worker({"work": work}, cancel_grace_sec=30, max_concurrency=1):
        command = await bench.send()
        await bench.started(command)
        began = bench.clock.monotonic()
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
        assert 30 <= bench.clock.monotonic() - began < 31
        next_one = await bench.send()
        await bench.started(next_one)


async def test_any_error_after_a_cancel_means_stopped(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        while not ctx.cancelled():
            await anyio.lowlevel.checkpoint()
        raise ValueError("half done")

    async with bench.worker({"work": work}):
        command = await bench.send(retry_policy=RetryPolicy(max=0))
        await bench.started(command)
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"


async def test_a_cancel_with_another_token_is_not_obeyed(bench: Bench) -> None:
    go_on = anyio.Event()

    async def work(item: Any, ctx: RunContext) -> bool:
        await go_on.wait()
        return ctx.cancelled()

    async with bench.worker({"work": work}):
        command = await bench.send()
        await bench.started(command)
        await bench.cancel(command, token="guessed")
        await bench.clock.sleep(1)
        go_on.set()
        assert (await bench.end(command)).result is False


async def test_a_command_cancelled_before_it_came_is_dropped(bench: Bench) -> None:
    calls: list[Any] = []

    async def work(item: Any) -> None:
        calls.append(item)

    async with bench.worker({"work": work}):
        await bench.cancel((await bench.send("other")), token="of-the-next")
        await bench.clock.sleep(1)
        dropped = await bench.send("cancelled", task_id="t1", token="of-the-next")
        await bench.run("last")
        await bench.clock.sleep(1)
    assert (calls, bench.of(dropped)) == (["other", "last"], [])
    async with bench.worker({"work": work}):
        await bench.run("after")
    assert calls == ["other", "last", "after"]


async def test_a_command_cancelled_while_it_waits_for_a_slot_is_dropped(bench: Bench) -> None:
    gate = anyio.Event()
    calls: list[Any] = []

    async def work(item: Any) -> None:
        calls.append(item)
        await gate.wait()

    first, second = await bench.send("first", task_id="t"), await bench.send("second", task_id="t")
    async with bench.worker({"work": work}, max_concurrency=1):
        await bench.until(lambda: bench.kinds(first))
        await bench.cancel(second)
        await bench.clock.sleep(0.05)
        gate.set()
        await bench.end(first)
        await bench.run("third")
    assert (calls, bench.of(second)) == (["first", "third"], [])


async def test_cleanups_run_in_reverse_however_the_run_ends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[Any] = []

    async def work(how: str, ctx: RunContext) -> None:
        async def later() -> None:
            calls.append("async")

        def broken() -> None:
            raise OSError("cleanup")

        ctx.on_cleanup(lambda: calls.append(how))
        ctx.on_cleanup(broken)
        ctx.on_cleanup(later)
        if how == "error":
            raise ValueError
        if how == "cancel":
            await anyio.sleep_forever()

    async with bench.worker({"work": work}, cancel_grace_sec=1):
        for how in ("success", "error", "cancel"):
            command = await bench.send(how)
            await bench.started(command)
            if how == "cancel":
                await bench.cancel(command)
            await bench.end(command)
    assert calls == ["async", "success", "async", "error", "async", "cancel"]
    assert "A cleanup of node n failed" in caplog.text


async def test_a_cleanup_cannot_hold_up_the_worker(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        ctx.on_cleanup(anyio.sleep_forever)

    async with bench.worker({"work": work}, cancel_grace_sec=5):
        assert (await bench.run()).kind == "node_succeeded"
    assert "were cut off" in caplog.text


async def test_a_cancel_that_is_repeated_does_not_cut_cleanups_short(bench: Bench) -> None:
    calls: list[str] = []

    async def work(item: Any, ctx: RunContext) -> None:
        async def clean_up() -> None:
            await ctx.clock.sleep(3)
            calls.append("cleaned up")

        ctx.on_cleanup(clean_up)
        await anyio.sleep_forever()

    async with bench.worker({"work": work}, cancel_grace_sec=5):
        command = await bench.send()
        await bench.started(command)
        for _ in range(7):
            await bench.cancel(command)
            await bench.clock.sleep(1)
        assert (await bench.end(command)).kind == "node_stopped"
        await bench.clock.sleep(20)
    assert calls == ["cleaned up"]
    assert bench.kinds(command) == ["node_started", "node_stopped"]


async def test_a_worker_that_stops_does_not_cut_the_cleanups_of_a_cancelled_run_short(
    bench: Bench,
) -> None:
    calls: list[str] = []

    async def work(item: Any, ctx: RunContext) -> None:
        async def clean_up() -> None:
            calls.append("began")
            await ctx.clock.sleep(3)
            calls.append("cleaned up")

        ctx.on_cleanup(clean_up)
        await anyio.sleep_forever()

    worker = bench.worker({"work": work}, cancel_grace_sec=5)
    await worker.start()
    command = await bench.send()
    await bench.started(command)
    await bench.cancel(command)
    await bench.clock.sleep(6)
    assert calls == ["began"]
    await worker.stop(0)
    assert (await bench.end(command)).kind == "node_stopped"
    assert calls == ["began", "cleaned up"]


async def test_batches_stop_between_two_when_the_run_is_cancelled(bench: Bench) -> None:
    class Endless(Handler):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            number = 0
            while True:
                yield Batch(str(number))
                number += 1

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            await anyio.lowlevel.checkpoint()
            return BatchResult(True)

    async with bench.worker({"work": Endless()}):
        command = await bench.send()
        await bench.started(command)
        began = bench.clock.monotonic()
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    assert bench.clock.monotonic() - began < 5


async def test_a_generator_stops_between_two_yields(bench: Bench) -> None:
    closed: list[bool] = []

    async def work() -> AsyncIterator[dict[str, Any]]:
        try:
            while True:
                await anyio.lowlevel.checkpoint()
                yield {}
        finally:
            closed.append(True)

    async with bench.worker({"work": work}):
        command = await bench.send()
        await bench.started(command)
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    assert closed == [True]


async def test_a_reader_that_waits_for_its_parents_stops_at_once(bench: Bench) -> None:
    async def work(item: Any) -> None: ...

    async with bench.worker({"work": work}, cancel_grace_sec=1000):
        command = await bench.send(
            {"input_adapter": "pull.from_artifacts", "input_args": {"poll_ms": 10_000_000}},
            sources=(Source(node_id="up"),),
        )
        await bench.started(command)
        began = bench.clock.monotonic()
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    assert bench.clock.monotonic() - began < 5


async def test_a_synchronous_function_is_abandoned_with_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()
    begun = anyio.Event()

    def work(item: Any, ctx: RunContext) -> None:
        anyio.from_thread.run_sync(begun.set)
        gate.wait(20)

    try:
        async with bench.worker({"work": work}, cancel_grace_sec=0.05):
            command = await bench.send()
            await begun.wait()
            await bench.cancel(command)
            assert (await bench.end(command)).kind == "node_stopped"
        assert "goes on in its thread" in caplog.text
    finally:
        gate.set()


async def stubborn(item: Any, ctx: RunContext) -> str:
    """Ignore cancellations until the gate opens."""
    while not item_gates[item].is_set():
        with contextlib.suppress(BaseException):
            await item_gates[item].wait()
    return "too late"


item_gates: dict[str, anyio.Event] = {}


async def test_a_run_that_swallows_its_cancellation_is_left_to_itself_and_gives_up_its_slot(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    item_gates["a"] = anyio.Event()
    async with bench.worker(
        {"stubborn": stubborn, "work": quick}, cancel_grace_sec=5, max_concurrency=1
    ):
        command = await bench.send("a", role="stubborn")
        await bench.started(command)
        began = bench.clock.monotonic()
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
        assert bench.clock.monotonic() - began < 15
        assert "abandons this run" in caplog.text
        assert (await bench.run("x", role="work")).result == "x"
        item_gates["a"].set()
        await bench.clock.sleep(10)
    assert bench.kinds(command) == ["node_started", "node_stopped"]


async def test_slots_beyond_a_bound_of_runs_that_do_not_end_are_lost_and_logged(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async with bench.worker(
        {"stubborn": stubborn, "work": quick}, cancel_grace_sec=1, max_concurrency=1
    ):
        for name in ("a", "b"):
            item_gates[name] = anyio.Event()
            command = await bench.send(name, role="stubborn")
            await bench.started(command)
            await bench.cancel(command)
            await bench.end(command)
        assert "this worker runs at most 0 others at a time" in caplog.text
        waiting = await bench.send("x", role="work")
        await bench.clock.sleep(100)
        assert bench.of(waiting) == []
        item_gates["a"].set()
        assert (await bench.end(waiting)).result == "x"
        item_gates["b"].set()


async def quick(item: Any) -> Any:
    return item


async def test_a_thread_that_does_not_end_gives_up_its_slot_and_its_result_is_ignored(
    bench: Bench,
) -> None:
    gate, begun, returned = threading.Event(), anyio.Event(), threading.Event()

    def work(item: Any) -> str:
        anyio.from_thread.run_sync(begun.set)
        gate.wait(20)
        returned.set()
        return "late"

    try:
        async with bench.worker(
            {"slow": work, "work": quick}, cancel_grace_sec=0.05, max_concurrency=1
        ):
            command = await bench.send(role="slow")
            await begun.wait()
            await bench.cancel(command)
            assert (await bench.end(command)).kind == "node_stopped"
            assert (await bench.run("x")).result == "x"
            gate.set()
            await anyio.to_thread.run_sync(returned.wait)
            await bench.run("y")
        assert bench.kinds(command) == ["node_started", "node_stopped"]
    finally:
        gate.set()


async def test_a_shielded_clean_up_may_run_after_the_cut(bench: Bench) -> None:
    cleaned: list[str] = []

    async def work(item: Any, ctx: RunContext) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            await ctx.clock.sleep(1)
            cleaned.append("all")

    async with bench.worker({"work": work}, cancel_grace_sec=2):
        command = await bench.send()
        await bench.started(command)
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    assert cleaned == ["all"]


async def test_something_cancelled_elsewhere_is_a_failure_and_nothing_more(bench: Bench) -> None:
    import asyncio

    async def work(item: Any) -> Any:
        if item == "well":
            return item
        other = asyncio.ensure_future(asyncio.sleep(100))
        other.cancel()
        await other
        return None

    async with bench.worker({"work": work}, max_concurrency=1):
        end = await bench.run("badly")
        assert (end.kind, end.reason_code, end.permanent) == (
            "node_failed",
            "unexpected_error",
            False,
        )
        assert (await bench.run("well")).result == "well"


# ---------------------------------------------------------------- subprocesses


async def test_a_subprocess_gives_its_output(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> Any:
        script = (
            "import sys, os; print(sys.stdin.read().upper(), os.environ['X'], os.getcwd());"
            " print('oh', file=sys.stderr)"
        )
        done = await ctx.run_subprocess(
            sys.executable, "-c", script, input=b"text", env={"X": "5"}, cwd="/"
        )
        return [done.returncode, done.stdout.decode(), done.stderr.decode()]

    async with bench.worker({"work": work}):
        assert (await bench.run()).result == [0, "TEXT 5 /\n", "oh\n"]


async def test_a_subprocess_that_fails_raises_unless_check_is_false(bench: Bench) -> None:
    async def work(item: Any, ctx: RunContext) -> Any:
        assert (await ctx.run_subprocess("sh", "-c", "exit 3", check=False)).returncode == 3
        with pytest.raises(CalledProcessError, match="status 3"):
            await ctx.run_subprocess("sh", "-c", "exit 3")
        with pytest.raises(FileNotFoundError):
            await ctx.run_subprocess("/no/such/program")
        return (await ctx.run_subprocess("true", input=b"x" * 1_000_000)).returncode

    async with bench.worker({"work": work}):
        assert (await bench.run()).result == 0


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until_it_is_written(path: Path) -> int:
    await until(lambda: path.exists() and bool(path.read_text().strip()))
    return int(path.read_text())  # noqa: ASYNC240


async def test_a_cancelled_runs_subprocess_gets_sigterm(bench: Bench, tmp_path: Path) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        await ctx.run_subprocess(
            "sh",
            "-c",
            f"trap 'echo term > {tmp_path}/got; exit 0' TERM; echo $$ > {tmp_path}/pid; sleep 60 &"
            " wait",
        )

    async with bench.worker({"work": work}, cancel_grace_sec=1000):
        command = await bench.send()
        pid = await until_it_is_written(tmp_path / "pid")
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    assert (tmp_path / "got").read_text() == "term\n"
    assert not is_alive(pid)


async def test_a_subprocess_that_ignores_sigterm_is_killed_with_its_children_at_the_grace(
    bench: Bench, tmp_path: Path
) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        await ctx.run_subprocess(
            "sh", "-c", f"trap '' TERM; sleep 60 & echo $! > {tmp_path}/pid; wait; wait"
        )

    async with bench.worker({"work": work}, cancel_grace_sec=0.2):
        command = await bench.send()
        child = await until_it_is_written(tmp_path / "pid")
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    await until(lambda: not is_alive(child))


async def test_what_a_subprocess_leaves_behind_ends_with_a_cancelled_run(
    bench: Bench, tmp_path: Path
) -> None:
    script = (
        f"(trap '' TERM; exec >/dev/null 2>&1; sleep 60 & echo $! > {tmp_path}/pid; wait; wait) &"
        " sleep 60"
    )

    async def work(item: Any, ctx: RunContext) -> None:
        await ctx.run_subprocess("sh", "-c", script)

    async with bench.worker({"work": work}, cancel_grace_sec=1000):
        command = await bench.send()
        left = await until_it_is_written(tmp_path / "pid")
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    try:
        await until(lambda: not is_alive(left))
    finally:
        if is_alive(left):
            os.kill(left, signal.SIGKILL)


async def test_a_warning_names_the_run_that_is_cut_off(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        await anyio.sleep_forever()

    async with bench.worker({"work": work}, cancel_grace_sec=1):
        command = await bench.send()
        await bench.started(command)
        with caplog.at_level(logging.WARNING):
            await bench.cancel(command)
            await bench.end(command)
    (record,) = [
        record for record in caplog.records if getattr(record, "action", "") == "run_cut_off"
    ]
    assert record.task_id == command.task_id  # type: ignore[attr-defined]


async def test_a_child_that_holds_the_output_does_not_outlive_its_parent(
    bench: Bench, tmp_path: Path
) -> None:
    async def work(item: Any, ctx: RunContext) -> None:
        await ctx.run_subprocess(
            "sh",
            "-c",
            f"(trap '' TERM; echo x > {tmp_path}/up; sleep 60; sleep 60) & echo $! >"
            f" {tmp_path}/pid; sleep 60",
        )

    async with bench.worker({"work": work}, cancel_grace_sec=1000):
        command = await bench.send()
        await until((tmp_path / "up").exists)
        child = await until_it_is_written(tmp_path / "pid")
        await bench.cancel(command)
        assert (await bench.end(command)).kind == "node_stopped"
    await until(lambda: not is_alive(child))


# ---------------------------------------------------------------- a store or a bus that is away


class NoLetters(HookedStore):
    """A store that accepts no dead letters."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()

    async def before_change(self, change: RecordChange) -> None:
        if parks(change):
            self.asked.set()
            raise StoreUnavailable("no server")


async def give_up_when_cancelled(item: Any, ctx: RunContext) -> None:
    await ctx.cancellable(anyio.sleep_forever())


async def test_a_cancel_does_not_wait_behind_a_message_that_the_store_does_not_take(
    flowkit_bus: InMemoryBus, flowkit_clock: ManualClock
) -> None:
    async with NoLetters() as store, open_bench(flowkit_bus, store, flowkit_clock) as bench:
        worker = bench.worker({"work": give_up_when_cancelled})
        async with worker:
            command = await bench.send()
            await bench.started(command)
            before = bench.clock.monotonic()
            await bench.bus.publish([Message("flowkit.control", b"no message", "t1")])
            await store.asked.wait()
            await bench.cancel(command)
            assert (await bench.end(command)).kind == "node_stopped"
            assert bench.clock.monotonic() - before < 1


async def test_a_command_does_not_wait_behind_one_that_the_store_does_not_take(
    flowkit_bus: InMemoryBus, flowkit_clock: ManualClock
) -> None:
    async with NoLetters() as store, open_bench(flowkit_bus, store, flowkit_clock) as bench:
        refused = [Message("flowkit.cmd.work", b"no message", "t1") for _ in range(3)]
        await bench.bus.publish(refused)
        command = await bench.send("x")
        before = bench.clock.monotonic()
        async with bench.worker({"work": quick}):
            assert (await bench.end(command)).result == "x"
            assert bench.clock.monotonic() - before < 1
            await bench.until(lambda: len(bench.parked) == len(refused))
            # They wait for the store together.
            assert bench.clock.monotonic() - before < 2 * PATIENCE_SEC
