"""FlowKit beside Celery, Dramatiq, Taskiq, arq, DBOS and Temporal: the same workloads in turns.

    pip install --group peers
    apt-get install redis-server rabbitmq-server postgresql
    python -m benchmarks.peers.temporal_server                Temporal's server, once
    python -m benchmarks.peers                                what is not in the file yet
    python -m benchmarks.peers --fresh                        all of it again
    python -m benchmarks.peers --only celery-redis arq --rounds 1
    python docs/_generate.py                                  the page from the file

Each measurement runs in a process of its own. The servers run from the beginning to the end, in
temporary folders on free ports. Every round measures all systems, each second one in reverse order.
A system whose package or server is missing is left out, and the file says so.
"""

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.embedded import bare_loop
from benchmarks.peers.measuring import measure
from benchmarks.peers.results import FILE, Figure, Results, Round, loaded
from benchmarks.peers.services import Service, started
from benchmarks.peers.settings import VARIABLE, Settings, from_environment
from benchmarks.peers.systems import SYSTEMS, System
from benchmarks.peers.workloads import WORKLOADS, of_round
from tests.servers.processes import Unavailable

NODES = 10_000
MOST_SEC = 240.0
"""A measurement that takes longer is ended; what it has found until then counts."""


def missing(system: System) -> str | None:
    """Return why a system cannot run, apart from its servers."""
    for package in system.packages:
        try:
            version(package)
        except PackageNotFoundError:
            return f"{package} is not installed"
    return None


def start_services(
    stack: ExitStack, systems: Sequence[System], results: Results
) -> dict[str, Service]:
    """Start the servers that systems need; say of which systems they are not available."""
    running: dict[str, Service] = {}
    for name in dict.fromkeys(name for system in systems for name in system.services):
        try:
            running[name] = stack.enter_context(started(name))
        except Unavailable as error:
            reason = str(error)
            results.left_out |= {s.name: reason for s in systems if name in s.services}
        else:
            results.services[name] = running[name].version
    return running


def measured(
    system: System, running: Mapping[str, Service], workloads: Sequence[str]
) -> dict[str, Figure]:
    """Measure a system in a process of its own, and return the figures by workload."""
    with TemporaryDirectory(prefix="flowkit-peers-") as folder:
        settings = Settings(
            system=system.name,
            name=f"bench{uuid.uuid4().hex[:8]}",
            addresses={name: running[name].address for name in system.services},
            pids={name: running[name].pids for name in system.services},
            folder=folder,
        )
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.peers", "--measure", *workloads],
            env={**os.environ, VARIABLE: settings.to_json()},
            start_new_session=True,
        )
        try:
            process.wait(MOST_SEC)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # workers that did not end
        if process.returncode:
            print(f"{system.name}: ended with status {process.returncode}", file=sys.stderr)
        return figures(settings.figures)


def figures(path: Path) -> dict[str, Figure]:
    """Return the figures of a measurement; there are none if it failed before its first."""
    if not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {line["workload"]: Figure(**line["figure"]) for line in lines}


def one_round(
    number: int, systems: Sequence[System], running: Mapping[str, Service], results: Results
) -> Iterator[Round]:
    """Measure the systems that the results do not have yet for a round."""
    workloads = [workload.name for workload in of_round(number)]
    for system in systems if number % 2 else systems[::-1]:
        if system.name in results.left_out or results.has(system.name, number):
            continue
        load, calibration = os.getloadavg()[0], NODES / bare_loop(NODES)
        found = measured(system, running, workloads)
        print(f"round {number}, {system.title}: {describe(found)}", flush=True)
        if found:
            yield Round(system.name, number, load, calibration, found)


def describe(figures: Mapping[str, Figure]) -> str:
    return ", ".join(f"{name} {one.seconds:.3f} s" for name, one in figures.items()) or "nothing"


def run(systems: Sequence[System], rounds: int, path: Path) -> None:
    """Measure what the file does not have yet, and store each result in it."""
    results = loaded(path)
    for system in systems:
        results.left_out.pop(system.name, None)
        if reason := missing(system):
            results.left_out[system.name] = reason
    chosen = [system for system in systems if system.name not in results.left_out]
    with ExitStack() as stack:
        running = start_services(stack, chosen, results)
        for number in range(1, rounds + 1):
            for one in one_round(number, chosen, running, results):
                results.add(one)
                results.save(path)
    results.save(path)
    for name, reason in results.left_out.items():
        print(f"left out: {SYSTEMS[name].title}: {reason}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=[*SYSTEMS], default=[*SYSTEMS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path, default=FILE, help="file of the figures")
    parser.add_argument("--fresh", action="store_true", help="forget the figures in the file")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        asyncio.run(measure(from_environment(), [WORKLOADS[name] for name in given.measure]))
        return
    if given.fresh:
        given.results.unlink(missing_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends workers and servers, too
    try:
        run([SYSTEMS[name] for name in given.only], given.rounds, given.results)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command without --fresh continues")


if __name__ == "__main__":
    main()
