"""Cancel, pause, resume and retry in every state of a task.

Cancelled work never restarts by itself.
"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from typing import Any

import anyio
import anyio.from_thread
import pytest

from flowkit import CoordinatorConfig, WorkerConfig, hookimpl
from flowkit.messages import NodeFailed, NodeStarted, RunNode, decode, encode
from flowkit.protocols import Message, Stream
from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster
from flowkit_testing._cluster import DAY
from tests.builders import work
from tests.coordinator.lost_messages import Recording, first

QUICK = CoordinatorConfig(
    heartbeat_soft_sec=2,
    heartbeat_hard_sec=4,
    lease_ttl_sec=4,
    scheduler_tick_sec=2,
    cancel_grace_sec=3,
)
LIVELY = WorkerConfig(hb_interval_sec=1, pull_poll_ms_default=200, cancel_grace_sec=2)


def one(**fields: Any) -> dict[str, Any]:
    return {"nodes": [{"node_id": "a", "type": "work", **fields}]}


async def until(cluster: Cluster, task_id: str, node_id: str, status: str) -> None:
    async with contextlib.aclosing(cluster.client.watch(task_id)) as events:
        async for event in events:
            if (event.node_id, event.status) == (node_id, status):
                return


async def stays_cancelled(cluster: Cluster, task_id: str) -> None:
    """Assert that a task is cancelled within seconds, and that no later event changes it."""
    client = cluster.client
    view = await client.wait(task_id, timeout=30)
    assert view.status == "cancelled"
    assert {node.status for node in view.nodes.values()} <= {"cancelled", "finished", "skipped"}
    await client.cancel(task_id)
    await client.pause(task_id)
    await client.resume(task_id)
    await cluster.clock.sleep(DAY / 24)
    assert await client.get_task(task_id) == view


async def test_finally_waits_for_a_handler_whose_start_is_not_known_at_the_cancel() -> None:
    began, ended = anyio.Event(), []

    @handler("work")
    async def slow(item: Any, ctx: RunContext) -> None:
        began.set()
        try:
            await ctx.cancellable(anyio.sleep_forever())
        finally:
            await cluster.clock.sleep(1)
            ended.append("work")

    @handler("tidy")
    async def tidy(item: Any) -> None:
        ended.append("tidy")

    bus = Recording()
    bus.loses = first(NodeStarted)
    async with Cluster(bus=bus, handlers=[slow, tidy], coordinator_config=QUICK) as cluster:
        graph = one() | {"finally": [{"node_id": "last", "type": "tidy"}]}
        task_id = await cluster.client.create_task(graph=graph)
        await began.wait()
        await cluster.client.cancel(task_id)
        assert (await cluster.client.wait(task_id, timeout=30)).status == "cancelled"
        assert ended == ["work", "tidy"]


async def test_the_command_of_a_node_that_was_cancelled_in_the_queue_never_runs() -> None:
    async with Cluster(coordinator_config=QUICK) as cluster:
        task_id = await cluster.client.create_task(graph=one())
        await until(cluster, task_id, "a", "queued")
        await cluster.client.cancel(task_id)
        began: list[Any] = []

        @handler("work")
        async def late(item: Any) -> None:
            began.append(item)
            await anyio.sleep_forever()

        await cluster.add_worker([late], LIVELY)
        await stays_cancelled(cluster, task_id)
        assert cluster.workers[0]._service is not None
    assert began == []


async def test_a_deferred_node_is_cancelled_and_its_next_attempt_never_comes() -> None:
    calls: list[int] = []

    @handler("work")
    async def failing(item: Any, ctx: RunContext) -> None:
        calls.append(ctx.attempt)
        raise RuntimeError("not now")

    async with Cluster(
        handlers=[failing], coordinator_config=QUICK, worker_config=LIVELY
    ) as cluster:
        task_id = await cluster.client.create_task(
            graph=one(retry_policy={"backoff_sec": 60.0, "max_backoff_sec": 60.0})
        )
        await until(cluster, task_id, "a", "deferred")
        await cluster.client.cancel(task_id, "enough")
        await stays_cancelled(cluster, task_id)
    assert calls == [1]


async def test_a_paused_task_is_cancelled() -> None:
    async with Cluster(handlers=[work], coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        graph = {
            "nodes": [
                {"node_id": "a", "type": "missing"},
                {"node_id": "b", "type": "work", "depends_on": ["a"]},
            ]
        }
        task_id = await cluster.client.create_task(graph=graph)
        await cluster.client.pause(task_id)
        await cluster.client.pause(task_id)
        await cluster.client.cancel(task_id)
        await stays_cancelled(cluster, task_id)


async def test_streaming_nodes_are_cancelled() -> None:
    read = anyio.Event()

    @handler("produce")
    async def produce(item: Any) -> AsyncIterator[dict[str, int]]:
        yield {"n": 0}
        await anyio.sleep_forever()

    @handler("consume")
    async def consume(item: Any) -> dict[str, Any]:
        read.set()
        return dict(item)

    pull = {"input_inline": {"input_adapter": "pull.from_artifacts"}, "start_when": "first_batch"}
    nodes = [
        {"node_id": "p", "type": "produce"},
        {"node_id": "c", "type": "consume", "depends_on": ["p"], "io": pull},
    ]
    async with Cluster(
        handlers=[produce, consume], coordinator_config=QUICK, worker_config=LIVELY
    ) as cluster:
        task_id = await cluster.client.create_task(graph={"nodes": nodes})
        await read.wait()
        await cluster.client.cancel(task_id)
        await stays_cancelled(cluster, task_id)


async def test_a_coordinator_function_is_cancelled() -> None:
    begun, ended = anyio.Event(), list[str]()

    class Slow:
        @hookimpl
        def flowkit_register_functions(self, register: Any) -> None:
            async def slow(ctx: Any) -> None:
                begun.set()
                try:
                    await anyio.sleep_forever()
                finally:
                    ended.append("cut off")

            register("slow", slow)

    async with Cluster(plugins=[Slow()], coordinator_config=QUICK) as cluster:
        task_id = await cluster.client.create_task(
            graph=one(type="coordinator_fn", io={"fn": "slow"})
        )
        await begun.wait()
        await cluster.client.cancel(task_id)
        await stays_cancelled(cluster, task_id)
    assert ended == ["cut off"]


@pytest.mark.parametrize("how", ["coroutine", "thread"])
async def test_a_run_that_ignores_cancellation_delays_neither_its_task_nor_its_worker(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun, enough, thread_gate = anyio.Event(), anyio.Event(), threading.Event()

    async def swallowing(item: Any) -> str:
        begun.set()
        while not enough.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await enough.wait()
        return "late"

    def blocking(item: Any) -> str:
        anyio.from_thread.run_sync(begun.set)
        thread_gate.wait(20)
        return "late"

    # Real time passes while a thread runs.
    grace = 0.05 if how == "thread" else 2.0
    coordinator = QUICK.model_copy(update={"cancel_grace_sec": grace})
    worker = LIVELY.model_copy(update={"cancel_grace_sec": grace, "max_concurrency": 1})
    deaf = swallowing if how == "coroutine" else blocking
    async with Cluster(
        handlers={"deaf": deaf, "work": work}, coordinator_config=coordinator, worker_config=worker
    ) as cluster:
        try:
            task_id = await cluster.client.create_task(graph=one(type="deaf"))
            await begun.wait()
            await cluster.client.cancel(task_id)
            view = await cluster.client.wait(task_id, timeout=30)
            assert view.status == "cancelled"
            assert (await cluster.run(one(), timeout=60)).status == "finished"
        finally:
            enough.set()
            thread_gate.set()
        await cluster.clock.sleep(10)
        assert await cluster.client.get_task(task_id) == view
    assert "abandons this run" in caplog.text or "goes on in its thread" in caplog.text


async def test_late_reports_of_cancelled_work_change_nothing() -> None:
    async with Cluster(coordinator_config=QUICK) as cluster:
        async with cluster.bus.subscribe(["flowkit.cmd.work"], group="flowkit.workers") as commands:
            task_id = await cluster.client.create_task(graph=one())
            (delivery,) = await commands.receive(max_messages=1)
            await commands.ack([delivery])
        command = decode(delivery.message.value)
        assert isinstance(command, RunNode)
        await cluster.client.cancel(task_id)
        view = await cluster.client.wait(task_id, timeout=30)
        ids: dict[str, Any] = {
            "task_id": task_id,
            "index": 0,
            "attempt": 1,
            "token": command.token,
            "worker_id": "w",
            "at": cluster.clock.now(),
        }
        reports = [
            NodeStarted(**ids),
            NodeFailed(**ids, started_at=cluster.clock.now(), reason_code="late"),
        ]
        await cluster.bus.publish(
            [Message("flowkit.events", encode(report), task_id) for report in reports]
        )
        await cluster.clock.sleep(3600)
        assert await cluster.client.get_task(task_id) == view
    assert view.status == "cancelled"


async def test_a_cancelled_task_whose_worker_is_lost_ends_and_is_not_begun_elsewhere() -> None:
    calls: list[str] = []
    begun = anyio.Event()

    @handler("work")
    async def stuck(item: Any, ctx: RunContext) -> None:
        calls.append(ctx.worker_id)
        begun.set()
        await anyio.sleep_forever()

    async with Cluster(coordinator_config=QUICK) as cluster:
        first = await cluster.add_worker([stuck], LIVELY)
        task_id = await cluster.client.create_task(graph=one())
        await begun.wait()
        life = first._service
        assert life is not None
        cluster.workers.remove(first)
        life.host.cancel()
        await asyncio.wait([life.host])
        await cluster.client.cancel(task_id)
        await cluster.add_worker([stuck], LIVELY)
        await stays_cancelled(cluster, task_id)
    assert len(calls) == 1


async def test_a_cancelled_task_can_be_retried_and_keeps_what_is_finished() -> None:
    calls: list[str] = []
    gate = anyio.Event()

    @handler("work")
    async def step(item: Any, ctx: RunContext) -> str:
        calls.append(ctx.node_id)
        if ctx.node_id == "b" and not gate.is_set():
            await ctx.cancellable(anyio.sleep_forever())
        return ctx.node_id

    graph = {
        "nodes": [
            {"node_id": "a", "type": "work"},
            {"node_id": "b", "type": "work", "depends_on": ["a"]},
        ]
    }
    async with Cluster(handlers=[step], coordinator_config=QUICK, worker_config=LIVELY) as cluster:
        task_id = await cluster.client.create_task(graph=graph)
        await until(cluster, task_id, "b", "running")
        await cluster.client.cancel(task_id)
        assert (await cluster.client.wait(task_id, timeout=30)).status == "cancelled"
        gate.set()
        await cluster.client.retry(task_id)
        assert (await cluster.client.wait(task_id, timeout=30)).result == {"b": "b"}
    assert calls == ["a", "b", "b"]


async def test_a_pause_lets_what_runs_end_and_a_retry_wait() -> None:
    calls: list[int] = []

    @handler("work")
    async def failing(item: Any, ctx: RunContext) -> str:
        calls.append(ctx.attempt)
        if ctx.attempt == 1:
            raise RuntimeError("not now")
        return "well"

    async with Cluster(
        handlers=[failing], coordinator_config=QUICK, worker_config=LIVELY
    ) as cluster:
        task_id = await cluster.client.create_task(
            graph=one(retry_policy={"backoff_sec": 60.0, "max_backoff_sec": 60.0})
        )
        await until(cluster, task_id, "a", "deferred")
        await cluster.client.pause(task_id)
        await cluster.clock.sleep(600)
        assert (await cluster.client.get_task(task_id)).status == "paused"
        assert calls == [1]
        await cluster.client.resume(task_id)
        await cluster.client.resume(task_id)
        assert (await cluster.client.wait(task_id, timeout=60)).result == {"a": "well"}


@pytest.mark.parametrize("obeys", [True, False], ids=["that ends by itself", "that is cut off"])
async def test_the_metrics_of_a_cancelled_node_are_those_of_the_batches_it_stored(
    obeys: bool,
) -> None:
    class Counting(Handler):
        async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
            for number in range(1000):
                yield Batch(str(number), number)

        async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
            if obeys:
                ctx.raise_if_cancelled()
            await ctx.clock.sleep(0.2 if obeys or batch.payload < 20 else DAY)
            return BatchResult(True, metrics={"batches": 1})

    async with Cluster(
        handlers={"counting": Counting}, coordinator_config=QUICK, worker_config=LIVELY
    ) as cluster:
        task_id = await cluster.client.create_task(
            graph={"nodes": [{"node_id": "a", "type": "counting"}]}
        )
        await cluster.clock.sleep(10)
        await cluster.client.cancel(task_id)
        view = await cluster.client.wait(task_id, timeout=30)
        records = await cluster.store.artifacts.read(Stream(task_id, "a"), limit=1000)
    batches = sum(record.partial for record in records)
    assert view.status == "cancelled"
    assert view.nodes["a"].metrics == {"batches": batches}
    assert batches >= 20
