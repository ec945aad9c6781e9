"""Ten thousand schedules a minute: in memory, in an SQLite file, and on a real Kafka and MongoDB.

    python -m benchmarks.schedules                          everything; starts both servers
    python -m benchmarks.schedules memory sqlite            without servers
    python -m benchmarks.schedules memory --count 1000      fewer schedules
    python -m benchmarks.schedules --puts 100               on a busy machine

``spread`` has schedules of one nominal time each, at random moments of a minute, and ``at once``
has all of them at one moment. The tasks have one coordinator function, so that no worker takes
part. It prints one JSON object a line: the seconds from the nominal time to the task's creation,
and the processor time of the process with the coordinator, as a share of one core.
"""

import argparse
import asyncio
import random
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial

from benchmarks.servers import say
from benchmarks.waiting import Place, memory, servers, sqlite
from flowkit import Client, Schedule
from flowkit._runtime.garbage_collection import rare_collections
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers

MINUTE = 60.0
AT_ONCE = 200
"""Schedules that are put, and tasks that are read, at the same time."""
GRAPH = {"nodes": [{"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}}]}


async def put(client: Client, times: list[float]) -> None:
    """Put a schedule for each of these times."""
    for first in range(0, len(times), AT_ONCE):
        await asyncio.gather(
            *(
                client.put_schedule(
                    Schedule(f"s{number}", graph=GRAPH, at=datetime.fromtimestamp(at, UTC))
                )
                for number, at in enumerate(times[first : first + AT_ONCE], first)
            )
        )


async def delays(client: Client) -> list[float]:
    """Return how many seconds after their nominal times the tasks were made."""
    found: list[float] = []
    after = None
    while True:
        page = await client.list_tasks(limit=AT_ONCE, after=after)
        for task in page.items:
            assert task.schedule_at is not None
            found.append((task.created_at - task.schedule_at).total_seconds())
        after = page.next
        if after is None:
            return found


async def measure_one(place: Place, name: str, count: int, puts_per_sec: float) -> None:
    """Measure schedules that are spread over a minute, or all at one moment."""
    async with place.coordinator():  # creates what is missing
        pass
    async with place.client() as client:
        begin = time.time() + 5 + count / puts_per_sec
        spread = name == "spread"
        times = [begin + (random.random() * MINUTE if spread else 0.0) for _ in range(count)]
        await put(client, times)
        put_in_time = time.time() < begin - 1
        async with place.coordinator():
            await asyncio.sleep(max(begin - time.time(), 0.0))
            used, start = time.process_time(), time.perf_counter()
            await asyncio.sleep(MINUTE)
            share = (time.process_time() - used) / (time.perf_counter() - start)
            await asyncio.sleep(5)
        late = await delays(client)
        say(
            f"{place.name}: {count} schedules, {name}",
            tasks=len(late),
            put_in_time=put_in_time,
            seconds_late_median=statistics.median(late),
            seconds_late_at_most=max(late),
            share_of_a_core=share,
        )


async def measure(
    open_place: Callable[[], AbstractAsyncContextManager[Place]], count: int, puts_per_sec: float
) -> None:
    """Measure schedules of a minute, and of one moment."""
    for name in ("spread", "at once"):
        async with open_place() as place:
            await measure_one(place, name, count, puts_per_sec)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ["memory", "sqlite", "servers"]
    parser.add_argument("places", nargs="*", choices=[[], *names], help="all if none is named")
    parser.add_argument("--count", type=int, default=10_000, help="schedules")
    parser.add_argument(
        "--puts", type=float, default=300, help="schedules that can be put in a second"
    )
    given = parser.parse_args()
    # As in the process of `flowkit coordinator`.
    with rare_collections():
        for name in given.places or names:
            if name == "servers":
                with KafkaServer.start() as kafka, MongoServers() as mongo:
                    place = partial(servers, kafka.address, mongo.address)
                    asyncio.run(measure(place, given.count, given.puts))
            else:
                opened = memory if name == "memory" else sqlite
                asyncio.run(measure(opened, given.count, given.puts))


if __name__ == "__main__":
    main()
