"""Figures about an installation."""

from typing import Any

import anyio

from flowkit import Client, Trigger
from flowkit.errors import StoreUnavailable
from flowkit_telemetry._figures import FRESH_SEC, UNAVAILABLE, FigureReader
from flowkit_telemetry._metric_table import FIGURES
from flowkit_testing import Cluster
from tests.builders import graph, node, work
from tests.triggers.memory_source import MemorySource
from tests.triggers.test_sources_of_plugins import LATER

WAITS = graph(node("a", "unserved"))


async def test_the_figures_are_those_of_the_table() -> None:
    async with Cluster(handlers=[work]) as cluster:
        figures = await FigureReader(cluster.client).read()
    assert figures.keys() == FIGURES.keys()
    for name, values in figures.items():
        assert all(len(labels) == len(FIGURES[name].labels) for labels in values), name


async def test_open_tasks_and_workers_are_counted() -> None:
    async with Cluster(handlers=[work]) as cluster:
        for _ in range(3):
            await cluster.client.create_task(graph=WAITS)
        figures = await FigureReader(cluster.client).read()
    assert sum(figures["flowkit_open_tasks"].values()) == 3
    assert figures["flowkit_coordinators"] == {(): 1}
    assert figures["flowkit_workers"] == {("work",): 1}
    assert figures["flowkit_worker_runs"] == figures["flowkit_worker_waiting_runs"] == {(): 0}


async def test_waiting_nodes_are_shown_for_each_role() -> None:
    async with Cluster(handlers=[work]) as cluster:
        await cluster.client.create_task(graph=WAITS)
        await cluster.clock.sleep(60)
        await cluster.client.create_task(graph=WAITS)
        figures = await FigureReader(cluster.client).read()
    assert figures["flowkit_queue_depth"] == {("work",): 0, ("unserved",): 2}
    oldest = figures["flowkit_queue_oldest_seconds"]
    assert oldest["work",] == 0
    assert 60 <= oldest["unserved",] < 61


async def test_events_that_wait_are_shown_for_each_trigger_that_is_not_paused() -> None:
    source = MemorySource()
    async with Cluster(coordinators=0, plugins=[source]) as cluster:
        for name in ("a", "b"):
            trigger = Trigger(name, source="mem://orders", graph=WAITS)
            await cluster.client.put_trigger(trigger)
        await cluster.client.pause_trigger("b")
        source.publish(b"1", timestamp=LATER)
        figures = await FigureReader(cluster.client).read()
    assert figures["flowkit_trigger_behind"] == {("a",): 1}


async def test_figures_are_read_again_when_they_are_not_fresh() -> None:
    async with Cluster(handlers=[work]) as cluster:
        reader = FigureReader(cluster.client)
        before = await reader.read()
        await cluster.client.create_task(graph=WAITS)
        assert await reader.read() is before
        await cluster.clock.sleep(FRESH_SEC)
        assert sum((await reader.read())["flowkit_open_tasks"].values()) == 1


async def test_without_the_store_the_figures_say_only_that_it_is_away() -> None:
    async with Cluster(handlers=[work]) as cluster:
        reader = FigureReader(cluster.client)
        answers = cluster.client.count_tasks

        async def count_tasks(**filters: Any) -> int:
            raise StoreUnavailable("away")

        cluster.client.count_tasks = count_tasks
        assert await reader.read() == UNAVAILABLE
        cluster.client.count_tasks = answers
        assert (await reader.read())["flowkit_store_up"] == {(): 1}


async def test_readers_that_wait_for_a_failed_read_do_not_read_again() -> None:
    async with Cluster(handlers=[work]) as cluster:
        reader, calls, answers = FigureReader(cluster.client), 0, []

        async def count_tasks(**filters: Any) -> int:
            nonlocal calls
            calls += 1
            await cluster.clock.sleep(1)
            raise StoreUnavailable("away")

        async def read() -> None:
            answers.append(await reader.read())

        cluster.client.count_tasks = count_tasks
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(read)
    assert answers == [UNAVAILABLE, UNAVAILABLE]
    assert calls == 1


async def test_a_client_that_is_not_started_has_no_figures() -> None:
    assert await FigureReader(Client(db="memory://")).read() == UNAVAILABLE
