"""Helpers that the tests on real servers share."""

import re
import uuid
from collections.abc import Mapping
from typing import Any

from pymongo import AsyncMongoClient

from flowkit import Client, Coordinator, CoordinatorConfig, TaskEvent, WorkerConfig
from flowkit.config import CommonConfig
from flowkit.worker import Worker
from tests.builders import graph, node

QUICK_KAFKA: dict[str, Any] = {
    "session_timeout_sec": 4.0,
    "heartbeat_interval_sec": 0.5,
    "rebalance_timeout_sec": 5.0,
    "request_timeout_sec": 6.0,
    "metadata_max_age_sec": 1.0,
    "close_timeout_sec": 2.0,
}
"""Settings of a bus whose time limits are a tenth of the defaults."""


class Installation:
    """A namespace and a database on real servers, with the processes that use it."""

    def __init__(
        self, *, kafka: str, mongo: str, kafka_options: Mapping[str, Any] | None = None
    ) -> None:
        self.namespace = f"t{uuid.uuid4().hex[:10]}"
        self._server = mongo
        self.db = re.sub(r"^(mongodb(?:\+srv)?://[^/?]+)/?", rf"\1/{self.namespace}", mongo)
        self.bus = f"kafka://{kafka}"
        self.common: dict[str, Any] = {
            "db": self.db,
            "bus": self.bus,
            "namespace": self.namespace,
            "options": {"kafka": dict(kafka_options or {})},
        }

    def coordinator(self, **fields: Any) -> Coordinator:
        return Coordinator(cfg=CoordinatorConfig(**self.common, **fields))

    def worker(self, handlers: Any, **fields: Any) -> Worker:
        return Worker(cfg=WorkerConfig(**self.common, **fields), handlers=handlers)

    def client(self) -> Client:
        return Client(cfg=CommonConfig(**self.common))

    @property
    def config(self) -> CommonConfig:
        return CommonConfig(**self.common)

    def mongo(self) -> AsyncMongoClient[dict[str, Any]]:
        """The driver's database, to read the documents themselves."""
        return AsyncMongoClient(self._server)

    async def drop(self) -> None:
        """Delete all data of this installation from servers that continue to run."""
        async with self.mongo() as client:
            await client.drop_database(self.namespace)


def fan(width: int, role: str = "work") -> dict[str, Any]:
    """Return a graph of one node, then ``width`` nodes, then one that waits for all of them."""
    branches = [node(f"b{number}", role, "first") for number in range(width)]
    return graph(
        node("first", role),
        *branches,
        node("last", role, *(branch["node_id"] for branch in branches)),
    )


async def events_of(client: Client, task_id: str) -> list[TaskEvent]:
    return [event async for event in client.watch(task_id)]


def ends_of(events: list[TaskEvent]) -> dict[str, list[str]]:
    """Return the recorded terminal statuses of each node, and of the task as ""."""
    ends: dict[str, list[str]] = {}
    for event in events:
        if event.kind == "status" and event.status in (
            "finished",
            "failed",
            "cancelled",
            "skipped",
        ):
            ends.setdefault(event.node_id or "", []).append(event.status)
    return ends
