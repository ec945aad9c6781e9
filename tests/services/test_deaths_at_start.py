"""Workers that crash when they start a node, on real servers: each crash costs an attempt."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from flowkit import TaskView
from flowkit.worker import Worker, handler
from tests.builders import graph, node
from tests.services.processes import Processes, until
from tests.services.support import Installation

pytestmark = pytest.mark.services

WITHIN_SEC = 180
QUICK_COORDINATOR = {
    "scheduler_tick_sec": 1,
    "heartbeat_soft_sec": 1,
    "heartbeat_hard_sec": 2,
    "lease_ttl_sec": 2,
}


@asynccontextmanager
async def supervised(processes: Processes) -> AsyncIterator[None]:
    """Two workers that run one node at a time; a crashed one is started again."""

    async def keep_alive() -> None:
        workers = [processes.worker(hb_interval_sec=0.5, max_concurrency=1) for _ in range(2)]
        while True:
            for number, worker in enumerate(workers):
                if not worker.alive:
                    workers[number] = processes.worker(hb_interval_sec=0.5, max_concurrency=1)
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as group:
        group.start_soon(keep_alive)
        yield
        group.cancel_scope.cancel()


def deadly(item: str, *, most: int) -> dict[str, Any]:
    return graph(
        node(
            "n", "deadly", io={"input_inline": item}, retry_policy={"max": most, "backoff_sec": 0.1}
        )
    )


@pytest.mark.timeout(600)
async def test_a_node_that_kills_its_worker_is_executed_as_often_as_its_policy_allows(
    installation: Installation, processes: Processes
) -> None:
    """Other nodes of the role finish meanwhile, and a cancelled task kills no further worker."""

    def deaths() -> Counter[str]:
        return Counter(task_id for task_id, *_ in processes.recorded())

    async with installation.coordinator(
        worker_types=["deadly"], **QUICK_COORDINATOR
    ) as coordinator:
        once = await coordinator.create_task(graph=deadly("die", most=0))
        thrice = await coordinator.create_task(graph=deadly("die", most=2))
        endless = await coordinator.create_task(graph=deadly("die", most=1000))
        others = [await coordinator.create_task(graph=deadly("live", most=1000)) for _ in range(10)]
        async with supervised(processes):
            await until(lambda: deaths()[endless] >= 1, within=WITHIN_SEC)
            await coordinator.cancel(endless, "enough")
            ended: dict[str, TaskView] = {}
            for task_id in (endless, once, thrice, *others):
                ended[task_id] = await coordinator.wait(task_id, timeout=WITHIN_SEC)
                if task_id == endless:
                    at_the_cancel = deaths()[endless]
    assert [
        (ended[task_id].status, ended[task_id].nodes["n"].reason_code) for task_id in (once, thrice)
    ] == [("failed", "worker_lost")] * 2
    assert (deaths()[once], deaths()[thrice]) == (1, 3)
    assert ended[endless].status == "cancelled"
    assert deaths()[endless] == at_the_cancel
    assert {ended[task_id].status for task_id in others} == {"finished"}


async def test_the_command_of_a_task_that_was_cancelled_in_the_queue_never_runs(
    installation: Installation,
) -> None:
    ran: list[Any] = []

    @handler("deadly")
    async def later(item: Any) -> Any:
        ran.append(item)

    async with (
        installation.coordinator(worker_types=["deadly"]) as coordinator,
        installation.client() as client,
    ):
        task_ids = [await coordinator.create_task(graph=deadly("x", most=0)) for _ in range(2)]
        for task_id, by in zip(task_ids, (coordinator, client), strict=True):
            while (await client.get_task(task_id)).nodes["n"].status != "queued":
                await anyio.sleep(0.02)
            await by.cancel(task_id)
        last = await coordinator.create_task(graph=deadly("last", most=0))
        async with installation.worker([later]):
            assert (await coordinator.wait(last, timeout=WITHIN_SEC)).status == "finished"
    assert ran == ["last"]


async def test_a_long_node_is_not_repeated_because_a_second_worker_has_the_name_of_its_own(
    installation: Installation,
) -> None:
    """The second worker does not start while the first runs."""
    began: list[float] = []

    @handler("slow")
    async def slow(item: Any) -> int:
        began.append(anyio.current_time())
        await anyio.sleep(5)
        return 1

    def named() -> Worker:
        return installation.worker([slow], worker_id="worker-0", hb_interval_sec=1)

    async with (
        installation.coordinator(worker_types=["slow"], **QUICK_COORDINATOR) as coordinator,
        named(),
    ):
        task_id = await coordinator.create_task(
            graph=graph(node("n", "slow", retry_policy={"max": 0}))
        )
        with (
            anyio.fail_after(WITHIN_SEC),
            pytest.raises(Exception, match="worker_id 'worker-0' is in use by process"),
        ):
            await named().start()
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
    assert (view.status, len(began)) == ("finished", 1)
