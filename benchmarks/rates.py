"""Nodes with rates beside plain nodes: coordinator and worker in one process.

    python -m benchmarks.rates                       every workload, one JSON object a line
    python -m benchmarks.rates tight                 only this one
    python -m benchmarks.rates --db sqlite:///FILE --bus sqlite:///FILE

The nodes do nothing, and are side by side. ``one``: 1,000 nodes share a rate that they never
reach. ``many``: each of them has a rate of its own. Both kinds and plain nodes run in turns, and
``ratio`` is the time with rates divided by the time without; medians. ``tight``: 300 nodes at ten
in 0.1 s. ``ratio`` is its time divided by the shortest that the rate allows. ``processor`` compares
the processor time with that of plain nodes, which other programs disturb less.
"""

import argparse
import asyncio
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.embedded import ROLE, run, say
from benchmarks.keys import opened
from benchmarks.sqlite_overhead import Cost, cost
from flowkit import Coordinator
from flowkit._runtime.garbage_collection import rare_collections

NODES, TIGHT_NODES = 1_000, 300
TIGHT_LIMIT, TIGHT_SEC = 10, 0.1
TIGHT = {"key": "tight", "limit": TIGHT_LIMIT, "per_sec": TIGHT_SEC}
LOOSE = {"limit": 100_000, "per_sec": 0.5}


def graph(size: int, rates: Iterator[Mapping[str, Any]] | None) -> dict[str, Any]:
    """Return a graph of nodes side by side."""
    return {
        "nodes": [
            {"node_id": f"n{number}", "type": ROLE}
            | ({} if rates is None else {"rate_limit": next(rates)})
            for number in range(size)
        ]
    }


def rates_of(name: str, size: int) -> Iterator[Mapping[str, Any]]:
    """Yield the rates of the nodes."""
    for number in range(size):
        yield TIGHT if name == "tight" else LOOSE | {"key": f"k{number if name == 'many' else 0}"}


async def measure(name: str, coordinator: Coordinator, rounds: int) -> None:
    size = TIGHT_NODES if name == "tight" else NODES
    plain: list[Cost] = []
    rated: list[Cost] = []
    for _ in range(rounds):
        plain.append(await cost(lambda: run(coordinator, graph(size, None))))
        rated.append(await cost(lambda: run(coordinator, graph(size, rates_of(name, size)))))
    without, with_rates = (statistics.median(one.wall for one in some) for some in (plain, rated))
    used, used_with_rates = (
        statistics.median(one.processor for one in some) for some in (plain, rated)
    )
    ideal = (TIGHT_NODES // TIGHT_LIMIT - 1) * TIGHT_SEC if name == "tight" else without
    say(
        f"{name}: {size} nodes with rates",
        milliseconds=with_rates * 1000 / size,
        plain_milliseconds=without * 1000 / size,
        ratio=with_rates / ideal,
        processor=used_with_rates / used,
    )


async def measure_all(names: list[str], db: str, bus: str, rounds: int) -> None:
    async with opened(db, bus) as coordinator:
        for name in names:
            await measure(name, coordinator, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["one", "many", "tight"]
    parser.add_argument("workloads", nargs="*", choices=[[], *names], help="all if none is named")
    parser.add_argument("--db", default="memory://bench")
    parser.add_argument("--bus", default="memory://bench")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # As in the processes of `flowkit coordinator` and `flowkit worker`.
    with rare_collections():
        asyncio.run(measure_all(given.workloads or names, given.db, given.bus, given.rounds))


if __name__ == "__main__":
    main()
