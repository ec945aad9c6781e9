"""The coordinator function ``kafka.publish``."""

import json
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from flowkit import Client, Coordinator, CoordinatorConfig, TaskView
from flowkit_testing import Cluster
from tests.builders import graph, node
from tests.kafka.crashing_publisher import Publishing, coordinator_on
from tests.kafka.support import QUICK, WITHIN_SEC, unique

NO_BROKER = "localhost:1"


def publishing(**args: Any) -> dict[str, Any]:
    io = {"fn": "kafka.publish", "fn_args": {"topic": "orders", "value": 1, **args}}
    return graph(node("tell", "coordinator_fn", io=io, retry_policy={"max": 0}))


async def refusal(args: dict[str, Any], **kafka: Any) -> tuple[str | None, str]:
    """Publish where no broker is, and return the reason code and the error of the node."""
    options = {"publish_topics": ["orders"], "publish_bootstrap": NO_BROKER, **kafka}
    config = CoordinatorConfig(options={"kafka": options}, topic_status_fmt="orders.events")
    async with Cluster(coordinator_config=config) as cluster:
        tell = (await cluster.run(publishing(**args))).nodes["tell"]
    return tell.reason_code, tell.error or ""


@pytest.mark.parametrize(
    ("args", "kafka", "reason", "text"),
    [
        ({"topic": "bills"}, {}, "topic_not_allowed", "'bills' is not in options.kafka.publish_t"),
        ({}, {"publish_topics": []}, "topic_not_allowed", "not in options.kafka.publish_topics"),
        ({"topic": 7}, {}, "bad_input", "topic must be a text, not int"),
        ({"key": 7}, {}, "bad_input", "key must be a text or null, not int"),
        ({"headers": ["a"]}, {}, "bad_input", "headers must be an object, not list"),
        ({"headers": {"n": 1}}, {}, "bad_input", "header 'n' must be a text, not int"),
        ({"headers": {"flowkit-topic": ""}}, {}, "bad_input", "'flowkit-' are FlowKit's own"),
        ({"colour": "red"}, {}, "bad_input", "unexpected keyword argument 'colour'"),
        ({"value": "a" * 1_000}, {"max_message_bytes": 1_000}, "message_too_large", "1,002 bytes"),
        ({}, {"publish_bootstrap": None}, "not_configured", "publish_bootstrap is missing"),
        ({}, {"publish_bootstrap": "a b"}, "not_configured", "'kafka://a b' is not"),
        ({}, {"publish_topics": ["orders", "a b"]}, "not_configured", "topic 2: 'a b' is not a t"),
        ({}, {"publish_topics": ["__transaction_state"]}, "not_configured", "holds the state of"),
        ({}, {"publish_topic": "orders"}, "not_configured", "did you mean 'publish_topics'"),
    ],
)
async def test_a_message_that_cannot_be_published_fails_its_node_for_good(
    args: dict[str, Any], kafka: dict[str, Any], reason: str, text: str
) -> None:
    found, error = await refusal(args, **kafka)
    assert found == reason
    assert text in error


@pytest.mark.parametrize(
    "topic", ["flowkit.control", "flowkit.dlq", "orders.events", "flowkit.cmd.any-role"]
)
async def test_nothing_is_published_to_topics_of_flowkit_though_they_are_allowed(
    topic: str,
) -> None:
    found, error = await refusal({"topic": topic}, publish_topics=["orders", topic])
    assert found == "not_configured"
    assert f"publish_topics: {topic!r} is a topic of this FlowKit installation" in error


async def test_brokers_that_cannot_be_reached_are_tried_again() -> None:
    options = {"publish_topics": ["orders"], "publish_bootstrap": NO_BROKER, "patience_sec": 0.1}
    tell = publishing()
    tell["nodes"][0]["retry_policy"] = {"max": 2}
    config = CoordinatorConfig(options={"kafka": options})
    async with Cluster(coordinator_config=config) as cluster:
        view = (await cluster.run(tell)).nodes["tell"]
    assert (view.reason_code, view.attempt) == ("kafka_unavailable", 3)


# ---------------------------------------------------------------- with brokers


@pytest.fixture
async def admin(kafka_address: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=kafka_address)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


@pytest.fixture
async def topic(admin: AIOKafkaAdminClient) -> str:
    name = unique("orders")
    await admin.create_topics([NewTopic(name, 3, 1)])
    return name


