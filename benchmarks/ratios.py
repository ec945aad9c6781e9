"""FlowKit in memory, compared with a bare loop: whether a change made it slower, in some seconds.

    python -m benchmarks.ratios

A ratio is the processor time of a bare loop, which only encodes and decodes the messages of a node,
divided by FlowKit's for a node. Both run in turns, so the ratio hardly depends on the machine. A
line says whether the ratio is at least the expected one, which leaves room for a busy machine.
Measure a workload that is slower with ``benchmarks.embedded``. The exit status is always 0.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from benchmarks.embedded import bare_loop, chain, cluster, fan, many, run
from flowkit import Coordinator
from flowkit._runtime.garbage_collection import rare_collections

ROUNDS = 5
BARE_NODES = 1_000


@dataclass(frozen=True, slots=True)
class Expectation:
    """A workload, and the lowest ratio that needs no further look."""

    nodes: int
    ratio: float
    work: Callable[[Coordinator], Awaitable[None]]


EXPECTATIONS: Mapping[str, Expectation] = {
    "chain of 100": Expectation(100, 0.03, lambda opened: run(opened, chain(100))),
    "fan of 300": Expectation(302, 0.06, lambda opened: run(opened, fan(300))),
    "300 one-node tasks": Expectation(300, 0.03, lambda opened: many(opened, 300)),
}


def report(name: str, ratio: float, expected: float) -> str:
    verdict = "as expected" if ratio >= expected else "SLOWER than expected"
    return f"{name}: {ratio:.3f} of the bare loop, {verdict} (at least {expected})"


async def ratio_of(opened: Coordinator, one: Expectation) -> float:
    """Return FlowKit's rate divided by that of the bare loop, by processor time."""
    begin = time.process_time()
    await one.work(opened)
    ours = (time.process_time() - begin) / one.nodes
    begin = time.process_time()
    bare_loop(BARE_NODES)
    return (time.process_time() - begin) / BARE_NODES / ours


async def main() -> None:
    async with cluster() as opened:
        await run(opened, fan(300))
        for name, one in EXPECTATIONS.items():
            ratios = [await ratio_of(opened, one) for _ in range(ROUNDS)]
            print(report(name, statistics.median(ratios), one.ratio))


if __name__ == "__main__":
    # As in the processes of `flowkit coordinator` and `flowkit worker`.
    with rare_collections():
        asyncio.run(main())
