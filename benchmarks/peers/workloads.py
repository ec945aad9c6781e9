"""The workloads that every system runs."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["chain", "fan", "tasks", "stream"]
"""Name of the method of a session that runs it."""

LONGEST_SEC = 30.0
"""A workload is left out if a smaller one before shows that it would take longer."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A piece of work whose steps do nothing."""

    name: str
    title: str
    kind: Kind
    size: int
    steps: int
    repeats: int = 1
    """Number of runs in a round, whose figure is their median."""
    rounds: int | None = None
    """Rounds that run it; all if None."""
    larger_than: str | None = None
    """Workload that shows whether this one takes too long."""


WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload("chain", "chain of ten", "chain", 10, steps=10, repeats=10),
        Workload("fan-100", "fan of 100", "fan", 100, steps=101, repeats=3),
        Workload("fan-1000", "fan of 1,000", "fan", 1_000, steps=1_001),
        Workload("tasks", "1,000 tasks", "tasks", 1_000, steps=1_000),
        Workload("stream", "stream of 500", "stream", 500, steps=1_500, larger_than="tasks"),
        Workload(
            "fan-10000",
            "fan of 10,000",
            "fan",
            10_000,
            steps=10_001,
            rounds=1,
            larger_than="fan-1000",
        ),
    )
}
"""In the order in which they run."""


def takes_too_long(workload: Workload, seconds: dict[str, float]) -> bool:
    """Return whether the time of a smaller workload shows that this one is to be left out."""
    if workload.larger_than is None or workload.larger_than not in seconds:
        return False
    smaller = WORKLOADS[workload.larger_than]
    return seconds[smaller.name] * workload.steps / smaller.steps > LONGEST_SEC


def of_round(number: int) -> list[Workload]:
    """Return the workloads of a round; the first has the number 1."""
    return [one for one in WORKLOADS.values() if one.rounds is None or number <= one.rounds]
