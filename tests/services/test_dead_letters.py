"""Dead letters on real servers are listed and redriven, and removed after a success."""

from collections import Counter

import anyio
import pytest
from aiokafka import AIOKafkaProducer

from flowkit import Client
from flowkit.messages import RunNode, encode
from flowkit.task import DeadLetter
from tests.builders import graph, node
from tests.flows.test_failed_batches import Rows
from tests.services.support import Installation

pytestmark = pytest.mark.services

WITHIN_SEC = 60


async def letters_of(client: Client, kind: str) -> list[DeadLetter]:
    """Return the letters of a kind as soon as there is one."""
    with anyio.fail_after(WITHIN_SEC):
        while not (found := (await client.dead_letters(kind=kind)).items):
            await anyio.sleep(0.05)
    return found


async def test_a_bad_batch_is_tried_alone_kept_and_tried_again_when_it_is_asked_for(
    installation: Installation,
) -> None:
    rows = Rows()
    flow = graph(
        node("rows", io={"input_inline": list("abcd")}, retry_policy={"max": 1, "backoff_sec": 0.1})
    )
    async with (
        installation.coordinator(worker_types=["work"]) as coordinator,
        installation.worker({"work": rows}),
    ):
        task_id = await coordinator.create_task(graph=flow)
        failed = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        assert (failed.status, failed.nodes["rows"].attempt) == ("failed", 1)
        assert Counter(rows.seen) == {"a": 1, "b": 2, "c": 1, "d": 1}
        (letter,) = await letters_of(coordinator, "batch")
        assert (letter.task_id, letter.uid, letter.data, letter.error) == (
            task_id,
            "b",
            b'{"row":"b"}',
            "RuntimeError: cannot",
        )
        rows.bad.clear()
        (outcome,) = await coordinator.retry_dead_letters([letter.letter_id])
        assert outcome.done
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        stored = sorted(
            [str(artifact.meta["row"]) async for artifact in coordinator.artifacts(task_id)]
        )
        left = (await coordinator.dead_letters()).items
    assert (view.status, view.nodes["rows"].metrics) == ("finished", {"rows": 4})
    assert (stored, left) == (list("abcd"), [])
    assert Counter(rows.seen) == {"a": 1, "b": 3, "c": 1, "d": 1}


async def test_an_unreadable_message_is_sent_again_to_its_topic(
    installation: Installation, kafka_address: str
) -> None:
    """The message is a command for another role on the topic of the worker's role."""
    topic = installation.config.command_topic("work")
    lost = encode(RunNode(task_id="t", index=0, attempt=1, token="t", node_id="n", role="other"))
    async with (
        installation.coordinator(worker_types=["work"]) as coordinator,
        installation.worker({"work": Rows()}),
    ):
        async with AIOKafkaProducer(bootstrap_servers=kafka_address) as producer:
            await producer.send_and_wait(topic, lost, key=b"t.0")
        (letter,) = await letters_of(coordinator, "message")
        assert (letter.topic, letter.key, letter.data) == (topic, "t.0", lost)
        (outcome,) = await coordinator.retry_dead_letters([letter.letter_id])
        assert outcome.done
        (again,) = await letters_of(coordinator, "message")
        assert (again.topic, again.key, again.data) == (topic, "t.0", lost)
        assert (again.partition, again.position) != (letter.partition, letter.position)
        assert await coordinator.drop_dead_letters([again.letter_id]) == 1
        assert (await coordinator.dead_letters()).items == []


async def test_a_finished_task_reruns_for_a_skipped_batch_and_a_failed_function_for_its_letter(
    installation: Installation,
) -> None:
    rows = Rows()
    skipping = node(
        "rows", io={"input_inline": list("ab")}, retry_policy={"max": 0}, on_batch_failure="skip"
    )
    failing = node(
        "call",
        "coordinator_fn",
        io={"fn": "vars.incr", "fn_args": {"key": "n", "by": "much"}},
        routing={"on_failure": ["rows"]},
    )
    async with (
        installation.coordinator(worker_types=["work"]) as coordinator,
        installation.worker({"work": rows}),
    ):
        task_id = await coordinator.create_task(graph=graph(failing, skipping))
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        assert (view.status, view.nodes["rows"].skipped_batches, view.nodes["call"].status) == (
            "finished",
            1,
            "failed",
        )
        (failed,) = await letters_of(coordinator, "node")
        assert (failed.node_id, failed.reason_code, failed.attempt) == ("call", "bad_input", 1)
        rows.bad.clear()
        (letter,) = await letters_of(coordinator, "batch")
        assert [
            outcome.done for outcome in await coordinator.retry_dead_letters([letter.letter_id])
        ] == [True]
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        assert (view.status, view.nodes["rows"].skipped_batches, rows.seen) == (
            "finished",
            0,
            ["a", "b", "b"],
        )
        assert [found.letter_id for found in (await coordinator.dead_letters()).items] == [
            failed.letter_id
        ]
        assert [
            outcome.done for outcome in await coordinator.retry_dead_letters([failed.letter_id])
        ] == [True]
        view = await coordinator.wait(task_id, timeout=WITHIN_SEC)
        (again,) = await letters_of(coordinator, "node")
    assert (view.status, view.nodes["rows"].attempt, again.attempt) == ("finished", 3, 2)
