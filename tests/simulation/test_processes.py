"""Crashes, pauses, and the isolation of a simulation."""

import asyncio
import gc
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import anyio
import pytest

from flowkit.worker import RunContext, handler
from flowkit_testing.simulation import (
    ProcessDied,
    SimCluster,
    SimulationError,
    SimulationFailed,
    crash_everywhere,
    run_seed,
    setup_of,
    simulate,
)
from tests.builders import graph
from tests.simulation.scenarios import HANDLERS, STANDARD, node


def run_here(
    scenario: Callable[[SimCluster], Awaitable[object]], handlers: Any = None, **options: Any
) -> None:
    simulate(scenario, seed=1, **{"faults": "none", "handlers": handlers, "workers": 1, **options})


# ---------------------------------------------------------------- processes


def test_what_a_crashed_process_awaited_is_closed_without_a_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", heard.append)

    @handler("produce")
    async def produce(item: Any, ctx: RunContext) -> Any:
        for number in range(3):
            yield {"number": number}
            await ctx.clock.sleep(5)

    @handler("consume")
    async def consume(item: Any) -> Any:
        return item

    async def scenario(cluster: SimCluster) -> None:
        io = {"start_when": "first_batch", "input_inline": {"input_adapter": "pull.from_artifacts"}}
        task_id = await cluster.client.create_task(
            graph=graph(node("a", "produce"), node("b", "consume", ["a"], io=io))
        )
        await cluster.clock.sleep(2)
        await cluster.crash(cluster.workers[0])
        cluster.assert_finished(await cluster.client.wait(task_id))

    run_here(scenario, [produce, consume])
    gc.collect()
    assert heard == []


def test_nothing_of_a_crashed_process_runs_any_more() -> None:
    seen: list[str] = []

    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> str:
        seen.append(f"begins {ctx.attempt}")
        asyncio.get_running_loop().call_later(60, seen.append, "a timer")
        ctx.on_cleanup(lambda: seen.append("cleanup"))
        try:
            await ctx.clock.sleep(5)
        except BaseException:
            seen.append("except")
            raise
        finally:
            seen.append("finally")
        return "done"

    async def scenario(cluster: SimCluster) -> None:
        worker = cluster.workers[0]
        task_id = await cluster.client.create_task(graph=graph(node("a", "slow")))
        await cluster.clock.sleep(2)
        assert seen == ["begins 1"]
        await cluster.crash(worker)
        await cluster.clock.sleep(3)
        assert seen == ["begins 1"]
        cluster.assert_finished(await cluster.client.wait(task_id))
        await cluster.clock.sleep(100)
        assert seen.count("a timer") == 1
        assert seen[:6] == ["begins 1", "begins 2", "finally", "cleanup", "a timer"]

    run_here(scenario, [slow])


def test_a_paused_process_goes_on_where_it_was() -> None:
    ticks: list[float] = []

    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> None:
        for _ in range(6):
            ticks.append(time.monotonic())
            await anyio.sleep(1)

    async def scenario(cluster: SimCluster) -> None:
        process = cluster.workers[0].process
        assert process is not None
        task_id = await cluster.client.create_task(graph=graph(node("a", "slow")))
        await cluster.clock.sleep(2.5)
        process.pause()
        await cluster.clock.sleep(5)
        assert len(ticks) == 3
        process.resume()
        cluster.assert_finished(await cluster.client.wait(task_id))
        gaps = [later - earlier for earlier, later in pairwise(ticks)]
        assert gaps == pytest.approx([1, 1, 5.45, 1, 1], abs=0.1)

    run_here(scenario, [slow])


@pytest.mark.timeout(240)
def test_a_crash_at_each_step_of_each_kind_of_process_loses_nothing() -> None:
    for process in ("worker-1", "coordinator-1"):
        report = crash_everywhere(
            STANDARD["routing"].scenario, process=process, handlers=HANDLERS, every=6
        )
        assert report.faults["crash"] == len(report.seeds) - 1 > 10


def test_a_process_that_does_not_exist_cannot_be_crashed() -> None:
    with pytest.raises(ValueError, match="there is no process 'worker-9'"):
        crash_everywhere(STANDARD["routing"].scenario, process="worker-9", handlers=HANDLERS)


