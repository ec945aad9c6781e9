"""Log lines on a real store."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flowkit import Client, Coordinator, LogLine
from flowkit.worker import RunContext, Worker, handler
from tests.builders import graph

LINES = 250


@handler("talk")
async def talk(item: Any, ctx: RunContext) -> None:
    for number in range(1, LINES + 1):
        ctx.log.info("%d", number)
        if number % 50 == 0:
            await ctx.clock.sleep(0.02)


async def lines_are_kept_and_followed(
    coordinator: Callable[[], Coordinator],
    worker: Callable[[Any], Worker],
    client: Callable[[], Client],
) -> None:
    """Check that the lines of a map's children are all stored, once and in order, that a client
    that follows them sees the same, and that they are deleted with their task.
    """
    node = {"node_id": "each", "type": "talk", "depends_on": [], "map": {"over": [1, 2, 3]}}
    async with coordinator() as running, worker([talk]), client() as other:
        task_id = await other.create_task(graph=graph(node))
        followed = [line async for line in other.logs(task_id, follow=True)]
        assert (await other.get_task(task_id)).status == "finished"
        lines: list[LogLine] = []
        while len(lines) < 3 * LINES:  # on a slow machine, the last lines come after the end
            lines = [line async for line in other.logs(task_id)]
        for child in ("each[0]", "each[1]", "each[2]"):
            own = [line async for line in other.logs(task_id, child)]
            seen = [line for line in followed if line.node_id == child]
            assert [line.number for line in own] == list(range(1, LINES + 1))
            assert own == [line for line in lines if line.node_id == child]
            assert seen == own[: len(seen)]
        later = other.clock.now_dt() + timedelta(seconds=60)
        await running.store.purge(finished_before=later.timestamp())
        assert not await running.store.records.scan("log")
