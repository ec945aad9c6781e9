"""Process that runs chains until it is killed: ``python -m tests.sqlite.chains_runner FILE MODE``.

It prints a line for each handler that begins: the task, and the number of the node in its chain.
"""

import sys

import anyio

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import RunContext, Worker, handler
from tests.builders import chain

LENGTH = 10
AT_ONCE = 2


@handler("work")
async def say(item: object, ctx: RunContext) -> None:
    print(ctx.task_id, ctx.node_id.removeprefix("n"), flush=True)


async def run(address: str, segments: str) -> None:
    """Run several chains at a time, each again when it has ended, and print the tasks that end."""
    flow = chain(*["work"] * LENGTH) | {"segments": segments}
    config = CoordinatorConfig(bus=address, worker_types=["work"])
    worker = Worker(db=address, cfg=WorkerConfig(bus=address), handlers=[say])
    async with Coordinator(db=address, cfg=config) as coordinator, worker:

        async def repeat() -> None:
            while True:
                task_id = await coordinator.create_task(graph=flow)
                await coordinator.wait(task_id, timeout=60)
                print(task_id, LENGTH, flush=True)

        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(repeat)


if __name__ == "__main__":
    anyio.run(run, f"sqlite:///{sys.argv[1]}", sys.argv[2])
