"""Celery: canvases of one task, with results in Redis.

A task is acknowledged after it has run, and the broker confirms each message.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from celery import Celery, chain, chord, group
from celery.result import ResultSet

from benchmarks.peers.sessions import Session, command, do_nothing
from benchmarks.peers.settings import Settings, from_environment

settings = from_environment()
BROKERS = {"celery-redis": "redis", "celery-rabbitmq": "rabbitmq"}

app = Celery(
    "benchmark",
    broker=settings.addresses[BROKERS[settings.system]],
    backend=settings.addresses["redis"],
)
app.conf.update(
    task_default_queue=settings.name,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    broker_connection_retry_on_startup=True,
    broker_transport_options={"confirm_publish": True} if "rabbitmq" in settings.system else {},
)
step = app.task(name="step")(do_nothing)


class CelerySession:
    async def chain(self, length: int) -> None:
        chain(step.si() for _ in range(length)).apply_async().get()

    async def fan(self, width: int) -> None:
        chord(group(step.si() for _ in range(width)))(step.si()).get()

    async def tasks(self, count: int) -> None:
        ResultSet([step.delay() for _ in range(count)]).join_native()

    async def stream(self, items: int) -> None:
        chains = [chain(step.si(), step.si(), step.si()) for _ in range(items)]
        ResultSet([one.apply_async() for one in chains]).join_native()


@asynccontextmanager
async def opened(_: Settings) -> AsyncIterator[Session]:
    worker = ("celery", "-A", __name__, "--quiet", "worker", "--loglevel=ERROR", "--concurrency=2")
    async with command(*worker):
        yield CelerySession()
