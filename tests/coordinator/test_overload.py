"""Work beyond the capacity of the workers waits, and causes no additional load."""

from collections import Counter
from typing import Any

import pytest

from flowkit import CoordinatorConfig, WorkerConfig
from flowkit.messages import RunNode
from flowkit.worker import RunContext, handler
from flowkit_testing import Cluster
from tests.coordinator.lost_messages import Recording

pytestmark = pytest.mark.no_cover


class Slow:
    """A handler that takes some seconds and counts the finished runs by minute."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.runs: Counter[tuple[str, str]] = Counter()
        self.minutes: Counter[int] = Counter()
        self.cluster: Cluster

    @property
    def handlers(self) -> list[Any]:
        @handler("work")
        async def work(item: Any, ctx: RunContext) -> None:
            self.runs[ctx.task_id, ctx.node_id] += 1
            await self.cluster.clock.sleep(self.seconds)
            self.minutes[int(self.cluster.clock.monotonic() // 60)] += 1

        return [work]


def cluster_of(bus: Recording, slow: Slow, *, coordinators: int = 1, slots: int = 10) -> Cluster:
    """Return a cluster of two workers with this number of slots each."""
    slow.cluster = Cluster(
        bus=bus,
        handlers=slow.handlers,
        coordinators=coordinators,
        workers=2,
        coordinator_config=CoordinatorConfig(),
        worker_config=WorkerConfig(max_concurrency=slots),
    )
    return slow.cluster


def commands_a_node(bus: Recording) -> set[int]:
    return set(
        Counter(
            (message.task_id, message.index)
            for message in bus.published
            if isinstance(message, RunNode)
        ).values()
    )


@pytest.mark.parametrize(
    ("tasks", "width", "coordinators"),
    [(10, 200, 1), (1, 1000, 2), (400, 1, 2)],
    ids=["several tasks", "one task", "many tasks"],
)
async def test_every_node_of_a_long_backlog_gets_one_command(
    tasks: int, width: int, coordinators: int
) -> None:
    """An hour of work, with 2,000 nodes at most."""
    bus, slow = Recording(), Slow(72_000 / (tasks * width))
    graph = {"nodes": [{"node_id": f"n{number}", "type": "work"} for number in range(width)]}
    async with cluster_of(bus, slow, coordinators=coordinators) as cluster:
        began = cluster.clock.monotonic()
        submitters = [cluster.client, *cluster.coordinators]
        task_ids = [
            await submitters[number % len(submitters)].create_task(graph=graph)
            for number in range(tasks)
        ]
        views = [await cluster.client.wait(task_id, 7200) for task_id in task_ids]
        took = cluster.clock.monotonic() - began
    assert {str(view.status) for view in views} == {"finished"}
    assert commands_a_node(bus) == {1}
    assert set(slow.runs.values()) == {1}
    # Twenty slots, busy most of the time.
    assert 3600 <= took < 5400


async def test_after_a_burst_work_is_done_at_the_rate_at_which_it_comes() -> None:
    """A task every three seconds is half of the workers' capacity.

    For two minutes there are ten times as many tasks.
    """
    bus, slow = Recording(), Slow(6.0)
    graph = {"nodes": [{"node_id": "n", "type": "work"}]}
    async with cluster_of(bus, slow, slots=2) as cluster:

        async def traffic(pause_sec: float, minutes: int) -> None:
            for _ in range(round(minutes * 60 / pause_sec)):
                await cluster.client.create_task(graph=graph)
                await cluster.clock.sleep(pause_sec)

        await traffic(3, 5)
        await traffic(0.3, 2)
        await traffic(3, 30)
    done = [slow.minutes[minute] for minute in range(37)]
    assert all(abs(count - 20) <= 6 for count in [*done[1:5], *done[-10:]])
    # It was more than their capacity, and they worked at full capacity.
    assert all(abs(count - 40) <= 4 for count in done[6:20])
    assert commands_a_node(bus) == {1}
