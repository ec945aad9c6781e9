"""Events that come in one by one and are reported together."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import pytest

from flowkit._engine import Event, KeyGranted
from flowkit.coordinator._gathered_events import MOST_AT_ONCE, GatheredEvents
from flowkit.task import TaskStatus
from flowkit_testing import Cluster, InMemoryStore

GRANTED = [KeyGranted(index, 1) for index in range(3)]


class Reports:
    """Reports that were made, the second of which fails. Each waits until it is let go."""

    def __init__(self) -> None:
        self.made: list[dict[str, list[Event]]] = []
        self.go = anyio.Semaphore(0)

    async def report(self, events: Mapping[str, Sequence[Event]]) -> None:
        self.made.append({task_id: list(some) for task_id, some in events.items()})
        await self.go.acquire()
        if len(self.made) == 2:
            raise RuntimeError("refused")


async def test_events_that_come_in_during_a_report_follow_together_in_their_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reports = Reports()
    async with anyio.create_task_group() as group:
        gathered = GatheredEvents(
            group=group, report=reports.report, leaving=lambda: False, message="not recorded"
        )
        gathered.add("t", GRANTED[0])
        await anyio.wait_all_tasks_blocked()
        gathered.add("t", GRANTED[1])
        gathered.add("u", GRANTED[0])
        gathered.add("t", GRANTED[2])
        reports.go.release()
        await anyio.wait_all_tasks_blocked()
        for number in range(MOST_AT_ONCE + 1):
            gathered.add(f"v{number}", GRANTED[0])
        for _ in range(3):
            reports.go.release()
    first, second, third, fourth = reports.made
    assert first == {"t": GRANTED[:1]}
    assert second == {"t": GRANTED[1:], "u": GRANTED[:1]}
    assert (len(third), len(fourth)) == (MOST_AT_ONCE, 1)
    assert [record.message for record in caplog.records] == ["not recorded"]


class CallCounter(InMemoryStore):
    """A store that counts the calls of ``commit``."""

    calls = 0

    async def commit(self, commits: Sequence[Any]) -> Sequence[bool]:
        self.calls += 1
        return await super().commit(commits)


async def test_the_ends_of_functions_that_return_together_are_committed_together() -> None:
    size = 100
    nodes = [
        {"node_id": f"n{number}", "type": "coordinator_fn", "io": {"fn": "noop"}}
        for number in range(size)
    ]
    async with CallCounter() as store, Cluster(store=store) as cluster:
        view = await cluster.run({"nodes": nodes})
    assert view.status is TaskStatus.FINISHED
    assert store.calls < size / 4
