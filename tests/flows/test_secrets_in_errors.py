"""Secrets in the errors of handlers appear in no log, view or dead letter."""

import logging
from typing import Any

import pytest

from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from flowkit_testing import Cluster

SECRET = "hunter2hunter2"
TEXTS = (
    f"Authorization: Basic {SECRET}",
    f"401 for {{'Authorization': 'Bearer {SECRET}'}}",
    f"mongodb://user:{SECRET}@host/db is away",
)


@handler("raises")
async def raises(item: Any) -> None:
    raise RuntimeError(item)


class Answers(Handler):
    """A handler that returns a failed batch."""

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        return BatchResult(success=False, error=batch.payload["input_inline"])


@pytest.mark.parametrize("role", ["raises", "answers"])
@pytest.mark.parametrize("text", TEXTS)
async def test_an_error_is_shown_without_its_secrets(
    text: str, role: str, caplog: pytest.LogCaptureFixture
) -> None:
    graph = {
        "nodes": [
            {"node_id": "a", "type": role, "retry_policy": {"max": 0}, "io": {"input_inline": text}}
        ]
    }
    async with Cluster(handlers={"raises": raises, "answers": Answers}) as cluster:
        view = await cluster.run(graph)
        letters = (await cluster.client.dead_letters()).items
    errors = [view.error, view.nodes["a"].error, *(letter.error for letter in letters)]
    assert len(errors) > 2
    assert all(error and "***" in error and SECRET not in error for error in errors)
    assert not [record for record in caplog.records if SECRET in record.getMessage()]


async def test_the_traceback_of_an_error_begins_in_the_handler(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    graph = {"nodes": [{"node_id": "a", "type": "raises", "retry_policy": {"max": 0}}]}
    async with Cluster(handlers=[raises]) as cluster:
        await cluster.run(graph)
    (text,) = [
        logging.Formatter().formatException(record.exc_info)
        for record in caplog.records
        if record.exc_info
    ]
    assert text.count("  File ") == 1
    assert __file__ in text
