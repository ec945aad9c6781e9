"""The measurement of one system in a process of its own: a line of JSON for each workload."""

import json
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module

from benchmarks.embedded import seconds
from benchmarks.peers.sessions import Session
from benchmarks.peers.settings import Settings
from benchmarks.peers.systems import SYSTEMS
from benchmarks.peers.workloads import Workload, takes_too_long
from benchmarks.processes import processor_seconds

WARM_UP_SEC = 3.0
WARM_UP_TASKS = 50


@dataclass(slots=True)
class Used:
    """Processor seconds of the system's processes, and of the servers that it uses."""

    own: float = 0.0
    servers: float = 0.0


@contextmanager
def used_by(settings: Settings) -> Iterator[Used]:
    """Measure processor time; the value is complete at the end of the block."""
    pids = [pid for some in settings.pids.values() for pid in some]
    own, servers = processor_seconds([os.getpid()]), processor_seconds(pids)
    used = Used()
    yield used
    used.own = processor_seconds([os.getpid()]) - own
    used.servers = processor_seconds(pids) - servers


async def warm_up(session: Session) -> None:
    """Run some work, because servers and caches are slow at first."""
    until = time.monotonic() + WARM_UP_SEC
    while time.monotonic() < until:
        await session.tasks(WARM_UP_TASKS)
        await session.chain(10)
        await session.fan(10)


async def measure(settings: Settings, workloads: Sequence[Workload]) -> None:
    """Measure a system, and write a line for each workload as soon as it has run."""
    system = SYSTEMS[settings.system]
    took: dict[str, float] = {}
    async with import_module(f"benchmarks.peers.{system.module}").opened(settings) as session:
        await warm_up(session)
        for workload in workloads:
            if workload.name in system.lacks or takes_too_long(workload, took):
                continue
            run = getattr(session, workload.kind)
            with used_by(settings) as used:
                times = [
                    await seconds(lambda: run(workload.size))  # noqa: B023
                    for _ in range(workload.repeats)
                ]
            took[workload.name] = statistics.median(times)
            figure = {
                "seconds": took[workload.name],
                "own": used.own / workload.repeats,
                "servers": used.servers / workload.repeats,
            }
            with settings.figures.open("a") as file:
                print(json.dumps({"workload": workload.name, "figure": figure}), file=file)