async def records(address: str, topic: str, count: int) -> list[Any]:
    """Return the records of a topic, read without FlowKit."""
    found: list[Any] = []
    async with AIOKafkaConsumer(
        topic, bootstrap_servers=address, auto_offset_reset="earliest"
    ) as consumer:
        with anyio.fail_after(WITHIN_SEC):
            while len(found) < count:
                for batch in (await consumer.getmany(timeout_ms=500)).values():
                    found += batch
    return found


async def published(graph: Any, address: str, *allowed: str, **fields: Any) -> TaskView:
    config = CoordinatorConfig(
        options={"kafka": {**QUICK, "publish_topics": list(allowed), "publish_bootstrap": address}}
    )
    async with Coordinator(db=f"memory://{unique('s')}", cfg=config) as coordinator:
        task_id = await coordinator.create_task(graph=graph, **fields)
        return await coordinator.wait(task_id, timeout=WITHIN_SEC)


@pytest.mark.services
async def test_each_node_publishes_its_record_with_a_header_that_names_it(
    kafka_address: str, topic: str
) -> None:
    io = {
        "fn": "kafka.publish",
        "fn_args": {
            "topic": topic,
            "key": "${item.shop}",
            "value": "${item}",
            "headers": {"kind": "sale"},
        },
    }
    items = [{"shop": f"s{number % 3}", "sum": number} for number in range(12)]
    told = node("tell/all", "coordinator_fn", io=io, map={"over": items})
    before = time.time()
    view = await published(graph(told), kafka_address, topic, task_id="t%1")
    assert view.status == "finished"
    came = await records(kafka_address, topic, len(items))
    assert sorted(json.loads(record.value)["sum"] for record in came) == list(range(12))
    for record in came:
        value = json.loads(record.value)
        assert record.key == value["shop"].encode()
        assert record.timestamp / 1000 >= before - 1
        identity = f"t%251/tell%2Fall[{value['sum']}]".encode()
        assert dict(record.headers) == {"kind": b"sale", "flowkit-idempotency-key": identity}
        place = view.result["tell/all"][value["sum"]]
        assert place == {"partition": record.partition, "offset": record.offset}


@pytest.mark.services
async def test_a_key_has_the_partition_that_other_clients_of_kafka_choose(
    kafka_address: str, topic: str
) -> None:
    keys = [f"key-{number}" for number in range(8)]
    fn_args = {"topic": topic, "key": "${item}", "value": None}
    io = {"fn": "kafka.publish", "fn_args": fn_args}
    tell = node("tell", "coordinator_fn", io=io, map={"over": keys})
    view = await published(graph(tell), kafka_address, topic)
    async with AIOKafkaProducer(bootstrap_servers=kafka_address) as other:
        theirs = [(await other.send_and_wait(topic, b"", key.encode())).partition for key in keys]
    assert [place["partition"] for place in view.result["tell"]] == theirs
    assert {record.value for record in await records(kafka_address, topic, 16)} == {b"null", b""}


@pytest.mark.services
async def test_a_topic_that_does_not_exist_is_tried_again_and_never_created(
    kafka_address: str, admin: AIOKafkaAdminClient
) -> None:
    name = unique("missing")
    view = await published(publishing(topic=name), kafka_address, name)
    assert view.nodes["tell"].reason_code == "topic_unavailable"
    assert f"topic {name!r} does not exist" in (view.nodes["tell"].error or "")
    assert name not in await admin.list_topics()


@pytest.mark.services
async def test_a_record_is_published_again_after_a_crash_with_the_same_header(
    kafka_address: str, topic: str, tmp_path: Path
) -> None:
    path = str(tmp_path / "flowkit.db")
    tell = publishing(topic=topic, key="k")
    tell["nodes"][0]["io"]["fn"] = "publish"
    plugins = [Publishing(killed=False)]
    async with Client(db=f"sqlite:///{path}", plugins=plugins) as client:
        task_id = await client.create_task(graph=tell)
        command = [sys.executable, "-m", "tests.kafka.crashing_publisher"]
        with anyio.fail_after(WITHIN_SEC):
            await anyio.run_process([*command, path, kafka_address, topic], check=False)
        assert len(await records(kafka_address, topic, 1)) == 1
        async with coordinator_on(path, kafka_address, topic, killed=False):
            view = await client.wait(task_id, timeout=WITHIN_SEC)
    assert view.status == "finished"
    headers = [dict(record.headers) for record in await records(kafka_address, topic, 2)]
    assert headers == [{"flowkit-idempotency-key": f"{task_id}/tell".encode()}] * 2
