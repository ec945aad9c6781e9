"""Seeds of the standard scenarios on several processors."""

import gc
import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from flowkit.plugins import Plugins
from flowkit_testing.simulation import Report, run_seed
from tests.simulation.scenarios import of_seed
from tests.simulation.trigger_sources import SOURCES

CHUNK = 25


@dataclass
class Failure:
    """A seed that failed."""

    seed: int
    scenario: str
    error: str
    log: list[str]

    def __str__(self) -> str:
        end = "\n".join(self.log[-100:])
        return (
            f"seed {self.seed}, {self.scenario}:\n{self.error}\nreplay: python tools/campaign.py"
            f" --seed {self.seed}\n{end}"
        )


@dataclass
class Chunk:
    """The outcomes of some seeds."""

    report: Report = field(default_factory=Report)
    failures: list[Failure] = field(default_factory=list)
    scenarios: dict[str, Report] = field(default_factory=dict)

    def add(self, other: "Chunk") -> None:
        self.report.add(other.report)
        self.failures += other.failures
        for name, report in other.scenarios.items():
            self.scenarios.setdefault(name, Report()).add(report)


def run_chunk(first: int, count: int, faults: str) -> Chunk:
    """Run some seeds in this process."""
    plugins = Plugins([SOURCES])
    chunk = Chunk()
    for seed in range(first, first + count):
        standard = of_seed(seed)
        outcome = run_seed(standard.setup(faults, plugins=plugins), seed)
        chunk.report.add(outcome.report)
        chunk.scenarios.setdefault(standard.name, Report()).add(outcome.report)
        if outcome.error is not None:
            chunk.failures.append(
                Failure(seed, standard.name, outcome.report.failures[seed], outcome.log)
            )
    gc.collect()
    return chunk


def run_seeds(
    first: int, count: int, *, faults: str = "all", processes: int, limit_sec: float | None = None
) -> Iterator[Chunk]:
    """Run seeds in a pool of processes, and yield the outcomes of each chunk when it is done.

    After ``limit_sec`` no further chunk begins.
    """
    ends_at = None if limit_sec is None else time.monotonic() + limit_sec
    chunks = [
        (start, min(CHUNK, first + count - start)) for start in range(first, first + count, CHUNK)
    ]
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            waiting = [pool.submit(run_chunk, start, length, faults) for start, length in chunks]
            for done in as_completed(waiting):
                yield done.result()
                if ends_at is not None and time.monotonic() > ends_at:
                    return
        finally:
            pool.shutdown(cancel_futures=True)
