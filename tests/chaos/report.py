"""What a run of chaos is to be, and what came of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.chaos.recovery import Row

SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long and how hard."""

    seed: int
    seconds: float
    least_kills: int = 0
    """It goes on until there were so many, but no longer than half as long again."""
    calm: bool = False
    """One disaster after another, so that the times of recovery are those of each alone."""
    coordinators: int = 2
    workers: int = 3
    nodes_per_sec: float = 20.0
    quiet_sec: float = 300.0
    """How long everything may take to end when nothing is disturbed any more.

    Usually it takes seconds. But a command that was lost early, and whose coordinators died while
    they looked for it, is looked for again when it has waited for twice as long, at most ten
    minutes later.
    """


@dataclass
class Report:
    """What happened."""

    plan: Plan
    seconds: float = 0.0
    quiet_sec: float = 0.0
    kills: int = 0
    disasters: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    """By status."""
    nodes: int = 0
    executions: int = 0
    repeated: int = 0
    """Executions beyond the first of their attempt's node."""
    late: int = 0
    """Executions that began after the end of their node was recorded: their command was delivered
    late, or again.
    """
    latest_sec: float = 0.0
    batches: int = 0
    unavailable: int = 0
    """How often a verb raised that a server was not available, and was called again."""
    ends: list[str] = field(default_factory=list)
    """Processes that ended without being told to."""
    rows: list[Row] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)


def told_of(report: Report) -> str:
    """The report as a page of text."""
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
            f"{report.kills} kills; all at rest {report.quiet_sec:.0f} s after the last disaster;"
            f" verbs called again: {report.unavailable}"
        ),
        f"processes that ended by themselves: {len(report.ends)}",
        *report.ends[:SHOWN],
        "",
        (
            f"{'disaster':22} {'times':>5} {'counted':>7} {'from its':>9} "
            f" {'next node: median, max':>24}  {'all it hit: median, max':>24}"
        ),
    ]
    for row in report.rows:
        since = "end" if row.from_end else "beginning"
        lines.append(
            f"{row.name:22} {row.times:5} {row.counted:7} {since:>9}  {_pair(row.next):>24} "
            f" {_pair(row.hit):>24}"
        )
    lines += ["", f"violations: {len(report.violations)}", *report.violations]
    return "\n".join(lines)


PAGE = """\
# The last chaos

Coordinators, workers, clients, a Kafka broker and a MongoDB replica set of three, as processes on one machine ({machine}), under a monkey.
This page is written by `tools/chaos.py --page`, save its last section.

```sh
python tools/chaos.py {arguments}
```

| | |
| --- | --- |
| seed | {plan.seed} |
| took | {minutes:.0f} minutes, with {plan.coordinators} coordinators and {plan.workers} workers |
| processes killed with SIGKILL | {report.kills:,} |
| tasks | {tasks:,}: {by_status} |
| nodes | {report.nodes:,} |
| executions of handlers, in the workers' own ledgers | {report.executions:,}, {report.repeated:,} of them of a node that had begun before |
| begun after the end of their node, by a late or repeated delivery | {report.late:,}, up to {report.latest_sec:.0f} s after it |
| batches | {report.batches:,} |
| **lost, recorded twice, or otherwise not as promised** | **{violations}** |
| at rest after the last disaster | {report.quiet_sec:.0f} s |

## Recovery

{calm}{recovery}
What nobody stands in for, the broker and the way to it, is measured from its end; everything else from its beginning. "The next node" is
the first that began and had to wait for the end of another. Of a killed worker, "all it hit" are the nodes that ran on it, until each began
elsewhere; of the others, the nodes that had ended and whose successors could not begin. Leases are four seconds here, and Kafka's patience
with a member two.

## What is done

- `SIGKILL` to workers, coordinators, clients, the broker and members of the replica set, which are started again at once or seconds later;
- `SIGSTOP` to them for seconds, longer than leases, elections and Kafka's patience with a member, and `SIGCONT`;
- orderly restarts of workers, coordinators and the broker; step-downs of the primary;
- restarts of workers and coordinators whose clocks then are forty days ahead or behind, and deletion of topics;
- every connection to a server goes through a proxy, which slows links down, makes them narrow, cuts them (RST), or leaves them open and
  swallows what is sent.

Clients submit chains, fans, streams with batches, nodes that fail and are retried, functions of the coordinator, and tasks that are
cancelled, paused or retried, some of them twice at the same time. They write down what they ask and what they are told.

## What is compared

Workers write each execution, and each batch, to a file of their own that is synced line by line: neither FlowKit nor its store can lose
it. In the end the ledgers, the store and what clients were told have to agree:

{rules}
`tests/chaos` does the same for two minutes in every run of the tests. `FLOWKIT_TEST_CHAOS_MINUTES=60` makes that an hour.

{found}"""
FOUND = "## What it found"
"""The last section of the page, which people write."""


CALM = """\
One disaster after another, in a run of its own (seed {plan.seed}, {minutes:.0f} minutes, {plan.coordinators} coordinators,
{plan.workers} workers, {report.kills} kills, {report.nodes:,} nodes, {violations} violations):

{recovery}
All at once, as above, so that the bus and the store are in trouble side by side. Disasters of processes are counted where no
disaster of a server fell into them:

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
    """The report as a page of the documentation, with that of a calm run if there was one.
    ``before`` is the page as it was.
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
        rules="".join(f"- {rule};\n" for rule in rules),
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
    """How long work stood still, as a table of Markdown."""
    lines = [
        (
            "| disaster | times | counted | from its | until the next node began: median, max |"
            " until all it hit went on: median, max |"
        ),
        "| --- | ---: | ---: | --- | ---: | ---: |",
    ]
    lines += [
        f"| {row.name} | {row.times} | {row.counted} | {'end' if row.from_end else 'beginning'} |"
        f" {_pair(row.next)} | {_pair(row.hit)} |"
        for row in report.rows
    ]
    return "\n".join(lines) + "\n"


def _by_status(report: Report) -> str:
    return ", ".join(f"{count:,} {status}" for status, count in sorted(report.tasks.items()))


def _pair(summary: tuple[float, float] | None) -> str:
    return "" if summary is None else f"{summary[0]:.2f} s, {summary[1]:.2f} s"
