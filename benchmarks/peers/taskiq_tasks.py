"""Taskiq on Redis streams. Pipelines run chains; the client waits for the steps of a fan."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from taskiq_pipelines import Pipeline, PipelineMiddleware
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers.sessions import Session, command, do_nothing_async, in_batches
from benchmarks.peers.settings import Settings, from_environment

settings = from_environment()
REDIS = settings.addresses["redis"]
POLL_SEC = 0.001
"""Time between two looks at a result; the default of 0.2 s would be all that is measured."""

broker = (
    RedisStreamBroker(REDIS, queue_name=settings.name)
    .with_result_backend(RedisAsyncResultBackend(REDIS))
    .with_middlewares(PipelineMiddleware())
)
step = broker.task(task_name="step")(do_nothing_async)


async def results(tasks: Iterable[Any]) -> None:
    for task in tasks:
        (await task.wait_result(check_interval=POLL_SEC)).raise_for_error()


def pipeline(length: int) -> Any:
    one = Pipeline(broker, step)
    for _ in range(length - 1):
        one = one.call_next(step)
    return one


class TaskiqSession:
    async def chain(self, length: int) -> None:
        await results([await pipeline(length).kiq()])

    async def fan(self, width: int) -> None:
        await self.tasks(width)
        await results([await step.kiq()])

    async def tasks(self, count: int) -> None:
        await results(await in_batches(count, lambda _: step.kiq()))

    async def stream(self, items: int) -> None:
        await results(await in_batches(items, lambda _: pipeline(3).kiq()))


@asynccontextmanager
async def opened(_: Settings) -> AsyncIterator[Session]:
    worker = ("taskiq", "worker", "--workers=2", "--log-level=ERROR", f"{__name__}:broker")
    async with command(*worker):
        await broker.startup()
        try:
            yield TaskiqSession()
        finally:
            await broker.shutdown()
