"""One coordinator and several, with many one-node tasks, on a real Kafka and MongoDB.

    python -m benchmarks.coordinators             1, 2 and 4 coordinators
    python -m benchmarks.coordinators 1 2 --tasks 20000

Coordinators and a worker are processes of their own; this one submits the tasks and waits for them.
It prints one JSON object a line: tasks a second, and the processor time that a coordinator needs
for one of its tasks. ``tasks_a_second_of_cores`` is the number of coordinators divided by that
time: what they reach when each has a core of its own, and nothing else is slower.
"""

import argparse
import asyncio
import statistics
import time
import uuid
from contextlib import ExitStack
from urllib.parse import urlsplit

from benchmarks.processes import processor_seconds
from benchmarks.servers import ROLE, flowkit_worker, process, say
from flowkit import Client, Coordinator, CoordinatorConfig
from flowkit._runtime.garbage_collection import rare_collections
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers

GRAPH = {"nodes": [{"node_id": "n", "type": ROLE}]}
AT_ONCE = 200
"""Submissions at the same time."""


def config(kafka: str, name: str) -> CoordinatorConfig:
    return CoordinatorConfig(bus=f"kafka://{kafka}", namespace=name, worker_types=[ROLE])


def coordinate(kafka: str, db: str, name: str) -> None:
    async def run() -> None:
        async with Coordinator(db=db, cfg=config(kafka, name)):
            await asyncio.Event().wait()

    # As in the process of `flowkit coordinator`.
    with rare_collections():
        asyncio.run(run())


async def submit_and_wait(client: Client, tasks: int) -> None:
    for first in range(0, tasks, AT_ONCE * 10):
        task_ids: list[str] = []
        for _ in range(first, min(first + AT_ONCE * 10, tasks), AT_ONCE):
            task_ids += await asyncio.gather(
                *(client.create_task(graph=GRAPH) for _ in range(AT_ONCE))
            )
        views = await asyncio.gather(*(client.wait(one, timeout=600) for one in task_ids))
        assert all(view.status == "finished" for view in views)


async def measure(kafka: str, mongo: str, count: int, tasks: int, rounds: int) -> float:
    """Measure a number of coordinators, and return what they reach on cores of their own."""
    name = f"bench{uuid.uuid4().hex[:8]}"
    db = urlsplit(mongo)._replace(path=f"/{name}").geturl()
    took, used = [], []
    with ExitStack() as stack:
        stack.enter_context(process(flowkit_worker, kafka, mongo, name))
        pids = [stack.enter_context(process(coordinate, kafka, db, name)) for _ in range(count)]
        async with Client(db=db, cfg=config(kafka, name)) as client:
            for number in range(rounds + 1):  # the first one warms up
                before, begin = processor_seconds(pids), time.perf_counter()
                await submit_and_wait(client, tasks)
                if number:
                    took.append(time.perf_counter() - begin)
                    used.append(processor_seconds(pids) - before)
    cpu_a_task = statistics.median(used) / tasks
    say(
        f"{tasks} tasks, coordinators: {count}",
        tasks_a_second=round(tasks / statistics.median(took)),
        cpu_milliseconds_a_task=cpu_a_task * 1000,
        tasks_a_second_of_cores=round(count / cpu_a_task),
    )
    return count / cpu_a_task


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("counts", nargs="*", type=int, default=[1, 2, 4])
    parser.add_argument("--tasks", type=int, default=4_000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    with rare_collections(), KafkaServer.start() as kafka, MongoServers() as mongo:
        reached = {
            count: asyncio.run(
                measure(kafka.address, mongo.address, count, given.tasks, given.rounds)
            )
            for count in given.counts
        }
    first = given.counts[0]
    for count in given.counts[1:]:
        say(f"coordinators: {count} compared with {first}", ratio=reached[count] / reached[first])


if __name__ == "__main__":
    main()
