"""Count a log file with two workers, one of which is stopped in the middle of its work."""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from examples.data_processing.flow import log_report
from examples.data_processing.handlers import HANDLERS
from examples.data_processing.sample import write_log
from flowkit import Coordinator, WorkerConfig
from flowkit.worker import Worker

ADDRESS = "memory://data-processing"
LINES = 60_000


async def main(log: Path) -> None:
    write_log(log, LINES)
    async with AsyncExitStack() as stack:
        coordinator = await stack.enter_async_context(Coordinator(db=ADDRESS))
        workers = {
            name: await stack.enter_async_context(
                Worker(db=ADDRESS, cfg=WorkerConfig(worker_id=name), handlers=HANDLERS)
            )
            for name in ("ada", "ben")
        }
        task_id = await coordinator.create_task(graph=log_report, params={"log": str(log)})
        await stop_one(coordinator, task_id, workers)
        view = await coordinator.wait(task_id)

    result: Any = view.result
    print(f"{view.status}: {result['report']['totals']}")
    for table in result["report"]["tables"]:
        for row in table["rows"]:
            print(f"  {row[0]:12}{row[1]:7,} requests{row[2]:7,} errors{row[3]:13,} bytes")


async def stop_one(coordinator: Coordinator, task_id: str, workers: dict[str, Worker]) -> None:
    """Stop the first worker that stores a batch of a map, without letting it finish its nodes."""
    runs_on: dict[str, str] = {}
    async for event in coordinator.watch(task_id):
        if event.node_id is None or not event.node_id.startswith("map_"):
            continue
        if event.status == "running" and isinstance(event.data, dict):
            runs_on[event.node_id] = str(event.data["worker_id"])
        elif event.kind == "batch":
            name = runs_on[event.node_id]
            print("a worker is stopped after its first batch, and the other one takes over")
            await workers[name].stop(grace=0)
            return


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "access.log")))
