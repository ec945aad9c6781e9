"""The handlers of the flow in ``flow.py``. The task's param ``log`` is the path of a log file that
all workers can read.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import anyio.to_thread

from flowkit.worker import Batch, BatchResult, FinalizeResult, Handler, RunContext, handler

BATCH_BYTES = 16_384


class Map(Handler):
    """Count the requests in one part of the file, one range of bytes per batch.

    The uid of a batch is its range. It is the same in every attempt, so stored ranges are not
    counted again. Counting runs in a thread, so that heartbeats continue.
    """

    async def init(self, run_info: Mapping[str, Any]) -> None:
        self.log = Path(run_info["params"]["log"])

    async def iter_batches(self, loaded: Mapping[str, Any]) -> AsyncIterator[Batch]:
        part, parts = loaded["input_inline"]["part"], loaded["input_inline"]["parts"]
        size = self.log.stat().st_size
        begin, end = size * part // parts, size * (part + 1) // parts
        for first in range(begin, end, BATCH_BYTES):
            last = min(first + BATCH_BYTES, end)
            yield Batch(
                f"{first}-{last}",
                {"begin": first, "end": last, "done": last - begin, "total": end - begin},
            )

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        counts = await anyio.to_thread.run_sync(
            count_requests, self.log, batch.payload["begin"], batch.payload["end"]
        )
        ctx.heartbeat({"done": batch.payload["done"], "total": batch.payload["total"]})
        return BatchResult(success=True, metrics=sums_of(counts), artifacts_ref=counts)

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        counts = merged([stored async for stored in ctx.artifacts.read()])
        return FinalizeResult(result={ctx.node_id: sums_of(counts)})


class Reduce(Handler):
    """Add up the counts of all parts.

    It keeps the counts as artifacts, not in the object, because another worker may take over at any
    batch.
    """

    async def process_batch(self, batch: Batch, ctx: RunContext) -> BatchResult:
        counts = batch.payload["meta"]
        return BatchResult(success=True, metrics=sums_of(counts), artifacts_ref=counts)

    async def finalize(self, ctx: RunContext) -> FinalizeResult:
        return FinalizeResult(result=merged([stored async for stored in ctx.artifacts.read()]))


@handler("report")
async def report(item: Any, ctx: RunContext) -> dict[str, Any]:
    """Return the counts by path and by part as tables that ``flowkit run`` prints."""
    columns = ["requests", "errors", "bytes"]
    by_path, by_part = ctx.results["reduce"], ctx.results["by_part"]
    return {
        "totals": ctx.results["totals"]["metrics"],
        "tables": [
            {
                "title": "Paths",
                "columns": ["path", *columns],
                "rows": [[path, *by_path[path]] for path in sorted(by_path)],
            },
            {
                "title": "Parts",
                "columns": ["part", *columns],
                "rows": [[part, *by_part[part].values()] for part in sorted(by_part)],
            },
        ],
    }


# ---------------------------------------------------------------- counting

Counts = dict[str, list[int]]
"""Numbers of requests, errors and bytes, by URL path."""


def lines_in(path: Path, begin: int, end: int) -> Iterator[str]:
    """Yield the lines that begin in this range of bytes.

    Each line of the file begins in exactly one of several adjoining ranges.
    """
    with path.open("rb") as file:
        if begin > 0:
            file.seek(begin - 1)
            file.readline()
        while file.tell() < end and (line := file.readline()):
            yield line.decode("ascii")


def count_requests(path: Path, begin: int, end: int) -> Counts:
    """Count the requests whose lines begin in this range of bytes."""
    counts: Counts = {}
    for line in lines_in(path, begin, end):
        _, _, url, status, size = line.split()
        add(counts.setdefault(url, [0, 0, 0]), [1, int(status) >= 500, int(size)])
    return counts


def merged(several: list[Counts]) -> Counts:
    total: Counts = {}
    for counts in several:
        for url, numbers in counts.items():
            add(total.setdefault(url, [0, 0, 0]), numbers)
    return total


def add(total: list[int], numbers: list[int]) -> None:
    total[:] = [one + other for one, other in zip(total, numbers, strict=True)]


def sums_of(counts: Counts) -> dict[str, int]:
    requests, errors, size = (
        (sum(column) for column in zip(*counts.values(), strict=True)) if counts else (0, 0, 0)
    )
    return {"requests": requests, "errors": errors, "bytes": size}


HANDLERS = {"map": Map, "reduce": Reduce, "report": report}
