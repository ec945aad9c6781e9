"""Baseline for the servers: a coordinator and a worker that only send messages and write records.

Each node is one MongoDB document. Each poll of reports is one journalled bulk write, commands are
sent together, and offsets are committed twice a second. There are no retries, leases, recovery or
history. :mod:`benchmarks.servers` measures it beside FlowKit in the same run.
"""

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import BaseModel
from pymongo import AsyncMongoClient, InsertOne, UpdateOne, WriteConcern

Parents = Mapping[str, list[str]]
Key = tuple[str, str]

PAYLOAD = {"input": {"x": 1}, "metrics": {"count": 1}, "filler": "." * 300}
COMMIT_EVERY_SEC = 0.5


class Envelope(BaseModel):
    """A message with as many fields as a real one."""

    message_id: str
    kind: str
    role: str = "noop"
    dedup_id: str
    correlation_id: str
    task_id: str
    node_id: str
    step_type: str = "noop"
    attempt: int = 1
    sent_at: float
    reply_to: str | None = None
    trace_id: str | None = None
    schema_version: str = "1"
    headers: dict[str, str] = {}
    payload: dict[str, Any]


def envelope(kind: str, task_id: str, node_id: str) -> bytes:
    made = Envelope(
        message_id=uuid.uuid4().hex,
        kind=kind,
        dedup_id=f"{task_id}.{node_id}.1.{kind}",
        correlation_id=task_id,
        task_id=task_id,
        node_id=node_id,
        sent_at=time.time(),
        payload=PAYLOAD,
    )
    return made.model_dump_json().encode()


class Reader:
    """Consumer of a topic with one partition, which commits its offsets at intervals."""

    def __init__(self, kafka: str, topic: str, group: str) -> None:
        self._topic = TopicPartition(topic, 0)
        self._consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=kafka,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        self._committed_at = time.monotonic()

    async def __aenter__(self) -> "Reader":
        await self._consumer.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._consumer.stop()

    async def poll(self) -> list[Envelope]:
        polled = await self._consumer.getmany(self._topic, timeout_ms=1000)
        return [
            Envelope.model_validate_json(record.value)
            for records in polled.values()
            for record in records
        ]

    async def done(self) -> None:
        if time.monotonic() - self._committed_at > COMMIT_EVERY_SEC:
            await self._consumer.commit()
            self._committed_at = time.monotonic()


async def send_all(producer: AIOKafkaProducer, topic: str, values: Iterable[bytes]) -> None:
    await asyncio.gather(*[await producer.send(topic, value, partition=0) for value in values])


def producer_for(kafka: str) -> AIOKafkaProducer:
    return AIOKafkaProducer(bootstrap_servers=kafka, acks="all", enable_idempotence=True)


async def work(kafka: str, name: str) -> None:
    """Run a worker that answers every command."""
    async with (
        Reader(kafka, f"{name}.commands", f"{name}.workers") as commands,
        producer_for(kafka) as producer,
    ):
        while True:
            if polled := await commands.poll():
                await send_all(
                    producer,
                    f"{name}.reports",
                    [envelope("done", one.task_id, one.node_id) for one in polled],
                )
                await commands.done()


class BareCoordinator:
    """Coordinator that sends ready nodes and stores reports."""

    def __init__(self, *, mongo: str, kafka: str, name: str) -> None:
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo)
        self._nodes = self._client[name].get_collection(
            "nodes", write_concern=WriteConcern(w=1, j=True)
        )
        self._kafka, self.name = kafka, name
        self._producer = producer_for(kafka)
        self._reports = Reader(kafka, f"{name}.reports", f"{name}.coordinators")

    async def __aenter__(self) -> "BareCoordinator":
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka)
        await admin.start()
        await admin.create_topics(
            [NewTopic(f"{self.name}.{end}", 1, 1) for end in ("commands", "reports")]
        )
        await admin.close()
        await self._nodes.create_index([("task", 1), ("node", 1)], unique=True)
        await self._producer.start()
        await self._reports.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._reports.__aexit__(*exc)
        await self._producer.stop()
        await self._client.drop_database(self.name)
        await self._client.close()

    async def begin(self) -> float:
        """Run a task of one node, and return the seconds from its creation until the worker had its
        command.
        """
        task, created_at = uuid.uuid4().hex[:12], time.time()
        row = {"task": task, "node": "n0", "parents": [], "status": "running", "at": created_at}
        await self._nodes.bulk_write([InsertOne(row)])
        await self._command([(task, "n0")])
        while True:
            for report in await self._reports.poll():
                if report.task_id == task:
                    return report.sent_at - created_at

    async def run(self, graphs: Mapping[str, Parents]) -> None:
        """Run these graphs to their end."""
        missing = {
            (task, node): len(parents)
            for task, graph in graphs.items()
            for node, parents in graph.items()
        }
        children: dict[Key, list[str]] = {}
        for task, graph in graphs.items():
            for node, parents in graph.items():
                for parent in parents:
                    children.setdefault((task, parent), []).append(node)
        running = {key for key, count in missing.items() if not count}
        rows = [
            {
                "task": task,
                "node": node,
                "parents": graphs[task][node][:50],
                "status": "queued" if count else "running",
                "at": time.time(),
            }
            for (task, node), count in missing.items()
        ]
        for first in range(0, len(rows), 2000):
            await self._nodes.bulk_write(
                [InsertOne(row) for row in rows[first : first + 2000]], ordered=False
            )
        await self._command(running)
        left = len(missing)
        while left:
            ended = [
                key
                for one in await self._reports.poll()
                if (key := (one.task_id, one.node_id)) in running
            ]
            if not ended:
                continue
            running.difference_update(ended)
            left -= len(ended)
            ready = []
            for task, node in ended:
                for child in children.get((task, node), ()):
                    missing[task, child] -= 1
                    if not missing[task, child]:
                        ready.append((task, child))
            await self._nodes.bulk_write(
                [*self._moves(ended, "running", "done"), *self._moves(ready, "queued", "running")],
                ordered=False,
            )
            running.update(ready)
            await self._command(ready)
            await self._reports.done()

    def _moves(self, keys: Iterable[Key], before: str, after: str) -> list[UpdateOne]:
        now = time.time()
        return [
            UpdateOne(
                {"task": task, "node": node, "status": before},
                {"$set": {"status": after, "at": now, "metrics": {"count": 1}}},
            )
            for task, node in keys
        ]

    async def _command(self, keys: Iterable[Key]) -> None:
        await send_all(
            self._producer, f"{self.name}.commands", [envelope("run", *key) for key in keys]
        )
