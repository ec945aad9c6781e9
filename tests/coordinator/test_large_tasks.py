"""Large tasks keep small records.

A record that the store refuses fails its node and delays no other task.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from flowkit import hookimpl
from flowkit._records.record_parts import KEEP_BYTES
from flowkit._tasks.reduced_reports import without_payloads
from flowkit.errors import RecordTooLarge
from flowkit.messages import NodeProgressed, NodeReleased, NodeStarted, NodeSucceeded
from flowkit.protocols import Commit
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster, InMemoryStore

HOUR = 3600
KB = 1024
LIMIT = 2 * KEEP_BYTES


class Narrow(InMemoryStore):
    """A store with a limit for the whole record, like a MongoDB document."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        records = await self.load([commit.task_id for commit in commits])
        for commit in commits:
            parts = {**records[commit.task_id].parts, **commit.put}
            size = sum(len(data) for name, data in parts.items() if name not in commit.drop)
            if size > LIMIT:
                raise RecordTooLarge(
                    f"task {commit.task_id!r} would take {size} bytes, \ud800 and at most {LIMIT}"
                    " are stored"
                )
            self.largest = max(self.largest, size)
        return await super().commit(commits)


class Functions:
    """Coordinator functions that misbehave."""

    @hookimpl
    def flowkit_register_functions(self, register: Any) -> None:
        async def large(ctx: Any) -> str:
            return "x" * 3 * LIMIT

        async def surrogate(ctx: Any) -> None:
            raise OSError("no such file: \udc80")

        async def speechless(ctx: Any) -> None:
            class Odd(Exception):
                def __str__(self) -> str:
                    raise RuntimeError("no text")

            raise Odd

        for function in (large, surrogate, speechless):
            register(function.__name__, function)


@handler("large")
async def large(item: int) -> dict[str, Any]:
    return {"data": "x" * item}


@handler("small")
async def small(item: Any) -> Any:
    return item


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster(store=Narrow(), handlers=[large, small], plugins=[Functions()]) as cluster:
        yield cluster


def chain(count: int, size: int) -> dict[str, Any]:
    nodes = [
        {
            "node_id": f"n{number}",
            "type": "large",
            "depends_on": [f"n{number - 1}"] if number else [],
            "io": {"input_inline": size},
        }
        for number in range(count)
    ]
    return {"nodes": nodes}


def function(name: str) -> dict[str, Any]:
    return {"nodes": [{"node_id": "f", "type": "coordinator_fn", "io": {"fn": name}}]}


async def test_large_results_of_few_nodes_go_to_the_archive(cluster: Cluster) -> None:
    view = await cluster.run(chain(30, 200 * KB))
    assert view.status == "finished"
    assert [len(node.result["data"]) for node in view.nodes.values()] == [200 * KB] * 30
    assert isinstance(cluster.store, Narrow)
    assert cluster.store.largest < LIMIT


async def test_large_progress_does_not_gather_in_the_record(cluster: Cluster) -> None:
    @handler("slow")
    async def slow(item: Any, ctx: RunContext) -> None:
        for number in range(30):
            await ctx.heartbeat({"number": number, "state": "x" * 200 * KB})
            await ctx.clock.sleep(60)

    await cluster.add_worker([slow])
    task_id = await cluster.client.create_task(graph={"nodes": [{"node_id": "a", "type": "slow"}]})
    assert (await cluster.client.wait(task_id, timeout=HOUR)).status == "finished"
    numbers = [
        event.data["number"]
        async for event in cluster.client.watch(task_id)
        if event.kind == "progress"
    ]
    assert numbers == list(range(30))


async def test_results_that_the_store_takes_one_by_one_are_taken(cluster: Cluster) -> None:
    graph = {
        "nodes": [
            {"node_id": name, "type": "large", "io": {"input_inline": 900 * KB}} for name in "abc"
        ]
    }
    assert (await cluster.run(graph)).status == "finished"


async def test_a_result_that_the_store_does_not_take_fails_its_node_at_once_and_hinders_no_other(
    cluster: Cluster,
) -> None:
    graph = function("large")
    graph["nodes"][0]["retry_policy"] = {"max": 5}
    task_id = await cluster.client.create_task(graph=graph)
    others = [
        await cluster.client.create_task(graph={"nodes": [{"node_id": "a", "type": "small"}]})
        for _ in range(3)
    ]
    view = await cluster.client.wait(task_id, timeout=HOUR)
    assert (view.status, view.nodes["f"].reason_code, view.nodes["f"].attempt) == (
        "failed",
        "result_too_large",
        1,
    )
    assert "the task would be too large to store" in view.nodes["f"].error
    assert [(await cluster.client.wait(other, timeout=HOUR)).status for other in others] == [
        "finished"
    ] * 3


@pytest.mark.parametrize("name", ["surrogate", "speechless"])
async def test_an_error_that_cannot_be_written_ends_its_function_and_not_the_coordinator(
    name: str, cluster: Cluster
) -> None:
    view = await cluster.run(function(name))
    assert view.status == "failed"
    assert view.nodes["f"].error.encode()
    assert (await cluster.run({"nodes": [{"node_id": "a", "type": "small"}]})).status == "finished"


def test_a_failure_takes_the_place_of_a_result_and_what_carries_nothing_stays() -> None:
    about: dict[str, Any] = {
        "task_id": "t",
        "index": 0,
        "attempt": 2,
        "token": "x",
        "worker_id": "w",
        "at": 2.0,
    }
    started = NodeStarted(**about)
    events = [
        started,
        NodeSucceeded(**about, started_at=1.0, result="x"),
        NodeProgressed(**about, progress=1),
        NodeReleased(**about),
    ]
    first, second, third, fourth = without_payloads(events, RecordTooLarge("16 MB"))
    assert (first, fourth) == (started, events[3])
    assert (second.reason_code, second.permanent, second.attempt, second.error) == (
        "result_too_large",
        True,
        2,
        "the task would be too large to store: 16 MB",
    )
    assert third == NodeProgressed(**about)
