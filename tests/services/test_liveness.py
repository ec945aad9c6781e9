"""Processes that crash and messages that wait, on real servers: each node ends as it should.

``FLOWKIT_TEST_STREAM_BATCHES=100000`` makes the long stream longer than its 10,000 batches.
"""

import os
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flowkit.worker import RunContext, handler
from tests.builders import chain, graph, node
from tests.services.clocks import DAY_SEC
from tests.services.processes import Processes, until
from tests.services.support import Installation, ends_of, events_of

pytestmark = pytest.mark.services

WITHIN_SEC = 90
LONG_STREAM = int(os.environ.get("FLOWKIT_TEST_STREAM_BATCHES", 10_000))
QUICK_COORDINATOR = {
    "scheduler_tick_sec": 1,
    "heartbeat_soft_sec": 1,
    "heartbeat_hard_sec": 2,
    "lease_ttl_sec": 2,
}
QUICK_WORKER = {"hb_interval_sec": 0.5}


async def test_a_dead_worker_s_node_runs_elsewhere_after_two_seconds(
    installation: Installation, processes: Processes
) -> None:
    async with installation.coordinator(worker_types=["gated"], **QUICK_COORDINATOR) as coordinator:
        victim = processes.worker(**QUICK_WORKER)
        policy = {"backoff_sec": 0.1}
        task_id = await coordinator.create_task(
            graph=graph(node("n", "gated", retry_policy=policy))
        )
        await until(lambda: bool(processes.recorded("began")))
        await processes.worker(**QUICK_WORKER).until("worker_started")
        # It runs the node and owns no partition that the other would have to wait for.
        await anyio.sleep(1)
        victim.kill()
        died = anyio.current_time()
        await until(lambda: len(processes.recorded("began")) == 2)
        took = anyio.current_time() - died
        processes.open_gate()
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
    assert (view.status, view.nodes["n"].attempt) == ("finished", 2)
    # Time without heartbeats, the pause before the retry, and a margin for a busy machine.
    assert took < 20


async def test_reports_that_came_while_every_coordinator_was_down_are_all_applied(
    installation: Installation,
) -> None:
    may_end = anyio.Event()
    begun: list[str] = []

    @handler("gated")
    async def gated(item: Any, ctx: RunContext) -> str:
        begun.append(ctx.node_id)
        await may_end.wait()
        return ctx.node_id

    names = [f"n{number}" for number in range(10)]
    flow = graph(*(node(name, "gated") for name in names), node("last", "gated", *names))
    async with (
        installation.client() as client,
        installation.worker([gated], max_concurrency=40, **QUICK_WORKER),
    ):
        async with (
            installation.coordinator(worker_types=["gated"], **QUICK_COORDINATOR),
            installation.coordinator(**QUICK_COORDINATOR),
        ):
            task_ids = [await client.create_task(graph=flow) for _ in range(3)]
            with anyio.fail_after(WITHIN_SEC):
                while len(begun) < 30:
                    await anyio.sleep(0.05)
        may_end.set()
        await client.cancel(task_ids[0], "enough")
        await anyio.sleep(3)
        async with installation.coordinator(**QUICK_COORDINATOR):
            views = [await client.wait(task_id, timeout=WITHIN_SEC) for task_id in task_ids]
            ends = [ends_of(await events_of(client, task_id)) for task_id in task_ids[1:]]
    assert [str(view.status) for view in views] == ["cancelled", "finished", "finished"]
    assert all(
        one.attempt == 1 and one.result == name
        for view in views[1:]
        for name, one in view.nodes.items()
    )
    assert all(set(map(tuple, found.values())) == {("finished",)} for found in ends)
    assert len(begun) == 32


