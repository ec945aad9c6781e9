"""Handlers that run longer than a session of the bus, and results that are too large for it."""

import re
from typing import Any

import anyio
import pytest

from flowkit.worker import RunContext, handler
from tests.builders import graph, node
from tests.services.support import Installation, ends_of, events_of

pytestmark = pytest.mark.services


async def test_a_handler_of_fifteen_seconds_outlives_a_session_of_four(
    installation: Installation,
) -> None:
    runs: list[str] = []

    @handler("long")
    async def long(item: Any, ctx: RunContext) -> int:
        runs.append(ctx.worker_id)
        await anyio.sleep(15)
        return ctx.attempt

    @handler("short")
    async def short(item: Any) -> None:
        return None

    async with installation.coordinator() as coordinator, installation.worker([long, short]):
        task_id = await coordinator.create_task(graph=graph(node("a", "long")))
        # The same worker and the same partitions serve other nodes meanwhile.
        for _ in range(10):
            other = await coordinator.create_task(graph=graph(node("b", "short")))
            assert (await coordinator.wait(other, timeout=60)).status == "finished"
            await anyio.sleep(1)
        view = await coordinator.wait(task_id, timeout=60)
        ends = ends_of(await events_of(coordinator, task_id))
    assert view.result == {"a": 1}
    assert len(runs) == 1
    assert ends == {"": ["finished"], "a": ["finished"]}


async def test_a_result_above_the_limit_of_the_bus_fails_its_node_alone(
    installation: Installation,
) -> None:
    @handler("large")
    async def large(item: Any) -> str:
        return "x" * 3_000_000

    @handler("small")
    async def small(item: Any) -> str:
        return "x"

    async with installation.coordinator() as coordinator, installation.worker([large, small]):
        task_id = await coordinator.create_task(
            graph=graph(node("a", "large"), node("b", "small"), on_node_failure="continue")
        )
        view = await coordinator.wait(task_id, timeout=60)
        after = await coordinator.create_task(graph=graph(node("b", "small")))
        assert (await coordinator.wait(after, timeout=60)).status == "finished"
    assert (view.nodes["a"].status, view.nodes["a"].reason_code, view.nodes["a"].attempt) == (
        "failed",
        "result_too_large",
        1,
    )
    assert view.nodes["b"].status == "finished"
    assert re.search("bytes", view.nodes["a"].error or "")
