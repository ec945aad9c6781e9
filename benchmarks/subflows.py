"""Sub-flows beside plain nodes: coordinator and worker in one process, in memory.

    python -m benchmarks.subflows                  every workload, one JSON object a line
    python -m benchmarks.subflows chain            only this one

A sub-flow runs a graph with one node that does nothing; a plain node does nothing itself. Both run
in turns, and the figures are medians. ``ratio`` is how many plain nodes a sub-flow takes, by time;
``processor`` is the same by processor time, which other programs of the machine disturb less.
"""

import asyncio
import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.embedded import ROLE, asked, cluster, run, say
from benchmarks.maps import used
from flowkit._runtime.garbage_collection import rare_collections

CHAIN = 10
FAN = 1_000
ROUNDS = {"chain": 50, "fan": 3}
PLAIN = {"type": ROLE}
SUBFLOW = {"type": "subflow", "io": {"graph": {"nodes": [{"node_id": "a", "type": ROLE}]}}}


def chain(node: dict[str, Any]) -> dict[str, Any]:
    """Return a graph of nodes of this kind, one after the other."""
    return {
        "nodes": [
            {"node_id": f"n{i}", "depends_on": [f"n{i - 1}"] if i else [], **node}
            for i in range(CHAIN)
        ]
    }


def fan(node: dict[str, Any]) -> dict[str, Any]:
    """Return a graph of nodes of this kind, side by side."""
    return {"nodes": [{"node_id": f"n{i}", **node} for i in range(FAN)]}


WORKLOADS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {"chain": chain, "fan": fan}


async def measure(name: str, rounds: int) -> None:
    plain, subflow = [], []
    async with cluster() as coordinator:
        for _ in range(10):
            await run(coordinator, chain(PLAIN))
            await run(coordinator, chain(SUBFLOW))
        for _ in range(rounds * ROUNDS[name]):
            plain.append(await used(run(coordinator, WORKLOADS[name](PLAIN))))
            subflow.append(await used(run(coordinator, WORKLOADS[name](SUBFLOW))))
    plain_sec, plain_cpu = (statistics.median(values) for values in zip(*plain, strict=True))
    sub_sec, sub_cpu = (statistics.median(values) for values in zip(*subflow, strict=True))
    say(
        f"{name}: a sub-flow beside a plain node",
        milliseconds=sub_sec * 1000 / (CHAIN if name == "chain" else FAN),
        ratio=sub_sec / plain_sec,
        processor=sub_cpu / plain_cpu,
    )


def main() -> None:
    given = asked(__doc__, WORKLOADS)
    # As in the processes of `flowkit coordinator` and `flowkit worker`.
    with rare_collections():
        for name in given.workloads or WORKLOADS:
            asyncio.run(measure(name, given.rounds))


if __name__ == "__main__":
    main()
