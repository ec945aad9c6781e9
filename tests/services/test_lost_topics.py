"""Topics that are deleted while flows run: work continues without a restart."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka.admin import NewTopic

from flowkit import Client
from flowkit.worker import RunContext, handler
from tests.builders import graph, node
from tests.services.support import Installation
from tests.services.test_lost_messages import admin_of

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

WITHIN_SEC = 90
SOON: dict[str, Any] = {"command_check_sec": 0.5, "scheduler_tick_sec": 1, "lease_ttl_sec": 3}


@handler("work")
async def work(item: Any, ctx: RunContext) -> str:
    return ctx.node_id


@handler("other")
async def other(item: Any, ctx: RunContext) -> str:
    return ctx.node_id


def both() -> dict[str, Any]:
    """Return a graph with a node of each role, one after the other."""
    return graph(node("a"), node("b", "other", "a"), node("c", "work", "b"))


@asynccontextmanager
async def at_work(installation: Installation) -> AsyncIterator[Client]:
    """Start two coordinators, two workers and a client."""
    async with (
        installation.coordinator(worker_types=["work", "other"], **SOON),
        installation.coordinator(**SOON),
        installation.worker([work, other]),
        installation.worker([work, other]),
        installation.client() as client,
    ):
        yield client


async def finish(client: Client, count: int) -> None:
    """Submit tasks and check that they finish."""
    task_ids = [await client.create_task(graph=both()) for _ in range(count)]
    for task_id in task_ids:
        assert (await client.wait(task_id, timeout=WITHIN_SEC)).status == "finished"


async def test_topics_that_are_deleted_one_after_the_other_stop_no_flow(
    installation: Installation, kafka_address: str
) -> None:
    cfg = installation.config
    async with at_work(installation) as client, admin_of(kafka_address) as admin:
        await finish(client, 3)
        for topic in (
            cfg.command_topic("work"),
            cfg.events_topic,
            cfg.control_topic,
            cfg.dead_letter_topic,
        ):
            task_ids = [await client.create_task(graph=both()) for _ in range(3)]
            await admin.delete_topics([topic])
            await finish(client, 3)
            for task_id in task_ids:
                assert (await client.wait(task_id, timeout=WITHIN_SEC)).status == "finished"


async def test_a_role_without_a_topic_holds_up_no_other(
    installation: Installation, kafka_address: str
) -> None:
    """No process may create topics, so the role waits until its topic exists again."""
    topic = installation.config.command_topic("other")
    async with installation.worker([work, other]) as maker:
        assert maker.roles == ("work", "other")
    installation.common["options"]["kafka"]["create_topics"] = False
    async with at_work(installation) as client, admin_of(kafka_address) as admin:
        await finish(client, 1)
        await admin.delete_topics([topic])
        stuck = [await client.create_task(graph=graph(node("n", "other"))) for _ in range(3)]
        for _ in range(2):
            task_id = await client.create_task(graph=graph(node("n")))
            assert (await client.wait(task_id, timeout=WITHIN_SEC)).status == "finished"
        assert not [
            task_id for task_id in stuck if (await client.get_task(task_id)).status.terminal
        ]
        await admin.create_topics([NewTopic(topic, 4, 1)])
        for task_id in stuck:
            assert (await client.wait(task_id, timeout=WITHIN_SEC)).status == "finished"
