"""The bus in an SQLite file, beside the bus in memory.

    python -m benchmarks.sqlite_bus

``hop`` is the time from ``publish`` until ``receive`` returns in the other member, with one message
on its way. ``flood`` counts the messages per second of 50 tasks that publish one message at a time,
received and acknowledged at the same time. ``ratio`` compares with the bus in memory in one run.
"""

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from flowkit.protocols import Bus, Message, TopicSpec
from flowkit_sqlite import SqliteBus
from flowkit_testing import InMemoryBus

VALUE = b"x" * 500
ROUNDS = 500
WARM_UP = 50
FLOOD = 5_000
PUBLISHERS = 50
TOPICS = [TopicSpec("there"), TopicSpec("back")]


async def echo(bus: Bus) -> None:
    """Send each message back."""
    async with bus.subscribe(["there"], group="echo") as subscription:
        await bus.publish([Message("back", b"ready")])
        while True:
            got = await subscription.receive(max_messages=100)
            await subscription.ack(got)
            await bus.publish([Message("back", each.message.value) for each in got])


async def hop(bus: Bus) -> float:
    """Return the median time of a hop in seconds. A member elsewhere echoes."""
    times = []
    async with bus.subscribe(["back"], group="origin") as subscription:
        await subscription.ack(await subscription.receive(max_messages=1))
        for _ in range(WARM_UP + ROUNDS):
            began = time.perf_counter()
            await bus.publish([Message("there", VALUE)])
            await subscription.ack(await subscription.receive(max_messages=1))
            times.append((time.perf_counter() - began) / 2)
    return statistics.median(times[WARM_UP:])


async def flood(bus: Bus) -> float:
    """Return the messages per second that are published, received and acknowledged."""
    left = FLOOD

    async def publish(number: int) -> None:
        for count in range(FLOOD // PUBLISHERS):
            await bus.publish([Message("there", VALUE, f"{number}.{count}")])

    async with (
        bus.subscribe(["there"], group="flood") as subscription,
        asyncio.TaskGroup() as tasks,
    ):
        began = time.perf_counter()
        for number in range(PUBLISHERS):
            tasks.create_task(publish(number))
        while left > 0:
            got = await subscription.receive(max_messages=100)
            await subscription.ack(got)
            left -= len(got)
        return FLOOD / (time.perf_counter() - began)


@asynccontextmanager
async def two(open_bus: Callable[[], Bus]) -> AsyncIterator[tuple[Bus, Bus]]:
    async with open_bus() as first, open_bus() as second:
        await first.ensure_topics(TOPICS)
        yield first, second


async def hop_in_process(open_bus: Callable[[], Bus]) -> float:
    async with two(open_bus) as (first, second):
        task = asyncio.create_task(echo(second))
        try:
            return await hop(first)
        finally:
            task.cancel()
            await asyncio.wait([task])


async def hop_across_processes(path: Path) -> float:
    async with SqliteBus(f"sqlite:///{path}") as bus:
        await bus.ensure_topics(TOPICS)
        other = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.sqlite_bus", "--echo", str(path)
        )
        try:
            return await hop(bus)
        finally:
            other.kill()
            await other.wait()


async def flood_in_process(open_bus: Callable[[], Bus]) -> float:
    async with two(open_bus) as (first, _):
        return await flood(first)


async def run_echo(path: Path) -> None:
    async with SqliteBus(f"sqlite:///{path}") as bus:
        await echo(bus)


def report(name: str, unit: str, memory: float, found: float) -> None:
    print(
        json.dumps(
            {
                "name": name,
                "unit": unit,
                "memory": round(memory, 1),
                "sqlite": round(found, 1),
                "ratio": round(found / memory, 2),
            }
        ),
        flush=True,
    )


async def main(folder: Path) -> None:
    shared = InMemoryBus()
    in_memory = await hop_in_process(lambda: InMemoryBus(broker=shared.broker)) * 1e6
    path = folder / "bus.db"
    in_process = await hop_in_process(lambda: SqliteBus(f"sqlite:///{path}")) * 1e6
    report("hop, one process", "µs", in_memory, in_process)
    across = await hop_across_processes(folder / "processes.db") * 1e6
    report("hop, two processes", "µs", in_memory, across)
    path = folder / "flood.db"
    in_memory = await flood_in_process(lambda: InMemoryBus(broker=shared.broker))
    report(
        "flood, one process",
        "messages/s",
        in_memory,
        await flood_in_process(lambda: SqliteBus(f"sqlite:///{path}")),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--echo", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.echo:
        asyncio.run(run_echo(arguments.echo))
    else:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(main(Path(folder)))