def test_work_within_a_process_dies_with_it() -> None:
    async def scenario(cluster: SimCluster) -> None:
        post = cluster.coordinators[0]

        async def ask(coordinator: Any) -> str:
            await coordinator.clock.sleep(10)
            return "alive"

        assert await cluster.within(post, ask) == "alive"
        async with anyio.create_task_group() as group:

            async def kill() -> None:
                await cluster.clock.sleep(1)
                await cluster.crash(post)

            group.start_soon(kill)
            with pytest.raises(ProcessDied):
                await cluster.within(post, ask)

    run_here(scenario)


# ---------------------------------------------------------------- walls


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: threading.Thread(target=print).start(), "a thread was used within a simulation"),
        (lambda: socket.socket(), "a socket was used within a simulation"),
        (
            lambda: subprocess.run(["true"], check=False),
            "a subprocess was used within a simulation",
        ),
        (lambda: time.sleep(1), "time.sleep was called in a coroutine within a simulation"),
        (
            lambda: asyncio.get_running_loop().run_in_executor(None, print),
            "the event loop's run_in_executor was called",
        ),
    ],
    ids=["thread", "socket", "subprocess", "sleep", "executor"],
)
def test_what_a_simulation_cannot_contain_is_refused(call: Callable[[], Any], message: str) -> None:
    async def scenario(cluster: SimCluster) -> None:
        call()

    with pytest.raises(SimulationFailed, match=message) as failed:
        run_here(scenario)
    assert isinstance(failed.value.cause, SimulationError)


def test_afterwards_everything_is_as_it_was() -> None:
    names = [
        (os, "urandom"),
        (random, "_urandom"),
        (time, "time"),
        (time, "sleep"),
        (time, "monotonic"),
        (threading.Thread, "start"),
    ]
    before = [getattr(owner, name) for owner, name in names]
    state = random.getstate()
    run_here(STANDARD["chain"].scenario, HANDLERS)
    assert [getattr(owner, name) for owner, name in names] == before
    assert random.getstate() == state
    socket.socket().close()


def test_chance_and_time_come_from_the_seed() -> None:
    def drawn(seed: int) -> list[Any]:
        found: list[Any] = []

        async def scenario(cluster: SimCluster) -> None:
            began = time.time()
            await anyio.sleep(600)
            found.extend(
                [
                    uuid.uuid4(),
                    secrets.token_hex(),
                    random.random(),
                    os.urandom(4),
                    cluster.random.random(),
                    time.time() - began,
                ]
            )

        simulate(scenario, seed=seed, faults="none")
        return found

    assert drawn(1) == drawn(1)
    assert drawn(1)[:5] != drawn(2)[:5]
    assert drawn(1)[5] == pytest.approx(600)


def test_a_synchronous_function_runs_in_the_loop_and_what_it_sleeps_passes() -> None:
    here = threading.get_ident()

    @handler("plain")
    def plain(item: Any) -> bool:
        time.sleep(30)
        return threading.get_ident() == here

    async def scenario(cluster: SimCluster) -> None:
        began = cluster.clock.now()
        view = await cluster.run(graph(node("a", "plain")))
        assert view.nodes["a"].result is True
        assert cluster.clock.now() - began > 30

    run_here(scenario, [plain])


async def test_a_simulation_is_not_run_within_a_coroutine() -> None:
    with pytest.raises(SimulationError, match="run it from a plain function"):
        run_seed(setup_of(STANDARD["chain"].scenario), 1)


def test_a_worker_that_cannot_start_fails_the_seed() -> None:
    with pytest.raises(SimulationFailed, match="ConfigError: handlers"):
        run_here(STANDARD["chain"].scenario, {"work": 3})


# ---------------------------------------------------------------- assertions


def test_assertions_list_what_was_seen() -> None:
    async def scenario(cluster: SimCluster) -> None:
        view = await cluster.run(graph(node("a"), node("b", "wrong", ["a"])))
        cluster.assert_executed("a", times=1)
        with pytest.raises(
            AssertionError,
            match=(
                r"node 'a' should be executed 2 times, and was executed 1 times.*"
                r"'b' of .* on worker-1"
            ),
        ):
            _one_line(lambda: cluster.assert_executed("a", times=2))
        with pytest.raises(
            AssertionError, match=r"b: failed bad_input ValueError: the input is wrong"
        ):
            cluster.assert_finished(view)
        with pytest.raises(
            AssertionError,
            match=(
                r"crash should happen at least 1 times, and happened 0 times."
                r" Injected faults: nothing"
            ),
        ):
            cluster.assert_injected("crash")

    run_here(scenario, HANDLERS)


def _one_line(call: Callable[[], None]) -> None:
    try:
        call()
    except AssertionError as error:
        raise AssertionError(str(error).replace("\n", " ")) from None
