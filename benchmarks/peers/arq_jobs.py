"""arq on Redis. It has no chains and no fan-in: the client waits for each result."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings

from benchmarks.peers.sessions import Session, command, do_nothing_async, in_batches
from benchmarks.peers.settings import Settings, from_environment

settings = from_environment()
POLL_SEC = 0.005
"""Time between two looks at the queue or a result; the defaults are half a second."""
POLL_MANY_SEC = 0.1
"""The same where many coroutines wait, whose looks would otherwise be most of the load."""
QUIET = {"version": 1, "loggers": {"arq": {"level": "ERROR"}}}


class WorkerSettings:
    """Settings that the command line of arq reads."""

    functions = (func(do_nothing_async, name="step"),)
    redis_settings = RedisSettings.from_dsn(settings.addresses["redis"])
    queue_name = settings.name
    poll_delay = POLL_SEC
    max_jobs = 100


async def results(jobs: Iterable[Any], *, poll_sec: float = POLL_SEC) -> None:
    for job in jobs:
        await job.result(poll_delay=poll_sec)


class ArqSession:
    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def _submit(self) -> Any:
        return await self._redis.enqueue_job("step")

    async def chain(self, length: int, *, poll_sec: float = POLL_SEC) -> None:
        for _ in range(length):
            await results([await self._submit()], poll_sec=poll_sec)

    async def fan(self, width: int) -> None:
        await self.tasks(width)
        await results([await self._submit()])

    async def tasks(self, count: int) -> None:
        await results(await in_batches(count, lambda _: self._submit()))

    async def stream(self, items: int) -> None:
        await in_batches(items, lambda _: self.chain(3, poll_sec=POLL_MANY_SEC))


@asynccontextmanager
async def opened(_: Settings) -> AsyncIterator[Session]:
    quiet = ("--custom-log-dict", f"{__name__}.QUIET")
    async with command("arq", f"{__name__}.WorkerSettings", *quiet):
        pool = await create_pool(
            WorkerSettings.redis_settings, default_queue_name=WorkerSettings.queue_name
        )
        try:
            yield ArqSession(pool)
        finally:
            await pool.aclose()
