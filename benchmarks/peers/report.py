"""The tables of the page about performance, from the figures of a run."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.peers.results import Figure, Results
from benchmarks.peers.systems import SYSTEMS, System
from benchmarks.peers.workloads import LONGEST_SEC, WORKLOADS, Workload

NONE = "–"
TITLES = {
    "redis": "Redis",
    "rabbitmq": "RabbitMQ",
    "postgres": "Postgres",
    "temporal": "Temporal",
    "kafka": "Kafka",
    "mongo": "MongoDB",
}
"""Names of the servers on the page."""
QUIET_LOAD = 3.0
"""Average load above which other programs have disturbed a run on two cores."""


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: bool) -> str:
    """Return a table, with all columns but the first on the right if they are numbers."""
    aligned = ["---", *(["---:" if numbers else "---"] * (len(heads) - 1))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [heads, aligned, *rows])


def amount(value: float) -> str:
    """Return a number with three significant digits and thousands separators."""
    if value >= 100:
        return f"{round(value, 3 - len(str(int(value)))):,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def milliseconds_a_step(workload: Workload, figure: Figure) -> str:
    return amount(figure.seconds / workload.steps * 1000)


def steps_a_second(workload: Workload, figure: Figure) -> str:
    return amount(workload.steps / figure.seconds)


def processor_time(workload: Workload, figure: Figure) -> str:
    """Return the milliseconds a step of the system, and of its servers if it has any."""
    own, servers = (used / workload.steps * 1000 for used in (figure.own, figure.servers))
    return amount(own) + (f" + {amount(servers)}" if figure.servers else "")


def _rows(
    results: Results, cell: Callable[[Workload, Figure], str]
) -> Iterable[tuple[System, list[str]]]:
    for system in results.systems():
        figures = ((one, results.median(system.name, one.name)) for one in WORKLOADS.values())
        yield system, [cell(one, figure) if figure else NONE for one, figure in figures]


def name_of(system: System) -> str:
    return f"**{system.title}**" if system.ours else system.title


def times(results: Results) -> str:
    """Return the table of times: a chain in milliseconds a step, the rest in steps a second."""

    def cell(workload: Workload, figure: Figure) -> str:
        kind = milliseconds_a_step if workload.kind == "chain" else steps_a_second
        return kind(workload, figure)

    heads = [
        "",
        *(
            f"{one.title}, {'ms a step' if one.kind == 'chain' else 'steps/s'}"
            for one in WORKLOADS.values()
        ),
    ]
    rows = ([name_of(system), *cells] for system, cells in _rows(results, cell))
    return table(heads, rows, numbers=True)


def processor_times(results: Results) -> str:
    heads = ["", *(one.title for one in WORKLOADS.values())]
    rows = ([name_of(system), *cells] for system, cells in _rows(results, processor_time))
    return table(heads, rows, numbers=True)


def survival(results: Results) -> str:
    """Return the table of what a step survives in the configuration of the run."""
    heads = ("", "a step whose worker is killed", "lost in a power cut", "what is due next is in")
    rows = (
        (name_of(one), one.worker_killed, one.power_cut, one.next_step) for one in results.systems()
    )
    return table(heads, rows, numbers=False)


def conditions(results: Results) -> str:
    """Return what was measured where: machine, versions, calibration and what is missing."""
    machine = results.machine
    calibration = statistics.median(one.bare_nodes_a_sec for one in results.rounds)
    load = max(one.load for one in results.rounds)
    rounds = max(one.number for one in results.rounds)
    lines = [
        f"- Machine: {', '.join(machine.values())}.",
        f"- Packages: {_list(results.packages)}.",
        f"- Servers: {_list({TITLES[name]: text for name, text in results.services.items()})}.",
        (
            f"- Calibration: {amount(calibration)} nodes a second, whose command and report one"
            " core encodes and decodes in a bare loop."
        ),
        (
            f"- Rounds: {rounds}; the figures are medians. One round runs a fan of 10,000. A"
            " workload is left out where a smaller one shows that it would take more than"
            f" {LONGEST_SEC:g} s."
        ),
    ]
    if load > QUIET_LOAD:
        lines.append(
            f"- When a system began, the average load of the machine was up to {load:.1f}, from"
            " other programs or from the systems before it. Compare the figures with each other,"
            " not with those of another machine."
        )
    lines += [
        f"- Left out: {SYSTEMS[name].title}, because {reason}."
        for name, reason in results.left_out.items()
    ]
    return "\n".join(lines)


def _list(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in sorted(versions.items()))
