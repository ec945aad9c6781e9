"""Coordinators whose clocks are days off, on real servers: no node is late, early or lost."""

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest

from flowkit.errors import NodeFailure
from flowkit.worker import RunContext, handler
from tests.builders import graph, node
from tests.services.clocks import DAY_SEC
from tests.services.processes import Processes, until
from tests.services.support import Installation
from tests.services.test_liveness import QUICK_COORDINATOR, QUICK_WORKER, WITHIN_SEC

pytestmark = pytest.mark.services

LIMITS = {"schedule_to_start_sec": 600, "start_to_close_sec": 600, "heartbeat_sec": 600}
RETENTION = {"finished_retention_sec": DAY_SEC, "purge_interval_sec": 0.5}


@handler("failing")
async def failing(item: Any, ctx: RunContext) -> int:
    if ctx.attempt == 1:
        raise NodeFailure("as the test wants it", reason_code="as_wanted")
    return ctx.attempt


async def test_a_coordinator_whose_clock_is_days_ahead_passes_no_time_limit_and_purges_no_task(
    installation: Installation, processes: Processes
) -> None:
    async with installation.coordinator(worker_types=["gated"], **QUICK_COORDINATOR) as coordinator:
        processes.worker(roles="gated", **QUICK_WORKER)
        ahead = processes.start(
            "coordinator", clock_ahead_sec=40 * DAY_SEC, **QUICK_COORDINATOR, **RETENTION
        )
        flow = graph(node("n", "gated", timeouts=LIMITS), deadline_sec=3600)
        task_id = await coordinator.create_task(graph=flow)
        await until(lambda: bool(processes.recorded("began")))
        await ahead.until("coordinator_ready")
        # Meanwhile, it sweeps and purges several times.
        await anyio.sleep(2 * QUICK_COORDINATOR["scheduler_tick_sec"])
        processes.open_gate()
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        await anyio.sleep(2 * RETENTION["purge_interval_sec"])
        assert (await coordinator.get_task(task_id)).status == "finished"
    assert (view.status, view.nodes["n"].attempt) == ("finished", 1)
    assert '"action":"clock_wrong"' in ahead.logged()


async def test_what_a_coordinator_whose_clock_is_days_ahead_put_off_is_done_in_time_by_others(
    installation: Installation, processes: Processes
) -> None:
    began = datetime.now(UTC)
    ahead = processes.start(
        "coordinator", clock_ahead_sec=40 * DAY_SEC, worker_types='["failing"]', **QUICK_COORDINATOR
    )
    async with installation.worker([failing], **QUICK_WORKER), installation.client() as client:
        await ahead.until("coordinator_ready")
        task_id = await client.create_task(
            graph=graph(node("n", "failing", retry_policy={"backoff_sec": 3}))
        )
        with anyio.fail_after(WITHIN_SEC):
            while (view := await client.get_task(task_id)).nodes["n"].status != "deferred":
                await anyio.sleep(0.05)
        ahead.kill()
        assert view.nodes["n"].attempt == 1
        async with installation.coordinator(**QUICK_COORDINATOR):
            view = await client.wait(task_id, timeout=WITHIN_SEC)
    assert (view.status, view.nodes["n"].attempt) == ("finished", 2)
    assert view.finished_at is not None
    assert abs(view.finished_at - began) < timedelta(minutes=10)
