"""A worker without a coordinator: the test sends commands and receives reports."""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import anyio

from flowkit._records.kept_artifacts import kept_records
from flowkit.config import WorkerConfig
from flowkit.errors import BusUnavailable
from flowkit.messages import (
    CancelRun,
    NodeFailed,
    NodeReleased,
    NodeStopped,
    NodeSucceeded,
    RunContextData,
    RunNode,
    encode,
)
from flowkit.messages import decode as decoded
from flowkit.protocols import ArtifactRecord, Message, Place, Stream
from flowkit.worker import Worker
from flowkit_testing import InMemoryBus, InMemoryStore, ManualClock

ENDS = (NodeSucceeded, NodeFailed, NodeStopped, NodeReleased)


class Bench:
    """The bus, store and clock of a worker; it sends commands and keeps every report."""

    def __init__(self, bus: InMemoryBus, store: InMemoryStore, clock: ManualClock) -> None:
        self.bus = bus
        self.store = store
        self.clock = clock
        self.reports: list[Any] = []
        self.parked: list[Message] = []
        self._changed = anyio.Event()
        self._numbers = count(1)

    def worker(self, handlers: Any, *, plugins: Sequence[object] = (), **cfg: Any) -> Worker:
        return Worker(
            bus=self.bus,
            store=self.store,
            clock=self.clock,
            handlers=handlers,
            plugins=plugins,
            cfg=WorkerConfig(**{"worker_id": "w"} | cfg),
        )

    async def send(
        self,
        inline: Any = None,
        *,
        role: str = "work",
        io: dict[str, Any] | None = None,
        **fields: Any,
    ) -> RunNode:
        """Publish a command; arguments that are not given have defaults."""
        number = next(self._numbers)
        data: RunContextData | None = RunContextData(
            io=({} if inline is None else {"input_inline": inline}) | (io or {}),
            params=fields.pop("params", {}),
            vars=fields.pop("vars", {}),
            results=fields.pop("results", {}),
            errors=fields.pop("errors", {}),
        )
        if "data" in fields:
            data = fields.pop("data")
        made: dict[str, Any] = {
            "task_id": f"t{number}",
            "index": 0,
            "attempt": 1,
            "token": f"token-{number}",
            "node_id": "n",
            "data": data,
        }
        command = RunNode(role=role, **(made | fields))
        await self.publish(command)
        return command

    async def publish(self, command: RunNode) -> None:
        await self.bus.publish(
            [Message(f"flowkit.cmd.{command.role}", encode(command), command.task_id)]
        )

    async def cancel(self, command: RunNode, *, token: str | None = None, reason: str = "") -> None:
        order = CancelRun(
            task_id=command.task_id,
            index=command.index,
            attempt=command.attempt,
            token=token or command.token,
            reason=reason,
        )
        await self.bus.publish([Message("flowkit.control", encode(order), command.task_id)])

    def of(self, command: RunNode) -> list[Any]:
        return [
            report
            for report in self.reports
            if (report.task_id, getattr(report, "token", None)) == (command.task_id, command.token)
        ]

    def kinds(self, command: RunNode) -> list[str]:
        return [report.kind for report in self.of(command)]

    async def until(self, condition: Any) -> None:
        while not condition():
            self._changed = anyio.Event()
            with anyio.fail_after(20):
                await self._changed.wait()

    async def end(self, command: RunNode) -> Any:
        """Return the report of the end of a command's run."""
        found: list[Any] = []
        await self.until(
            lambda: found.extend(r for r in self.of(command) if isinstance(r, ENDS)) or found
        )
        return found[0]

    async def started(self, command: RunNode) -> None:
        await self.until(lambda: "node_started" in self.kinds(command))

    async def run(self, inline: Any = None, **fields: Any) -> Any:
        return await self.end(await self.send(inline, **fields))

    async def stored(self, command: RunNode) -> Sequence[ArtifactRecord]:
        """Return the artifacts of a run: those that its report carries, or else the stored ones."""
        stream = Stream(command.task_id, command.node_id, command.generation)
        for report in self.reports:
            if report.token == command.token and getattr(report, "kept", ()):
                return kept_records(stream, report.kept)
        return await self.store.artifacts.read(stream, limit=10_000)

    async def listen(self, topic: str, group: str, into: list[Any], decode: Any) -> None:
        async with self.bus.subscribe([topic], group=group, max_unacked=1_000_000) as subscription:
            while True:
                deliveries = await subscription.receive(max_messages=1000)
                into.extend(decode(delivery.message) for delivery in deliveries)
                await subscription.ack(deliveries)
                self._changed.set()


@asynccontextmanager
async def open_bench(
    bus: InMemoryBus, store: InMemoryStore, clock: ManualClock
) -> AsyncIterator[Bench]:
    bench = Bench(bus, store, clock)
    async with anyio.create_task_group() as group:
        group.start_soon(
            bench.listen,
            "flowkit.events",
            "tests",
            bench.reports,
            lambda message: decoded(message.value),
        )
        group.start_soon(
            bench.listen, "flowkit.dlq", "tests", bench.parked, lambda message: message
        )
        yield bench
        group.cancel_scope.cancel()


class Gate:
    """A function handler that waits until its gate opens."""

    def __init__(self) -> None:
        self.running: list[Any] = []
        self.most = 0
        self.order: list[Any] = []
        self.open = anyio.Event()

    async def __call__(self, item: Any) -> None:
        self.order.append(item)
        self.running.append(item)
        self.most = max(self.most, len(self.running))
        try:
            await self.open.wait()
        finally:
            self.running.remove(item)


class FailingBus(InMemoryBus):
    """A bus that refuses to publish to the topics in ``refused``."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: Collection[str] = ()
        self.published: list[Message] = []
        self.error: Exception = BusUnavailable("no broker")

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        if any(message.topic in self.refused for message in messages):
            raise self.error
        self.published += messages
        return await super().publish(messages)
