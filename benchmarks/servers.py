"""FlowKit on a real Kafka and a real MongoDB, compared with a bare loop on the same servers.

    python -m benchmarks.servers                                  starts both servers
    python -m benchmarks.servers --kafka HOST:PORT --mongo URL    uses yours

This process is the coordinator; one more process is the worker. Both run in the event loop of
uvloop where it is installed, also with the bare loop. Writes are journalled, and
messages use ``acks=all``. It prints one JSON object a line; ``ratio`` is FlowKit's figure divided
by the bare loop's.
"""

import argparse
import asyncio
import json
import multiprocessing
import statistics
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.monitoring import CommandListener, CommandStartedEvent

from benchmarks.bare import BareCoordinator, Parents, work
from benchmarks.processes import processor_seconds
from flowkit import Coordinator, CoordinatorConfig, WorkerConfig
from flowkit._runtime.garbage_collection import rare_collections
from flowkit.cli._service_verbs import service_loop
from flowkit.worker import Worker, handler
from tests.servers.kafka import KafkaServer
from tests.servers.mongod import MongoServers

ROLE = "noop"
WRITES = frozenset({"insert", "update", "delete", "findAndModify", "bulkWrite"})


@handler(ROLE)
async def noop(item: Any) -> dict[str, int]:
    return {"x": 1}


@handler("begin")
async def begin(item: Any) -> float:
    return time.time()


@handler("produce")
async def produce(item: int) -> AsyncIterator[dict[str, float]]:
    for _ in range(item):
        yield {"at": time.time()}
        await asyncio.sleep(0.02)


@handler("consume")
async def consume(item: dict[str, float]) -> dict[str, float]:
    return {"late": time.time() - item["at"]}


# ---------------------------------------------------------------- work


def chain(length: int) -> dict[str, list[str]]:
    return {f"n{i}": [f"n{i - 1}"] if i else [] for i in range(length)}


def fan(width: int) -> dict[str, list[str]]:
    return {"s": [], **{f"f{i}": ["s"] for i in range(width)}, "z": [f"f{i}" for i in range(width)]}


def document(parents: Parents) -> dict[str, Any]:
    return {
        "nodes": [
            {"node_id": node, "type": ROLE, "depends_on": above, "io": {"input_inline": {"x": 1}}}
            for node, above in parents.items()
        ]
    }


Run = Callable[[Sequence[Parents]], Awaitable[None]]


async def flowkit_run(coordinator: Coordinator, graphs: Sequence[Parents]) -> None:
    documents = [document(graph) for graph in graphs]
    task_ids = []
    for first in range(0, len(documents), 200):
        some = documents[first : first + 200]
        task_ids += await asyncio.gather(*(coordinator.create_task(graph=one) for one in some))
    for first in range(0, len(task_ids), 200):
        for view in await asyncio.gather(
            *(coordinator.wait(task_id, timeout=600) for task_id in task_ids[first : first + 200])
        ):
            assert view.status == "finished", view.error


async def bare_run(coordinator: BareCoordinator, graphs: Sequence[Parents]) -> None:
    await coordinator.run({uuid.uuid4().hex[:12]: graph for graph in graphs})


async def seconds(run: Run, graphs: Sequence[Parents]) -> float:
    begin = time.perf_counter()
    await run(graphs)
    return time.perf_counter() - begin


# ---------------------------------------------------------------- processes


def bare_worker(kafka: str, name: str) -> None:
    with rare_collections():
        run_in_loop(work(kafka, name))


def flowkit_worker(kafka: str, mongo: str, name: str) -> None:
    async def serve() -> None:
        config = WorkerConfig(bus=f"kafka://{kafka}", namespace=name, max_concurrency=256)
        await Worker(
            db=AsyncMongoClient(mongo)[name], cfg=config, handlers=[noop, begin, produce, consume]
        ).run()

    # As in the process of `flowkit worker`.
    with rare_collections():
        run_in_loop(serve())


def run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    """Run a function in the event loop of the services: that of uvloop where it is installed."""
    with asyncio.Runner(loop_factory=service_loop()) as runner:
        runner.run(main)


@contextmanager
def process(target: Callable[..., None], *arguments: str) -> Iterator[int]:
    """Run a function in a process of its own, and return the id of the process."""
    other = multiprocessing.get_context("spawn").Process(target=target, args=arguments)
    other.start()
    assert other.pid is not None
    try:
        yield other.pid
    finally:
        other.terminate()
        other.join(20)


class Writes(CommandListener):
    """Listener that counts the driver's write commands."""

    def __init__(self) -> None:
        self.count = 0

    def started(self, event: CommandStartedEvent) -> None:
        self.count += event.command_name in WRITES

    def succeeded(self, event: object) -> None: ...
    def failed(self, event: object) -> None: ...


# ---------------------------------------------------------------- measuring


def say(workload: str, **figures: Any) -> None:
    rounded = {
        name: round(value, 3) if isinstance(value, float) else value
        for name, value in figures.items()
    }
    print(json.dumps({"workload": workload, **rounded}), flush=True)


