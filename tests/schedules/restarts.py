"""Schedules over a restart of all processes, for tests on real stores."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio

from flowkit import Client, Coordinator, Schedule
from tests.builders import graph

ENDS_AT_ONCE = graph({"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}})


async def each_time_makes_one_task(
    coordinator: Callable[[], Coordinator], client: Callable[[], Client]
) -> None:
    """Check that two coordinators make each task once, and that a restarted one catches up."""
    async with client() as verbs:
        async with AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(coordinator())
            # Times before a schedule is put are not made, and a busy machine puts it late.
            begin = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=5)
            put = Schedule(
                "s",
                graph=ENDS_AT_ONCE,
                params={"at": "${schedule.at}"},
                every_sec=1,
                start_at=begin,
                end_at=begin + timedelta(seconds=2),
                overlap="queue",
                catch_up="all",
            )
            await verbs.put_schedule(put)
            await _started(verbs, 1)
        async with coordinator():
            view = await _started(verbs, 3)
            late = begin - timedelta(seconds=5), begin - timedelta(seconds=4)
            again = await verbs.backfill("s", *late)
            filled = await verbs.backfill("s", begin, begin + timedelta(seconds=1), limit=1)
            for task_id in (*filled, await verbs.trigger_schedule("s")):
                assert (await verbs.wait(task_id, timeout=10)).status == "finished"
        names = [f"s@{(begin + timedelta(seconds=n)).isoformat()[:19]}Z" for n in range(3)]
        assert [one.task_id for one in view.history] == names
        assert (again, filled) == ([], names[:2])
        assert len((await verbs.list_tasks()).items) == 4
        await verbs.delete_schedule("s")
        assert await verbs.list_schedules() == []


async def _started(verbs: Client, count: int) -> Any:
    with anyio.fail_after(60):
        while len((view := await verbs.get_schedule("s")).history) < count:
            await anyio.sleep(0.05)
    return view
