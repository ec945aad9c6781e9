"""A worker with one slot on an SQLite file: ``python -m tests.sqlite.slot_process FILE LEDGER ID``.

All commands are in one partition, which the first worker has. Each run adds the node and the worker
to the ledger when it begins. It takes half a second, or in the worker ``stays`` until two runs have
begun elsewhere.
"""

import sys
from pathlib import Path

import anyio

from flowkit import WorkerConfig
from flowkit.worker import RunContext, Worker, handler
from tests.sqlite.members import SQLITE, WORKER


def begun_elsewhere(ledger: Path) -> int:
    return sum(not line.endswith(" stays") for line in ledger.read_text().splitlines())


async def main(path: Path, ledger: Path, worker_id: str) -> None:
    @handler("work")
    async def work(ctx: RunContext) -> None:
        with ledger.open("a") as lines:
            lines.write(f"{ctx.node_id} {worker_id}\n")
        if worker_id != "stays":
            await anyio.sleep(0.5)
            return
        while begun_elsewhere(ledger) < 2:
            await anyio.sleep(0.02)

    address = f"sqlite:///{path}"
    cfg = WorkerConfig(
        bus=address,
        options={"sqlite": {**SQLITE, "partitions": 1}},
        **{**WORKER, "worker_id": worker_id, "max_concurrency": 1},
    )
    async with Worker(db=address, cfg=cfg, handlers=[work]):
        await anyio.sleep_forever()


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
