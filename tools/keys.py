"""Check concurrency keys on real servers: ``python tools/keys.py --minutes 5``.

Coordinators and workers are processes on Kafka and MongoDB, and are killed at random while nodes
with keys run. The handlers write the start and the end of each run to ledgers outside FlowKit. The
exit status is 1 if two runs of nodes with one key overlap, or a task does not finish.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import anyio
import anyio.to_thread

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from flowkit import Client
from tests.builders import graph, node
from tests.chaos.cluster import Cluster
from tests.chaos.flows import PATIENT
from tests.chaos.handlers import WORKERS
from tests.chaos.ledger import Line, read_ledgers

NODES = 20
"""Nodes of a task."""
QUIET_SEC = 600.0
"""Time in which all tasks end after the last kill."""

Keys = dict[tuple[str, str], str]
"""Keys of nodes, by task and node."""
Kills = dict[int, float]
"""Times at which processes were dead, by process id."""


class Killer:
    """Kills a coordinator or worker every few seconds, and starts another one in its place."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        self.kills: Kills = {}
        self._slots = [*cluster.slots_of("coordinator"), *cluster.slots_of("worker")]
        self._chance = chance
        self._stopped = threading.Event()

    def run(self) -> None:
        while not self._stopped.wait(self._chance.uniform(0.5, 5.0)):
            slot = self._chance.choice(self._slots)
            with slot.lock:
                pid = slot.pid
                slot.kill()
                if pid is not None:
                    self.kills[pid] = time.time()
                slot.start()

    def stop(self) -> None:
        self._stopped.set()


def task_of(chance: random.Random, number: int, keys: int) -> tuple[str, dict[str, object], Keys]:
    """Return the id and the graph of a task, and the keys of its nodes. Low keys are frequent."""
    task_id, held, nodes = f"keys-{number}", Keys(), []
    for place in range(NODES):
        key = f"k{int(keys * chance.random() ** 3)}"
        held[task_id, f"n{place}"] = key
        item = {"seconds": round(chance.uniform(0.0, 0.2), 3), "value": 0}
        io, role = {"input_inline": item}, chance.choice(["work", "work", "block"])
        nodes.append(node(f"n{place}", role, io=io, concurrency_key=key, retry_policy=PATIENT))
    return task_id, graph(*nodes), held


async def load(client: Client, chance: random.Random, keys: int, until: float) -> Keys:
    """Submit tasks until a time, wait until they have ended, and return the keys of their nodes."""
    held, ids = Keys(), list[str]()
    while time.monotonic() < until:
        task_id, flow, of_task = task_of(chance, len(ids), keys)
        held |= of_task
        ids.append(await client.create_task(graph=flow, task_id=task_id))
        await anyio.sleep(0.5)
    for task_id in ids:
        view = await client.wait(task_id, QUIET_SEC)
        if view.status != "finished":
            sys.exit(f"task {task_id} is {view.status}: {view.error}")
    return held


def overlaps(lines: Sequence[Line], held: Mapping[tuple[str, str], str], kills: Kills) -> list[str]:
    """Return the pairs of runs of one key that overlap. A run without an end ended with its
    process.
    """
    begun: dict[str, Line] = {}
    runs: dict[str, list[tuple[float, float, str]]] = defaultdict(list)

    def close(line: Line, end: float) -> None:
        name = f"{line['task']} {line['node']} attempt {line['attempt']}"
        runs[held[line["task"], line["node"]]].append((line["at"], end, name))

    for line in lines:
        if (line["task"], line["node"]) not in held:
            continue
        if line["what"] == "began":
            begun[line["execution"]] = line
        elif line["what"] in ("ended", "failed"):
            close(begun.pop(line["execution"]), line["at"])
    for line in begun.values():
        close(line, kills.get(line["pid"], time.time()))
    return [
        f"{key}: {one} ended {end - start:.3f} s after {other} began"
        for key, of_key in runs.items()
        for (_, end, one), (start, _, other) in zip(
            sorted(of_key), sorted(of_key)[1:], strict=False
        )
        if start < end
    ]


async def check(arguments: argparse.Namespace) -> None:
    chance = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory(prefix="flowkit-keys-") as folder:
        sizes = {"coordinators": arguments.coordinators, "workers": arguments.workers}
        with Cluster(Path(folder), seed=arguments.seed, nodes_per_sec=1, **sizes) as cluster:
            cluster.slots_of("client")[0].kill()
            killer = Killer(cluster, random.Random(f"kills of {arguments.seed}"))
            async with cluster.installation.client() as client, anyio.create_task_group() as group:
                group.start_soon(anyio.to_thread.run_sync, killer.run)
                until = time.monotonic() + 60 * arguments.minutes
                stop = threading.Timer(60 * arguments.minutes, killer.stop)
                stop.start()
                try:
                    held = await load(client, chance, arguments.keys, until)
                finally:
                    killer.stop()
            lines = read_ledgers(cluster.ledgers, WORKERS)
    found = overlaps(lines, held, killer.kills)
    began = sum(line["what"] == "began" for line in lines)
    used = len({*held.values()})
    print(f"seed {arguments.seed}: {len(killer.kills)} kills, {began} runs, {used} keys")
    print("\n".join(found) or "no two runs of a key overlapped")
    sys.exit(1 if found else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--keys", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--coordinators", type=int, default=3)
    parser.add_argument("--workers", type=int, default=4)
    anyio.run(check, parser.parse_args())


if __name__ == "__main__":
    main()
