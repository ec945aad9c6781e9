"""Reports of simulations."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

LINES_SHOWN = 300


@dataclass(slots=True)
class Report:
    """The report of one seed, or of several seeds together."""

    seeds: list[int] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    """The number of injected faults by kind."""
    virtual_sec: float = 0.0
    steps: int = 0
    """The number of callbacks that the event loop has run."""
    commits: int = 0
    """The number of writes at which the invariants were checked."""
    executions: int = 0
    hashes: dict[int, str] = field(default_factory=dict)
    """The hash of each seed's event log."""
    failures: dict[int, str] = field(default_factory=dict)
    """The traceback of each seed that failed."""

    def add(self, other: "Report") -> None:
        """Add the numbers of another report."""
        self.seeds += other.seeds
        self.faults += other.faults
        self.virtual_sec += other.virtual_sec
        self.steps += other.steps
        self.commits += other.commits
        self.executions += other.executions
        self.hashes |= other.hashes
        self.failures |= other.failures

    @property
    def virtual_hours(self) -> float:
        return self.virtual_sec / 3600

    def __str__(self) -> str:
        kinds = (
            ", ".join(f"{kind} {count}" for kind, count in sorted(self.faults.items())) or "none"
        )
        return (
            f"{len(self.seeds)} seeds, {len(self.failures)} failed; {self.faults.total()} faults in"
            f" {self.virtual_hours:.1f} virtual hours ({kinds}); {self.executions} executions,"
            f" {self.commits} commits checked"
        )


class SimulationFailed(AssertionError):
    """A seed failed.

    ``log`` is its whole event log. The message has the end of the log and the line that replays the
    seed.
    """

    def __init__(
        self, seed: int, replay: str, cause: BaseException, log: Sequence[str], report: Report
    ) -> None:
        self.seed = seed
        self.replay = replay
        self.cause = cause
        self.log = log
        self.report = report
        shown = log[-LINES_SHOWN:]
        left_out = (
            f"… {len(log) - len(shown)} lines before, on the exception's .log …\n"
            if len(log) > len(shown)
            else ""
        )
        events = "\n".join(shown)
        super().__init__(
            f"seed {seed}: {type(cause).__name__}: {cause}\nreplay:"
            f" {replay}\n{left_out}{events}\nreplay: {replay}"
        )
