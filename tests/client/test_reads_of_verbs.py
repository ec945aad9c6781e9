"""Reads of a record by the verbs that change its task."""

from collections.abc import Awaitable, Callable, Collection, Mapping

import anyio
import pytest

from flowkit import Client
from flowkit.protocols import TaskRecord
from flowkit_testing import Cluster, InMemoryStore
from tests.builders import graph, node


class CountedLoads(InMemoryStore):
    """Store that counts the loads of records."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        self.loads += 1
        return await super().load(task_ids)


WAITING = graph(
    node("signal", "wait_signal", io={"signal": "go"}),
    node("approval", "approval", io={"prompt": "Go?"}),
)


async def decide(client: Client, task_id: str) -> None:
    await client.decide(task_id, "approval", "approve", by="ada")


async def send_signal(client: Client, task_id: str) -> None:
    await client.signal(task_id, "go")


async def retry(client: Client, task_id: str) -> None:
    await client.retry(task_id)


@pytest.mark.parametrize("verb", [decide, send_signal, retry])
async def test_a_verb_that_checks_a_task_and_changes_it_reads_its_record_once(
    verb: Callable[[Client, str], Awaitable[None]],
) -> None:
    store = CountedLoads()
    async with Cluster(coordinators=0, workers=0, store=store) as cluster:
        task_id = await cluster.client.create_task(graph=WAITING)
        if verb is retry:
            await cluster.client.cancel(task_id)
        before = store.loads
        await verb(cluster.client, task_id)
        assert store.loads == before + 1


async def test_a_wait_reads_the_record_once_when_the_task_has_ended() -> None:
    store = CountedLoads()
    async with Cluster(coordinators=0, workers=0, store=store) as cluster:
        task_id = await cluster.client.create_task(graph=WAITING)
        before = store.loads
        async with anyio.create_task_group() as group:
            group.start_soon(cluster.client.wait, task_id, 60)
            await anyio.wait_all_tasks_blocked()
            assert store.loads == before
            await cluster.client.cancel(task_id)
        assert store.loads == before + 2  # that of the cancellation, and that of the wait
