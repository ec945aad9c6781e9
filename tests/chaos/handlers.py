"""Handlers for chaos runs, which write the start and the end of each execution to a ledger.

They write the end before the worker reports it. Items are ``{"seconds": …, "value": …}``; ``fails``
is the number of attempts that must fail.
"""

import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio

from flowkit.errors import NodeFailure
from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler, per_run
from tests.chaos.ledger import Ledger

LEDGER_VARIABLE = "FLOWKIT_TEST_LEDGER"
WORKERS = "worker"

_ledger: Ledger | None = None


class Execution:
    """Ledger entries of one execution of a node."""

    def __init__(self, ctx: RunContext) -> None:
        global _ledger
        if _ledger is None:
            _ledger = Ledger(Path(os.environ[LEDGER_VARIABLE]), WORKERS)
        self._ledger = _ledger
        self.id = uuid.uuid4().hex
        self._ids = {
            "task": ctx.task_id,
            "node": ctx.node_id,
            "attempt": ctx.attempt,
            "execution": self.id,
        }
        self.note("began")

    def note(self, what: str, **fields: Any) -> None:
        self._ledger.write(what, **self._ids, **fields)

    def ended(self, **result: Any) -> dict[str, Any]:
        """Write the result to the ledger and return it."""
        whole = {**result, "execution": self.id}
        self.note("ended", result=whole)
        return whole


def fail_if_planned(item: dict[str, Any], ctx: RunContext, execution: Execution) -> None:
    """Fail if this attempt must fail."""
    if ctx.attempt <= item.get("fails", 0):
        execution.note("failed")
        raise NodeFailure(
            "planned by the flow",
            reason_code="planned_failure",
            permanent=item.get("permanent", False),
        )


@handler("work")
async def work(item: dict[str, Any], ctx: RunContext) -> dict[str, Any]:
    execution = Execution(ctx)
    await anyio.sleep(item["seconds"])
    fail_if_planned(item, ctx, execution)
    return execution.ended(
        value=item["value"]
        + sum(result["value"] for result in ctx.results.values() if "execution" in (result or {}))
    )


@handler("block")
def block(item: dict[str, Any], ctx: RunContext) -> dict[str, Any]:
    """Do the same as ``work``, but in a thread that ignores cancellation."""
    execution = Execution(ctx)
    time.sleep(item["seconds"])
    fail_if_planned(item, ctx, execution)
    return execution.ended(
        value=item["value"]
        + sum(result["value"] for result in ctx.results.values() if "execution" in (result or {}))
    )


class Batches(Handler):
    """Base of handlers that write each batch to the ledger."""

    execution: Execution | None = None

    def _began(self, ctx: RunContext) -> Execution:
        if self.execution is None:
            self.execution = Execution(ctx)
        return self.execution

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        execution = self._began(ctx)
        value, seconds = self.read(batch.payload)
        await anyio.sleep(seconds)
        execution.note("batch", uid=batch.batch_uid, value=value)
        return BatchResult(
            True,
            metrics={"batches": 1, "sum": value},
            artifacts_ref={"value": value, "seconds": seconds},
        )

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        return FinalizeResult(result=self._began(ctx).ended(value=0))

    def read(self, payload: Any) -> tuple[int, float]:
        """Return the value and the duration of a batch."""
        return payload["value"], payload["seconds"]


class Produce(Batches):
    """Handler that yields the batches listed in its item."""

    async def load_input(self, input_ref: Any, input_inline: Any) -> Any:
        return input_inline

    async def iter_batches(self, loaded: Any) -> AsyncIterator[Batch]:
        for number, value in enumerate(loaded["values"]):
            yield Batch(f"{number:05}", {"value": value, "seconds": loaded["seconds"]})


class Consume(Batches):
    """Handler that reads the batches of its parents."""

    def read(self, payload: Any) -> tuple[int, float]:
        return super().read(payload["meta"])


HANDLERS = {"work": work, "block": block, "produce": per_run(Produce), "consume": per_run(Consume)}
ROLES = tuple(HANDLERS)
