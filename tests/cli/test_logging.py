"""Log lines say which task they are about."""

import logging
from typing import Any

import pytest

from flowkit.cli._logging import PlainLines
from flowkit.worker import handler
from flowkit_testing import Cluster


def line(message: str, **extra: Any) -> str:
    record = logging.LogRecord("flowkit", logging.INFO, __file__, 1, message, (), None)
    vars(record).update(extra)
    return PlainLines("%(levelname)s %(message)s").format(record)


def test_a_line_of_text_ends_with_the_ids_that_its_message_does_not_have() -> None:
    assert line("it broke", task_id="t1", node_id="a") == "INFO it broke (task t1, node a)"
    assert line("Node a broke", task_id="t1", node_id="a") == "INFO Node a broke (task t1)"
    assert line("Task t1 started", task_id="t1") == "INFO Task t1 started"
    assert line("ready") == "INFO ready"
    assert line("it broke", task_id="t\n1") == "INFO it broke (task t\\n1)"


@handler("work")
async def work(item: Any) -> Any:
    if item == "bad":
        raise ValueError("not good")
    return item


async def test_a_coordinator_logs_the_start_and_the_end_of_each_task(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowkit")
    async with Cluster(handlers=[work]) as cluster:
        good = await cluster.run({"nodes": [{"node_id": "a", "type": "work"}]})
        bad = await cluster.run({"nodes": [{"node_id": "a", "type": "work", "io": {"input_inline": "bad"}}]})
        stopped = await cluster.client.create_task(graph={"nodes": [{"node_id": "a", "type": "nobody"}]})
        await cluster.client.cancel(stopped, "no longer needed")
        await cluster.client.wait(stopped)
    said = {
        (record.__dict__["action"], record.__dict__["task_id"]): record
        for record in caplog.records
        if record.__dict__.get("action", "").startswith("task_")
    }
    started = {("task_started", good.id), ("task_started", bad.id)}
    assert set(said) == started | {("task_finished", good.id), ("task_failed", bad.id), ("task_cancelled", stopped)}
    assert said["task_failed", bad.id].getMessage().endswith("node 'a' failed: bad_input: ValueError: not good")
    assert said["task_failed", bad.id].levelno == logging.WARNING
    assert said["task_cancelled", stopped].getMessage().endswith(": no longer needed")
