"""Plan of a chaos run, and its report as text and as a page."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.recovery import Row

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Settings of a chaos run."""

    seed: int
    seconds: float
    least_kills: int = 0
    """Minimum of kills: the run is extended until it is reached, at most to 1.5 times ``seconds``.
    """
    calm: bool = False
    """Inflict one disaster at a time, so that the recovery time of each can be measured."""
    coordinators: int = 2
    workers: int = 3
    nodes_per_sec: float = 20.0
    quiet_sec: float = 300.0
    """Time limit for all tasks to end after the last disaster.

    Usually they need seconds. But if coordinators die while they check a lost command, the next
    check comes after twice the waiting time of the command, at most ten minutes later.
    """


@dataclass
class Report:
    """Results of a chaos run."""

    plan: Plan
    seconds: float = 0.0
    quiet_sec: float = 0.0
    kills: int = 0
    disasters: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    """Number of tasks by status."""
    nodes: int = 0
    executions: int = 0
    repeated: int = 0
    """Executions of a node that had started before."""
    late: int = 0
    """Executions that began after the end of their node was recorded, because their command was
    delivered late or twice.
    """
    latest_sec: float = 0.0
    batches: int = 0
    unavailable: int = 0
    """Number of calls that raised an outage error and were repeated."""
    ends: list[str] = field(default_factory=list)
    """Processes that ended unexpectedly."""
    rows: list[Row] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def text_of(report: Report) -> str:
    """Return the report as plain text."""
    lines = [
        (
            f"seed {report.plan.seed}, {report.seconds:.0f} s, {report.plan.coordinators}"
            f" coordinators, {report.plan.workers} workers"
        ),
        f"{sum(report.tasks.values())} tasks ({_by_status(report)})",
        (
            f"{report.nodes} nodes, {report.executions} executions ({report.repeated} repeated),"
            f" {report.batches} batches"
        ),
        (
            f"{report.late} executions began after the end of their node was recorded, the latest"
            f" {report.latest_sec:.0f} s after it"
        ),
        (
            f"{report.kills} kills; all tasks ended {report.quiet_sec:.0f} s after the last"
            f" disaster; calls repeated after an outage error: {report.unavailable}"
        ),
        f"processes that ended unexpectedly: {len(report.ends)}",
        *report.ends[:SHOWN],
        "",
        (
            f"{'disaster':22} {'times':>5} {'counted':>7} {'from its':>9} "
            f" {'next node: median, max':>24}  {'all affected: median, max':>26}"
        ),
    ]
    for row in report.rows:
        since = "end" if row.from_end else "start"
        lines.append(
            f"{row.name:22} {row.times:5} {row.counted:7} {since:>9}  {_pair(row.next):>24} "
            f" {_pair(row.hit):>26}"
        )
    lines += ["", f"violations: {len(report.violations)}", *report.violations]
    return "\n".join(lines)


PAGE = Path(__file__).with_name("page_template.md").read_text(encoding="utf-8").rstrip("\n")
FOUND = "## Bugs found"
"""Heading of the last section of the page, which is written by hand."""


CALM = """\
One disaster at a time, in a separate run (seed {plan.seed}, {minutes:.0f} minutes,
{plan.coordinators} coordinators, {plan.workers} workers, {report.kills} kills,
{report.nodes:,} nodes, {violations} violations):

{recovery}
All disasters at once, as above: the bus and the store may be disturbed at the same time. A disaster
of a process is counted only if no server was disturbed at that time:

"""


def page_of(
    report: Report,
    calm: Report | None,
    *,
    before: str,
    arguments: str,
    machine: str,
    rules: Iterable[str],
) -> str:
    """Return the report as a page of the documentation.

    The report of a calm run is added if there is one. The last section comes from ``before``, the
    present text of the page.
    """
    return PAGE.format(
        report=report,
        plan=report.plan,
        arguments=arguments,
        machine=machine,
        found="".join(before.partition(FOUND)[1:]),
        minutes=report.seconds / 60,
        tasks=sum(report.tasks.values()),
        by_status=_by_status(report),
        violations=len(report.violations),
        recovery=recovery_table(report),
        calm="" if calm is None else _calm(calm),
        rules=";\n".join(f"- {rule}" for rule in rules) + ".\n",
    )


def _calm(report: Report) -> str:
    minutes, violations = report.seconds / 60, len(report.violations)
    return CALM.format(
        report=report,
        plan=report.plan,
        minutes=minutes,
        violations=violations,
        recovery=recovery_table(report),
    )


def recovery_table(report: Report) -> str:
    """Return the recovery times as a Markdown table."""
    lines = [
        (
            "| disaster | times | counted | from its | until the next node started: median, max |"
            " until all affected nodes started: median, max |"
        ),
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.times} | {row.counted} | {'end' if row.from_end else 'start'} |"
        f" {_pair(row.next)} | {_pair(row.hit)} |"
        for row in report.rows
    ]
    return "\n".join(lines) + "\n"


def _by_status(report: Report) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in sorted(report.tasks.items()))


def _pair(summary: tuple[float, float] | None) -> str:
    return "" if summary is None else f"{summary[0]:.2f} s, {summary[1]:.2f} s"
