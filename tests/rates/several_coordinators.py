"""A rate on real servers, with several coordinators and workers."""

import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

from flowkit import Client, Coordinator
from flowkit.task import TaskStatus
from flowkit.worker import Worker, handler
from tests.rates.test_nodes_with_rates import most_in, rated

LIMIT, PER_SEC = 3, 0.5


async def a_rate_is_kept(
    coordinator: Callable[[], Coordinator],
    worker: Callable[[Mapping[str, Any]], Worker],
    client: Callable[[], Client],
) -> None:
    """Run tasks that share a rate, and check when their attempts began."""
    times: list[float] = []

    @handler("work")
    async def work(item: Any) -> None:
        times.append(time.monotonic())

    async with AsyncExitStack() as stack:
        for _ in range(2):
            await stack.enter_async_context(coordinator())
            await stack.enter_async_context(worker({"work": work}))
        user = await stack.enter_async_context(client())
        graph = rated("a", "b", "c", limit=LIMIT, per_sec=PER_SEC)
        ids = [await user.create_task(graph=graph) for _ in range(3)]
        views = [await user.wait(task_id, 60) for task_id in ids]
        pages = [
            await user.list_tasks(waiting="rate"),
            await user.list_tasks(waiting="worker"),
        ]
    assert {view.status for view in views} == {TaskStatus.FINISHED}
    assert [page.items for page in pages] == [[], []]
    assert len(times) == 9
    assert most_in(times, PER_SEC) <= LIMIT