def say_steps(workload: str, took: Sequence[float], floor: Sequence[float]) -> None:
    """Print the milliseconds of steps beside those of the bare loop."""
    ours, theirs = statistics.median(took), statistics.median(floor)
    say(
        workload,
        milliseconds=ours,
        bare_milliseconds=theirs,
        ratio=ours / theirs,
        best=min(took),
        bare_best=min(floor),
    )


async def measure(kafka: str, mongo: str, rounds: int) -> None:
    name = f"bench{uuid.uuid4().hex[:8]}"
    writes = Writes()
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(mongo, event_listeners=[writes])
    config = CoordinatorConfig(
        bus=f"kafka://{kafka}", namespace=name, worker_types=[ROLE, "begin", "produce", "consume"]
    )
    with (
        process(bare_worker, kafka, f"{name}-bare"),
        process(flowkit_worker, kafka, mongo, name) as worker,
    ):
        async with (
            BareCoordinator(mongo=mongo, kafka=kafka, name=f"{name}-bare") as bare,
            Coordinator(db=client[name], cfg=config) as ours,
        ):

            async def run_bare(graphs: Sequence[Parents]) -> None:
                await bare_run(bare, graphs)

            async def run_ours(graphs: Sequence[Parents]) -> None:
                await flowkit_run(ours, graphs)

            for _ in range(3):  # a JVM is slow at first
                for run in (run_bare, run_ours):
                    await run([chain(1) for _ in range(1000)])
                    await run([chain(10)])
            await measure_first_step(bare, ours, rounds)
            await measure_chain(run_bare, run_ours, rounds)
            await measure_bulk(run_bare, run_ours, rounds, worker, writes)
            await measure_stream(ours)
    await client.drop_database(name)
    await client.close()


async def measure_first_step(bare: BareCoordinator, ours: Coordinator, rounds: int) -> None:
    """Measure from the creation of a task until the handler of its first node begins."""
    graph = {"nodes": [{"node_id": "n", "type": "begin"}]}
    floor, took = [], []
    for _ in range(30 * rounds):
        floor.append(await bare.begin() * 1000)
        created_at = time.time()
        task_id = await ours.create_task(graph=graph)
        began_at = (await ours.wait(task_id, timeout=60)).nodes["n"].result
        assert isinstance(began_at, float)
        took.append((began_at - created_at) * 1000)
    say_steps("the first step of a task", took, floor)


async def measure_chain(run_bare: Run, run_ours: Run, rounds: int) -> None:
    floor, took = [], []
    for _ in range(10 * rounds):
        floor.append(await seconds(run_bare, [chain(10)]) * 100)
        took.append(await seconds(run_ours, [chain(10)]) * 100)
    say_steps("a step of a chain of 10", took, floor)


async def measure_bulk(
    run_bare: Run, run_ours: Run, rounds: int, worker: int, writes: Writes
) -> None:
    per_node: dict[str, float] = {}
    for workload, graphs, nodes in (
        ("10000 one-node tasks", [chain(1)] * 10_000, 10_000),
        ("fan of 10000", [fan(10_000)], 10_002),
        ("fan of 100", [fan(100)], 102),
    ):
        floor, took, cpu, written = [], [], [], []
        for _ in range(rounds * (1 if nodes > 1000 else 10)):
            floor.append(await seconds(run_bare, graphs))
            before, used, own = writes.count, processor_seconds([worker]), time.process_time()
            took.append(await seconds(run_ours, graphs))
            cpu.append(time.process_time() - own + processor_seconds([worker]) - used)
            written.append(writes.count - before)
        ours, theirs = statistics.median(took), statistics.median(floor)
        per_node[workload] = ours / nodes
        say(
            workload,
            nodes_a_second=round(nodes / ours),
            bare_nodes_a_second=round(nodes / theirs),
            ratio=theirs / ours,
            cpu_milliseconds_a_node=statistics.median(cpu) / nodes * 1000,
            store_writes_a_node=statistics.median(written) / nodes,
        )
    say("fan: cost a node, 10000 to 100", ratio=per_node["fan of 10000"] / per_node["fan of 100"])


async def measure_stream(coordinator: Coordinator) -> None:
    io = {"start_when": "first_batch", "input_inline": {"input_adapter": "pull.from_artifacts"}}
    nodes = [
        {"node_id": "p", "type": "produce", "io": {"input_inline": 20}},
        {"node_id": "c", "type": "consume", "depends_on": ["p"], "io": io},
    ]
    first = []
    for _ in range(10):
        task_id = await coordinator.create_task(graph={"nodes": nodes})
        await coordinator.wait(task_id, timeout=60)
        late = [artifact.meta["late"] async for artifact in coordinator.artifacts(task_id, "c")]
        first.append(float(str(late[0])) * 1000)
    say(
        "first downstream batch after the first was produced",
        milliseconds=statistics.median(first),
        worst=max(first),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kafka", help="bootstrap servers")
    parser.add_argument("--mongo", help="address")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    # As in the process of `flowkit coordinator`.
    with rare_collections():
        if given.kafka and given.mongo:
            run_in_loop(measure(given.kafka, given.mongo, given.rounds))
            return
        with KafkaServer.start() as kafka, MongoServers() as mongo:
            run_in_loop(measure(kafka.address, mongo.address, given.rounds))


if __name__ == "__main__":
    main()
