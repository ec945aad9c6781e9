"""Dramatiq: pipelines and groups of one actor, with results in Redis."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits.backends import RedisBackend as RateLimits
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers.sessions import Session, command, do_nothing
from benchmarks.peers.settings import Settings, from_environment

settings = from_environment()
REDIS = settings.addresses["redis"]
TIMEOUT_MS = 120_000

broker = (
    RabbitmqBroker(url=settings.addresses["rabbitmq"], confirm_delivery=True)
    if settings.system == "dramatiq-rabbitmq"
    else RedisBroker(url=REDIS)
)
broker.add_middleware(Results(backend=RedisBackend(url=REDIS)))
broker.add_middleware(GroupCallbacks(RateLimits(url=REDIS)))
dramatiq.set_broker(broker)
step = dramatiq.actor(actor_name="step", queue_name=settings.name, store_results=True)(do_nothing)


def results(messages: Iterable[Any]) -> None:
    for message in messages:
        message.get_result(block=True, timeout=TIMEOUT_MS)


class DramatiqSession:
    async def chain(self, length: int) -> None:
        pipeline = dramatiq.pipeline([step.message() for _ in range(length)]).run()
        pipeline.get_result(block=True, timeout=TIMEOUT_MS)

    async def fan(self, width: int) -> None:
        last = step.message()
        together = dramatiq.group([step.message() for _ in range(width)])
        together.add_completion_callback(last)
        together.run()
        results([last])

    async def tasks(self, count: int) -> None:
        results([step.send() for _ in range(count)])

    async def stream(self, items: int) -> None:
        stages = [[step.message() for _ in range(3)] for _ in range(items)]
        results([dramatiq.pipeline(three).run() for three in stages])


@asynccontextmanager
async def opened(_: Settings) -> AsyncIterator[Session]:
    async with command("dramatiq", __name__, "--processes=2", "--threads=8"):
        yield DramatiqSession()
    broker.close()
