"""Commands and reports that Kafka confirmed and then lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from flowkit.protocols import TopicSpec
from flowkit.worker import RunContext, handler
from tests.builders import chain, graph, node
from tests.services.support import Installation, fan

pytestmark = pytest.mark.services

WITHIN_SEC = 60
SOON: dict[str, Any] = {"command_check_sec": 0.5, "scheduler_tick_sec": 1, "lease_ttl_sec": 3}


@handler("work")
async def work(item: Any, ctx: RunContext) -> int:
    return ctx.attempt


@asynccontextmanager
async def admin_of(kafka: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def lose_everything(kafka: str, topic: str) -> int:
    """Delete all messages of a topic and return their number."""
    async with AIOKafkaConsumer(bootstrap_servers=kafka) as consumer, admin_of(kafka) as admin:
        await consumer.topics()
        partitions = [TopicPartition(topic, number) for number in range(8)]
        ends = await consumer.end_offsets(partitions)
        starts = await consumer.beginning_offsets(partitions)
        full = {
            partition: RecordsToDelete(before_offset=end)
            for partition, end in ends.items()
            if end > starts[partition]
        }
        await admin.delete_records(full)
        return sum(end - starts[partition] for partition, end in ends.items())


async def test_commands_that_are_deleted_are_sent_again(
    installation: Installation, kafka_address: str
) -> None:
    topic = installation.config.command_topic("work")
    async with installation.coordinator(worker_types=["work"], **SOON) as coordinator:
        task_ids = [
            await coordinator.create_task(graph=graph(*(node(f"n{i}") for i in range(10))))
            for _ in range(3)
        ]
        with anyio.fail_after(WITHIN_SEC):
            while await lose_everything(kafka_address, topic) < 30:
                await anyio.sleep(0.1)
        async with installation.worker([work]):
            views = [await coordinator.wait(task_id, timeout=WITHIN_SEC) for task_id in task_ids]
    assert {view.status for view in views} == {"finished"}
    assert {view.nodes[name].result for view in views for name in view.nodes} == {1}


async def test_commands_of_a_topic_that_is_created_again_are_sent_again(
    installation: Installation, kafka_address: str
) -> None:
    topic = installation.config.command_topic("work")
    async with installation.coordinator(worker_types=["work"], **SOON) as coordinator:
        async with installation.worker([work]):
            before = await coordinator.create_task(graph=fan(50))
            assert (await coordinator.wait(before, timeout=WITHIN_SEC)).status == "finished"
        task_id = await coordinator.create_task(graph=graph(node("n")))
        await anyio.sleep(1)
        async with admin_of(kafka_address) as admin:
            await admin.delete_topics([topic])
            with anyio.fail_after(WITHIN_SEC):
                while await coordinator.bus.outstanding(topic, installation.config.workers_group):
                    await anyio.sleep(0.1)
        await coordinator.bus.ensure_topics([TopicSpec(topic)])
        async with installation.worker([work]):
            view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
    assert (view.status, view.result) == ("finished", {"n": 1})


async def test_reports_that_are_deleted_are_asked_for(
    installation: Installation, kafka_address: str
) -> None:
    """The coordinator is down while the run ends, and the report is deleted before it is back."""
    begun, may_end = anyio.Event(), anyio.Event()
    runs: list[str] = []

    @handler("gated")
    async def gated(item: Any, ctx: RunContext) -> int:
        runs.append(ctx.node_id)
        begun.set()
        await may_end.wait()
        return ctx.attempt

    async with installation.client() as client, installation.worker([gated]):
        async with installation.coordinator(worker_types=["gated"], **SOON):
            task_id = await client.create_task(graph=chain("gated"))
            with anyio.fail_after(WITHIN_SEC):
                await begun.wait()
                while (await client.get_task(task_id)).nodes["n0"].status != "running":
                    await anyio.sleep(0.05)
        await lose_everything(kafka_address, installation.config.events_topic)
        may_end.set()
        with anyio.fail_after(WITHIN_SEC):
            while not await lose_everything(kafka_address, installation.config.events_topic):
                await anyio.sleep(0.1)
        async with installation.coordinator(**SOON):
            view = await client.wait(task_id, timeout=WITHIN_SEC)
    assert (view.status, view.result, runs) == ("finished", {"n0": 1}, ["n0"])
