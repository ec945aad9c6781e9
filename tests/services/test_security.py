"""Signatures and codecs over a real Kafka and a real MongoDB."""

from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from examples.encryption.codec import Encryption
from flowkit import Client, Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._codecs.bus_codec import SIGNATURE
from flowkit.config import CommonConfig
from flowkit.messages import TaskTouched, encode
from flowkit.worker import Worker
from tests.builders import work
from tests.services.support import Installation, fan

pytestmark = pytest.mark.services

WITHIN_SEC = 60
SECRET = "tulip-bulb-prices"
KEY = "a signing key for the tests"


async def carried(installation: Installation, topics: list[str], *, until: int) -> list[Any]:
    """Return the messages of these topics, read without FlowKit."""
    found: list[Any] = []
    consumer = AIOKafkaConsumer(
        *topics,
        bootstrap_servers=installation.bus.removeprefix("kafka://"),
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    async with consumer:
        with anyio.fail_after(WITHIN_SEC):
            while len(found) < until:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    found += records
    return found


async def test_signed_flows_run_and_strangers_messages_are_parked(
    installation: Installation,
) -> None:
    common = {**installation.common, "signing_keys": (KEY,)}
    async with (
        Coordinator(cfg=CoordinatorConfig(**common)) as coordinator,
        Worker(cfg=WorkerConfig(**common), handlers=[work]),
    ):
        async with AIOKafkaProducer(
            bootstrap_servers=installation.bus.removeprefix("kafka://")
        ) as stranger:
            for headers in ([], [(SIGNATURE, b"1:" + b"0" * 64)], [(SIGNATURE, None)]):
                await stranger.send_and_wait(
                    coordinator.cfg.events_topic, encode(TaskTouched(task_id="t")), headers=headers
                )
        # Nodes of a chain would share one command.
        task_id = await coordinator.create_task(graph=fan(2))
        assert (await coordinator.wait(task_id, timeout=WITHIN_SEC)).status == "finished"
        parked = await carried(installation, [coordinator.cfg.dead_letter_topic], until=3)
        sent = await carried(installation, [coordinator.cfg.command_topic("work")], until=4)
    reasons = [dict(record.headers)["flowkit-reason"].decode() for record in parked]
    assert sum("is not signed" in reason for reason in reasons) == 1
    assert sum("was changed" in reason for reason in reasons) == 2
    assert all(SIGNATURE in dict(record.headers) for record in sent)


async def test_with_a_codec_kafka_and_mongodb_hold_no_plain_text(
    installation: Installation,
) -> None:
    plugins = [Encryption({"k": bytes(range(32))}, encrypt_with="k")]
    graph = {
        "nodes": [
            {"node_id": "a", "type": "work", "io": {"input_inline": SECRET}},
            {"node_id": "b", "type": "work", "depends_on": ["a"]},
        ]
    }
    cfg = CoordinatorConfig(**installation.common)
    async with (
        Coordinator(cfg=cfg, plugins=plugins),
        Worker(cfg=WorkerConfig(**installation.common), handlers=[work], plugins=plugins),
        Client(cfg=CommonConfig(**installation.common), plugins=plugins) as client,
    ):
        task_id = await client.create_task(graph=graph, params={"name": SECRET})
        view = await client.wait(task_id, timeout=WITHIN_SEC)
        sent = await carried(installation, [cfg.command_topic("work"), cfg.events_topic], until=4)
    assert view.status == "finished"
    assert view.nodes["a"].result == SECRET
    assert not any(SECRET.encode() in record.value for record in sent)
    async with installation.mongo() as mongo:
        database = mongo[installation.namespace]
        documents = [
            document
            for name in await database.list_collection_names()
            for document in await database[name].find().to_list(None)
        ]
    assert any(document["_id"] == task_id for document in documents)
    assert SECRET not in repr(documents)
