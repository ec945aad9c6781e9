"""Handlers for workers that are processes, which record their executions.

Each execution is a line in the file that ``FLOWKIT_TEST_RECORD`` names.
"""

import os
import signal
from pathlib import Path
from typing import Any

import anyio

from flowkit.worker import Batch, BatchResult, Handler, RunContext, handler
from tests.builders import pages


def record(ctx: RunContext, what: str, *which: str) -> None:
    """Append a line for each of these, or for the node; all at once, if the process is killed."""
    end = f"{ctx.attempt} {os.getpid()}"
    lines = [f"{what} {ctx.task_id} {one} {end}\n" for one in which or (ctx.node_id,)]
    with Path(os.environ["FLOWKIT_TEST_RECORD"]).open("a", encoding="utf-8") as file:
        file.write("".join(lines))


@handler("work")
async def work(item: Any, ctx: RunContext) -> Any:
    record(ctx, "ran")
    return item


@handler("gated")
async def gated(item: Any, ctx: RunContext) -> int:
    """Run until the file ``open`` appears beside the record."""
    record(ctx, "began")
    gate = Path(os.environ["FLOWKIT_TEST_RECORD"]).with_name("open")
    while not gate.exists():
        await anyio.sleep(0.02)
    record(ctx, "ran")
    return os.getpid()


@handler("hangs_at_first")
async def hangs_at_first(item: Any, ctx: RunContext) -> None:
    """Hang in the first execution of the node, and end in later ones."""
    file = Path(os.environ["FLOWKIT_TEST_RECORD"])
    lines = file.read_text(encoding="utf-8").splitlines()  # noqa: ASYNC240 - a few lines
    before = [line for line in lines if line.split()[:3] == ["began", ctx.task_id, ctx.node_id]]
    record(ctx, "began")
    if not before:
        await anyio.sleep_forever()
    record(ctx, "ran")


class Reading(Handler):
    """Reader of a stream that is slow enough to be killed in the middle.

    It is slow from the batch with the number in the file ``slow_from`` on, until the gate is open.
    """

    def __init__(self) -> None:
        file = Path(os.environ["FLOWKIT_TEST_RECORD"]).with_name("slow_from")
        self._slow_from = int(file.read_text()) if file.exists() else 0

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        payload = batch.payload
        items = payload["items"] if "items" in payload else [payload["meta"]]
        numbers = [item["n"] for item in items]
        record(ctx, "batch", *map(str, numbers))
        gate = Path(os.environ["FLOWKIT_TEST_RECORD"]).with_name("open")
        if numbers[-1] >= self._slow_from and not gate.exists():
            await anyio.sleep(0.01)
        return BatchResult(success=True, artifacts_ref={"numbers": numbers})


@handler("deadly")
async def deadly(item: Any, ctx: RunContext) -> Any:
    """Kill the process if the input is "die", like a crash in native code."""
    record(ctx, "ran")
    if item == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return item


HANDLERS = {
    "work": work,
    "pages": pages,
    "gated": gated,
    "hangs_at_first": hangs_at_first,
    "reading": Reading,
    "deadly": deadly,
}
