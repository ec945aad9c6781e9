"""Users with only the rights of docs/how-to/deploy.md, on a Kafka that checks rights."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from pydantic import SecretStr

from flowkit import Client, Coordinator, CoordinatorConfig, Trigger, WorkerConfig
from flowkit.changes import TaskChange
from flowkit.cli.verbs import WebhookLetters
from flowkit.clock import SystemClock
from flowkit.config import CommonConfig
from flowkit.errors import TopicUnavailable
from flowkit.plugins import Plugins
from flowkit.protocols import Message, TopicSpec
from flowkit.worker import Worker, handler
from flowkit_kafka import KafkaBus
from flowkit_kafka._config import KafkaConfig
from flowkit_testing import InMemoryStore
from flowkit_web._webhook_config import WebhookConfig
from flowkit_web._webhook_deliveries import WebhookDeliveries, group_of
from tests.builders import chain, graph, node, work
from tests.servers.kafka_fixtures import start_kafka
from tests.servers.kafka_security import (
    ADMIN,
    ALLOW,
    CLUSTER,
    DENY,
    GROUP,
    LITERAL,
    PREFIXED,
    TOPIC,
    Right,
    certificate,
    grant,
    login,
    secured,
)
from tests.services.processes import ROOT
from tests.services.support import QUICK_KAFKA, Installation

pytestmark = [pytest.mark.services, pytest.mark.timeout(300)]

USERS = ("coordinator", "worker", "client", "webhooks", "doctor")
KINDS = {
    "topic": (TOPIC, LITERAL),
    "topic prefix": (TOPIC, PREFIXED),
    "group": (GROUP, LITERAL),
    "group prefix": (GROUP, PREFIXED),
    "cluster": (CLUSTER, LITERAL),
}
WITHIN_SEC = 60
SECRET = "whsec_" + 40 * "A"


def documented() -> Iterator[Right]:
    """Return the rights in the table of the documentation."""
    text = (ROOT / "docs/how-to/deploy.md").read_text(encoding="utf-8")
    table = text.split("| user | resource | operations |\n", 1)[1].split("\n\n", 1)[0]
    for row in table.splitlines()[1:]:
        who, resource, operations = (cell.strip() for cell in row.strip("|").split("|"))
        kind, pattern = KINDS[resource.split("`")[0].strip()]
        names = re.findall(r"`([^`]+)`", resource) or ["kafka-cluster"]
        for user in USERS if who.startswith("all") else (who.split(",")[0],):
            for name in names:
                for operation in operations.split(", "):
                    yield Right(user, kind, name, operation, pattern, ALLOW)


@handler("denied")
async def denied(item: Any) -> None: ...


async def test_the_documented_rights_are_enough_and_a_role_without_them_holds_up_no_other(
    mongo_address: str, tmp_path: Path
) -> None:
    begun = anyio.Event()

    @handler("endless")
    async def endless(item: Any) -> None:
        begun.set()
        await anyio.sleep_forever()

    pem = certificate(tmp_path)
    with start_kafka(**secured(pem, USERS)) as server:
        installation = Installation(kafka=server.address, mongo=mongo_address)

        def common(user: str, **kafka: Any) -> dict[str, Any]:
            options = {**QUICK_KAFKA, **login(user, pem), **kafka}
            return {**installation.common, "namespace": "flowkit", "options": {"kafka": options}}

        refused = [
            Right("worker", TOPIC, "flowkit.cmd.denied", "Read", permission=DENY),
            Right("coordinator", TOPIC, "flowkit.cmd.refused", "Write", permission=DENY),
        ]
        own_topic = [
            Right("coordinator", TOPIC, "orders", operation)
            for operation in ("Describe", "Read", "Write")
        ]
        await grant(server.address, pem, [*documented(), *own_topic, *refused])
        await create_topic(server.address, pem, "orders")
        roles = ["work", "endless", "denied", "refused"]
        async with (
            Coordinator(
                cfg=CoordinatorConfig(
                    **common("coordinator", publish_topics=["orders"]),
                    worker_types=roles,
                    cancel_grace_sec=60,
                    publish_changes=True,
                )
            ) as coordinator,
            Worker(cfg=WorkerConfig(**common("worker")), handlers=[work, endless, denied]),
            Client(cfg=CommonConfig(**common("client"))) as client,
        ):
            stuck = [
                await client.create_task(graph=graph(node("n", role)))
                for role in ("denied", "refused")
            ]
            task_id = await client.create_task(graph=chain("work", "work"))
            assert (await client.wait(task_id, timeout=WITHIN_SEC)).status == "finished"
            changes = await published(server.address, pem, task_id)
            assert [one.seq for one in changes] == [*range(1, 10)]
            assert (changes[-1].node_id, changes[-1].status) == (None, "finished")
            await posted(CommonConfig(**common("webhooks")), task_id)
            # The control topic works: a cancelled run ends long before its grace period.
            task_id = await client.create_task(graph=chain("endless"))
            with anyio.fail_after(WITHIN_SEC):
                await begun.wait()
            await client.cancel(task_id)
            assert (await client.wait(task_id, timeout=WITHIN_SEC - 20)).status == "cancelled"
            # Records of a topic that is not FlowKit's own.
            source = f"{installation.bus}/orders"
            await client.put_trigger(Trigger("orders", source=source, graph=chain("work")))
            publish = {"fn": "kafka.publish", "fn_args": {"topic": "orders", "value": 1}}
            task_id = await client.create_task(graph=graph(node("n", "coordinator_fn", io=publish)))
            assert (await client.wait(task_id, timeout=WITHIN_SEC)).status == "finished"
            with anyio.fail_after(WITHIN_SEC):
                while "orders" not in {one.trigger for one in (await client.list_tasks()).items}:
                    await anyio.sleep(0.1)
            # Dead letters of a coordinator and of a worker.
            async with KafkaBus(installation.bus, client.cfg) as bus:
                await bus.publish([Message("flowkit.events", b"poison")])
            await coordinator.bus.publish([Message("flowkit.cmd.work", b"poison")])
            with anyio.fail_after(WITHIN_SEC):
                while len((await client.dead_letters()).items) < 2 or await dead(coordinator) < 2:
                    await anyio.sleep(0.1)
            with pytest.raises(TopicUnavailable, match=r"flowkit\.cmd\.refused"):
                await coordinator.bus.publish([Message("flowkit.cmd.refused", b"x")])
            assert {(await client.get_task(one)).nodes["n"].status for one in stuck} == {"queued"}
            cfg = CommonConfig(**common("doctor", max_message_bytes=2_000_000))
            async with KafkaBus(installation.bus, cfg) as bus:
                results = {
                    result.name: result for result in await bus.check([TopicSpec("flowkit.events")])
                }
                waiting = await bus.outstanding("flowkit.changes", group_of("flowkit", "a"))
        assert waiting is not None
        assert results["kafka"].ok
        assert "accepts" in results["topic flowkit.events"].detail
    await installation.drop()


async def create_topic(address: str, pem: Path, topic: str) -> None:
    admin = AIOKafkaAdminClient(
        bootstrap_servers=address, **KafkaConfig(**login(ADMIN, pem)).connection()
    )
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def published(address: str, pem: Path, task_id: str) -> list[TaskChange]:
    """Return the changes of a task that ends, as a program reads them that is not FlowKit."""
    found: list[TaskChange] = []
    async with AIOKafkaConsumer(
        "flowkit.changes",
        bootstrap_servers=address,
        auto_offset_reset="earliest",
        **KafkaConfig(**login(ADMIN, pem)).connection(),
    ) as consumer:
        with anyio.fail_after(WITHIN_SEC):
            async for message in consumer:
                assert ("flowkit-version", b"1") in message.headers
                if message.key == task_id.encode():
                    found.append(TaskChange.model_validate_json(message.value))
                    if found[-1].node_id is None and found[-1].status == "finished":
                        return found
    raise AssertionError("the topic has ended")


async def posted(cfg: CommonConfig, task_id: str) -> None:
    """Wait until a webhook has posted the end of a task."""
    is_posted = anyio.Event()

    async def post(body: bytes, headers: Mapping[str, str]) -> None:
        change = TaskChange.model_validate_json(body)
        if (change.task_id, change.node_id, change.status) == (task_id, None, "finished"):
            is_posted.set()

    webhook = WebhookConfig(url="https://example.org/", secrets=(SecretStr(SECRET),))
    async with KafkaBus(cfg.bus_address(), cfg) as bus, anyio.create_task_group() as group:
        await bus.ensure_topics([TopicSpec(cfg.changes_topic)])
        deliveries = WebhookDeliveries(
            webhook,
            bus=bus,
            topic=cfg.changes_topic,
            group=group_of(cfg.namespace, "a"),
            clock=SystemClock(),
            letters=WebhookLetters("a", InMemoryStore(), SystemClock(), Plugins(discover=False)),
        )
        group.start_soon(deliveries.run, post)
        with anyio.fail_after(WITHIN_SEC):
            await is_posted.wait()
        group.cancel_scope.cancel()


async def dead(coordinator: Coordinator) -> int:
    """Return the number of messages in the topic of dead letters."""
    positions = await coordinator.bus.outstanding("flowkit.dlq", "flowkit.workers")
    return sum(end - first for first, end in positions.values())
