"""A coordinator and a worker on an SQLite file, which run sagas until the process is killed.

``python -m tests.sqlite.saga_process FILE LEDGER HANG``: each execution adds a line to the ledger.
That of the node ``HANG`` then hangs.
"""

import os
import sys
from pathlib import Path
from typing import Any

import anyio

from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit.worker import RunContext, Worker, handler
from tests.sqlite.members import COORDINATOR, SQLITE, WORKER


async def main(path: Path, ledger: Path, hang: str) -> None:
    @handler("work")
    async def work(item: Any, ctx: RunContext) -> str:
        with ledger.open("a") as lines:
            lines.write(ctx.node_id + "\n")
            lines.flush()
            os.fsync(lines.fileno())
        if ctx.node_id == hang:
            await anyio.sleep_forever()
        if item == "fail":
            raise ValueError("no such page")
        return ctx.node_id

    address = f"sqlite:///{path}"
    common = {"bus": address, "options": {"sqlite": SQLITE}}
    coordinator = Coordinator(db=address, cfg=CoordinatorConfig(**common, **COORDINATOR))
    worker = Worker(db=address, cfg=WorkerConfig(**common, **WORKER), handlers=[work])
    async with coordinator, worker:
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
