"""Temporal: workflows of activities, with a worker in a process of its own."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client
from temporalio.service import RPCError
from temporalio.worker import Worker

from benchmarks.peers.sessions import Session, in_batches
from benchmarks.peers.settings import Settings
from benchmarks.peers.temporal_workflows import Steps, step
from benchmarks.servers import process

QUEUE = "benchmark"
RETENTION_SEC = int(timedelta(days=1).total_seconds())
PATIENCE_SEC = 60.0


class TemporalSession:
    def __init__(self, client: Any) -> None:
        self._client = client

    async def chain(self, length: int) -> None:
        await (await self.start(length)).result()

    async def fan(self, width: int) -> None:
        await (await self.start(width, together=True)).result()

    async def tasks(self, count: int) -> None:
        await self._workflows(count, steps=1)

    async def stream(self, items: int) -> None:
        await self._workflows(items, steps=3)

    async def _workflows(self, count: int, *, steps: int) -> None:
        for handle in await in_batches(count, lambda _: self.start(steps)):
            await handle.result()

    async def start(self, steps: int, *, together: bool = False) -> Any:
        return await self._client.start_workflow(
            Steps.run, args=[steps, together], id=uuid.uuid4().hex, task_queue=QUEUE
        )


async def patiently(call: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call until the server, which has just started, accepts it."""
    until = time.monotonic() + PATIENCE_SEC
    while True:
        try:
            return await call()
        except (RPCError, RuntimeError):
            if time.monotonic() > until:
                raise
        await asyncio.sleep(0.2)


async def connected(address: str, namespace: str) -> Any:
    """Return a client for a new namespace, once all parts of the server know it."""
    client = await patiently(lambda: Client.connect(address, namespace=namespace))
    await client.workflow_service.register_namespace(
        RegisterNamespaceRequest(
            namespace=namespace,
            workflow_execution_retention_period=Duration(seconds=RETENTION_SEC),
        )
    )
    await patiently(lambda: TemporalSession(client).start(1))
    return client


def serve(address: str, namespace: str) -> None:
    async def run() -> None:
        client = await Client.connect(address, namespace=namespace)
        await Worker(client, task_queue=QUEUE, workflows=[Steps], activities=[step]).run()

    asyncio.run(run())


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Session]:
    address = settings.addresses["temporal"]
    client = await connected(address, settings.name)
    with process(serve, address, settings.name):
        yield TemporalSession(client)