async def test_workers_whose_clocks_are_days_off_work_as_others_do(
    installation: Installation, processes: Processes
) -> None:
    processes.worker(clock_ahead_sec=40 * DAY_SEC, roles="gated", **QUICK_WORKER)
    processes.worker(clock_ahead_sec=-40 * DAY_SEC, roles="work", **QUICK_WORKER)
    async with installation.coordinator(
        worker_types=["work", "gated"], **QUICK_COORDINATOR
    ) as coordinator:
        task_id = await coordinator.create_task(graph=chain("work", "gated", "work"))
        await until(lambda: bool(processes.recorded("began")))
        # The node runs for longer than a worker may be without a heartbeat.
        await anyio.sleep(2 * QUICK_COORDINATOR["heartbeat_hard_sec"])
        processes.open_gate()
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
    assert view.status == "finished"
    assert [node.attempt for node in view.nodes.values()] == [1, 1, 1]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("batches", "fields"),
    [
        (250, {}),
        (LONG_STREAM, {}),
        (250, {"batching": {"size": 3, "max_wait_sec": 0.01}, "parallel": 4, "max_ahead": 20}),
    ],
    ids=["short", "long", "several windows at once"],
)
async def test_a_stream_is_read_to_its_end_after_a_crash_in_the_middle(
    installation: Installation,
    processes: Processes,
    batches: int,
    fields: dict[str, Any],
) -> None:
    """The reader is a process that crashes after half of the batches.

    Another one continues after the last stored batch, with the same windows.
    """

    @handler("numbers")
    async def numbers(item: Any) -> AsyncIterator[dict[str, int]]:
        for number in range(batches):
            yield {"n": number}
            if number % (batches // 25) == 0:
                await anyio.sleep(0.01)

    if batches == LONG_STREAM:
        processes.slow_from(batches // 2)
    io = {
        "start_when": "first_batch",
        "input_inline": {"input_adapter": "pull.from_artifacts", "input_args": {}},
        **fields,
    }
    async with installation.coordinator(
        worker_types=["numbers", "reading"], **QUICK_COORDINATOR
    ) as coordinator:
        async with installation.worker([numbers], **QUICK_WORKER):
            victim = processes.worker(**QUICK_WORKER)
            task_id = await coordinator.create_task(
                graph=graph(node("source", "numbers"), node("reader", "reading", "source", io=io))
            )
            await until(
                lambda: processes.lines_recorded() >= batches // 2,
                within=WITHIN_SEC + batches / 200,
            )
            victim.kill()
            processes.open_gate()
            processes.worker(**QUICK_WORKER)
            view = await coordinator.wait(task_id, timeout=WITHIN_SEC + batches / 200)
        stored = [
            artifact
            async for artifact in coordinator.artifacts(task_id, "reader")
            if artifact.partial
        ]
    read = Counter(uid for _, uid, _, _ in processes.recorded("batch"))
    assert (view.status, view.nodes["reader"].attempt) == ("finished", 2)
    windows = [artifact.meta["numbers"] for artifact in stored]
    assert sorted(number for window in windows for number in window) == list(range(batches))
    assert sorted(map(int, read)) == list(range(batches))
    # The batches that it had not stored may have been read twice, as a whole.
    assert read.total() - batches < max(100, batches // 100)
    assert all(len({read[str(number)] for number in window}) == 1 for window in windows)


@pytest.mark.parametrize("most", [0, 2])
async def test_max_bounds_the_attempts_exactly(installation: Installation, most: int) -> None:
    attempts: list[int] = []

    @handler("flaky")
    async def flaky(item: Any, ctx: RunContext) -> None:
        attempts.append(ctx.attempt)
        raise RuntimeError("no")

    async with (
        installation.coordinator(worker_types=["flaky"]) as coordinator,
        installation.worker([flaky]),
    ):
        policy = {"max": most, "backoff_sec": 0.2}
        task_id = await coordinator.create_task(
            graph=graph(node("n", "flaky", retry_policy=policy))
        )
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
    assert (view.status, view.nodes["n"].attempt, attempts) == (
        "failed",
        most + 1,
        list(range(1, most + 2)),
    )


@pytest.mark.parametrize("obeys", [True, False])
async def test_a_running_node_that_is_cancelled_ends_its_task_within_the_grace(
    installation: Installation, obeys: bool
) -> None:
    begun, enough = anyio.Event(), anyio.Event()

    @handler("endless")
    async def endless(item: Any, ctx: RunContext) -> None:
        begun.set()
        with anyio.CancelScope(shield=not obeys):
            await enough.wait()

    async with (
        installation.coordinator(worker_types=["endless"], cancel_grace_sec=2) as coordinator,
        installation.worker([endless], cancel_grace_sec=0.5),
    ):
        task_id = await coordinator.create_task(graph=chain("endless"))
        with anyio.fail_after(WITHIN_SEC):
            await begun.wait()
            while (await coordinator.get_task(task_id)).nodes["n0"].status != "running":
                await anyio.sleep(0.02)
        began = anyio.current_time()
        await coordinator.cancel(task_id, "enough")
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        took = anyio.current_time() - began
        enough.set()
    assert (view.status, view.nodes["n0"].status) == ("cancelled", "cancelled")
    # The grace period, and a margin for a busy machine. The default would be ten seconds.
    assert took < 9
