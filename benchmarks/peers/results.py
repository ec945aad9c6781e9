"""The figures of a run, which are kept in a file, so that a run can be continued."""

import json
import os
import platform
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.peers.systems import SYSTEMS, System

FILE = Path(__file__).parent / "results.json"


@dataclass(frozen=True, slots=True)
class Figure:
    """Time of a workload, and the processor time of the system and of its servers, in seconds."""

    seconds: float
    own: float
    servers: float


@dataclass(frozen=True, slots=True)
class Round:
    """Figures of one measurement of one system."""

    system: str
    number: int
    load: float
    """Average load of the machine just before."""
    bare_nodes_a_sec: float
    """Calibration just before: nodes whose messages a bare loop encodes and decodes in a second."""
    figures: Mapping[str, Figure]


@dataclass(slots=True)
class Results:
    """All rounds of a run."""

    machine: dict[str, str] = field(default_factory=dict)
    services: dict[str, str] = field(default_factory=dict)
    """Versions of the servers."""
    packages: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    """Reasons why systems were not measured."""
    rounds: list[Round] = field(default_factory=list)

    def has(self, system: str, number: int) -> bool:
        return any(one.system == system and one.number == number for one in self.rounds)

    def add(self, one: Round) -> None:
        self.rounds.append(one)
        self.left_out.pop(one.system, None)
        self.packages |= {name: version(name) for name in SYSTEMS[one.system].packages}

    def systems(self) -> list[System]:
        """Return the systems that were measured, in the order of the table."""
        return [one for one in SYSTEMS.values() if any(r.system == one.name for r in self.rounds)]

    def median(self, system: str, workload: str) -> Figure | None:
        """Return the medians over the rounds; None if no round has run the workload."""
        found = list(self._figures(system, workload))
        if not found:
            return None
        return Figure(
            seconds=statistics.median(one.seconds for one in found),
            own=statistics.median(one.own for one in found),
            servers=statistics.median(one.servers for one in found),
        )

    def _figures(self, system: str, workload: str) -> Iterator[Figure]:
        for one in self.rounds:
            if one.system == system and workload in one.figures:
                yield one.figures[workload]

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def loaded(path: Path) -> Results:
    """Return the results in a file; new ones if there is none."""
    if not path.exists():
        return Results(machine=this_machine())
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rounds = [
        Round(
            **{
                **one,
                "figures": {name: Figure(**figure) for name, figure in one["figures"].items()},
            }
        )
        for one in document.pop("rounds")
    ]
    return Results(**document, rounds=rounds)


def this_machine() -> dict[str, str]:
    """Return what the page says about the machine of a run."""
    processors = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line for line in processors if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model.partition(": ")[2] or platform.machine(),
        "cores": f"{len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "system": platform.system(),
        "python": f"Python {platform.python_version()}",
        "date": datetime.now(UTC).date().isoformat(),
    }
