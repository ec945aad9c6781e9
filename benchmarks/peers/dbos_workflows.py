"""DBOS: workflows of steps in one process, whose results are stored in SQLite or Postgres.

The SQLite file has a write-ahead log, with which DBOS is faster than as it opens a new file.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

from dbos import DBOS

from benchmarks.peers.sessions import Session, do_nothing_async, in_batches
from benchmarks.peers.settings import Settings

step = DBOS.step(name="step")(do_nothing_async)


async def steps_in_turn(count: int) -> None:
    for _ in range(count):
        await step()


async def steps_together(count: int) -> None:
    await asyncio.gather(*(step() for _ in range(count)))
    await step()


in_turn = DBOS.workflow(name="in turn")(steps_in_turn)
together = DBOS.workflow(name="together")(steps_together)


class DbosSession:
    async def chain(self, length: int) -> None:
        await in_turn(length)

    async def fan(self, width: int) -> None:
        await together(width)

    async def tasks(self, count: int) -> None:
        await self._workflows(count, steps=1)

    async def stream(self, items: int) -> None:
        await self._workflows(items, steps=3)

    async def _workflows(self, count: int, *, steps: int) -> None:
        for handle in await in_batches(count, lambda _: DBOS.start_workflow_async(in_turn, steps)):
            await handle.get_result()


def database(settings: Settings) -> str:
    if settings.system == "dbos-postgres":
        return f"{settings.addresses['postgres']}/{settings.name}"
    path = Path(settings.folder) / "dbos.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite:///{path}"


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Session]:
    DBOS(
        config={
            "name": "benchmark",
            "system_database_url": database(settings),
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        yield DbosSession()
    finally:
        DBOS.destroy()
