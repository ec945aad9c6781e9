"""Many callers that wait for the ends of tasks: in memory, in an SQLite file, and on real servers.

    python -m benchmarks.waiters                  everything; starts both servers
    python -m benchmarks.waiters memory sqlite    without servers

It submits 2,000 one-node tasks and waits for each of them with a timeout: at the same time, and
one after the other, in turns. It prints one JSON object a line. ``ratio`` is the processor time of
this process with waits at the same time, divided by that with one after the other.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import AbstractAsyncContextManager

from benchmarks.servers import say
from benchmarks.waiting import FIRST_NODE, Place, memory, servers, sqlite
from flowkit import Coordinator
from flowkit._runtime.garbage_collection import rare_collections
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers

TASKS = 2_000
AT_ONCE = 500
"""Submissions at the same time."""


async def submit(coordinator: Coordinator) -> list[str]:
    task_ids: list[str] = []
    for _ in range(0, TASKS, AT_ONCE):
        some = (coordinator.create_task(graph=FIRST_NODE) for _ in range(AT_ONCE))
        task_ids += await asyncio.gather(*some)
    return task_ids


async def wait_together(coordinator: Coordinator) -> None:
    task_ids = await submit(coordinator)
    await asyncio.gather(*(coordinator.wait(task_id, timeout=60) for task_id in task_ids))


async def wait_in_turn(coordinator: Coordinator) -> None:
    for task_id in await submit(coordinator):
        await coordinator.wait(task_id, timeout=60)


async def measure(place: AbstractAsyncContextManager[Place], rounds: int) -> None:
    cpu: dict[str, list[float]] = {}
    async with place as opened, opened.coordinator() as coordinator, opened.worker():
        for round_ in range(rounds + 1):  # the first one warms up
            for wait in (wait_together, wait_in_turn):
                used = time.process_time()
                await wait(coordinator)
                if round_:
                    cpu.setdefault(wait.__name__, []).append(time.process_time() - used)
    together, in_turn = (statistics.median(cpu[w.__name__]) for w in (wait_together, wait_in_turn))
    say(
        f"{opened.name}: {TASKS} waits",
        ratio=together / in_turn,
        cpu_milliseconds_a_task=together / TASKS * 1000,
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["memory", "sqlite", "servers"]
    parser.add_argument("places", nargs="*", choices=[[], *names], help="all if none is named")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    # As in the process of `flowkit coordinator`.
    with rare_collections():
        for name in given.places or names:
            if name == "memory":
                asyncio.run(measure(memory(), given.rounds))
            elif name == "sqlite":
                asyncio.run(measure(sqlite(), given.rounds))
            else:
                with KafkaServer.start() as kafka, MongoServers() as mongo:
                    place = servers(kafka.address, mongo.address)
                    asyncio.run(measure(place, given.rounds))


if __name__ == "__main__":
    main()
