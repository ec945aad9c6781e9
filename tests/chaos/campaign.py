"""One chaos run: start the cluster, inject faults under load, let it settle, check the evidence."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio

from tests.chaos.checker import check, describe, late_executions
from tests.chaos.clients import CLIENTS
from tests.chaos.cluster import Cluster, ProcessSlot
from tests.chaos.evidence import Evidence, gather
from tests.chaos.ledger import Line, read_ledgers
from tests.chaos.monkey import Monkey
from tests.chaos.recovery import recovery
from tests.chaos.report import SHOWN, Plan, Report

START_SEC = 90.0
POLL_SEC = 1.0
PROGRESS_EVERY_SEC = 15.0


def run_campaign(plan: Plan, folder: Path, *, progress: Callable[[str], None]) -> Report:
    """Run the plan and return its report, which also lists the violations.

    Ledgers, logs and configurations are written to ``folder``.
    """
    report = Report(plan)
    with Cluster(
        folder,
        seed=plan.seed,
        coordinators=plan.coordinators,
        workers=plan.workers,
        nodes_per_sec=plan.nodes_per_sec,
    ) as cluster:
        _wait_for_first_end(cluster)
        progress(f"seed {plan.seed}: the first task has ended")
        with Monkey(cluster, seed=plan.seed, calm=plan.calm) as monkey:
            _disturb(plan, monkey, report, progress)
            monkey.stop()
        progress(f"{monkey.kills} kills in {report.seconds:.0f} s; waiting for all tasks to end")
        report.violations += _settle(plan, cluster, report)
        report.ends = [
            f"{slot.name} (pid {pid}) ended with status {status}"
            for slot in cluster.slots
            for _, pid, status in slot.ends
        ]
        evidence = anyio.run(_gathered, cluster)
    log = sorted(monkey.log, key=lambda entry: entry["at"])
    _count(report, evidence, monkey)
    report.rows = recovery(evidence, log)
    found = check(evidence)
    report.violations += [describe(violation, evidence, log) for violation in found[:SHOWN]]
    report.violations += [
        f"{one.rule}: {one.submission} {one.node_id}: {one.sentence}" for one in found[SHOWN:]
    ]
    return report


async def _gathered(cluster: Cluster) -> Evidence:
    async with cluster.installation.client() as client:
        return await gather(client, cluster.ledgers)


def _wait_for_first_end(cluster: Cluster) -> None:
    _wait_for_line(
        lambda line: line["what"] == "outcome" and line["view"]["status"] == "finished",
        cluster,
        cluster.slots,
        "no task ended",
    )


def _wait_until_listening(client: ProcessSlot, cluster: Cluster) -> None:
    """Wait until the client handles SIGTERM: before that, the signal would kill it."""
    _wait_for_line(
        lambda line: line["what"] == "listening" and line["pid"] == client.pid,
        cluster,
        [client],
        "the client did not start",
    )


def _wait_for_line(
    wanted: Callable[[Line], bool], cluster: Cluster, slots: Sequence[ProcessSlot], failure: str
) -> None:
    """Return when a client has written such a line; restart these processes if they end."""
    until = time.monotonic() + START_SEC
    while not any(wanted(line) for line in read_ledgers(cluster.ledgers, CLIENTS)):
        for slot in slots:
            slot.restart_if_ended()
        if time.monotonic() > until:
            logs = "\n".join(f"{slot.name}: {_tail(slot)}" for slot in slots)
            raise RuntimeError(f"{failure} within {START_SEC:g} s\n{logs}")
        time.sleep(POLL_SEC / 4)


def _disturb(plan: Plan, monkey: Monkey, report: Report, progress: Callable[[str], None]) -> None:
    began = reported = time.monotonic()
    while (passed := time.monotonic() - began) < plan.seconds or (
        monkey.kills < plan.least_kills and passed < 1.5 * plan.seconds
    ):
        time.sleep(POLL_SEC)
        monkey.check()
        if time.monotonic() - reported >= PROGRESS_EVERY_SEC:
            reported = time.monotonic()
            progress(f"{reported - began:.0f} s: {monkey.kills} kills")
    report.seconds = time.monotonic() - began


def _settle(plan: Plan, cluster: Cluster, report: Report) -> list[str]:
    """Stop submitting, wait until every task has ended, and shut all processes down."""
    violations = []
    began = time.monotonic()
    (client,) = cluster.slots_of("client")
    _wait_until_listening(client, cluster)
    slots = [*cluster.slots_of("worker"), *cluster.slots_of("coordinator")]
    with ThreadPoolExecutor(len(slots)) as pool:
        ending = pool.submit(client.stop, timeout=plan.quiet_sec)
        while not ending.done():
            for slot in slots:
                slot.restart_if_ended()
            time.sleep(POLL_SEC / 4)
        if ending.result() != 0:
            violations.append(
                f"some tasks had not ended {plan.quiet_sec:g} s after the last disaster"
            )
        report.quiet_sec = time.monotonic() - began
        statuses = list(pool.map(ProcessSlot.stop, slots))
    for slot, status in zip(slots, statuses, strict=True):
        if status != 0:
            violations.append(
                f"{slot.name} got SIGTERM and ended with status {status}, not 0\n{_tail(slot)}"
            )
    return violations


def _tail(slot: ProcessSlot) -> str:
    return "\n".join(slot.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


def _count(report: Report, evidence: Evidence, monkey: Monkey) -> None:
    report.kills, report.disasters = monkey.kills, monkey.counts()
    for stored in evidence.stored:
        report.tasks[str(stored.view.status)] = report.tasks.get(str(stored.view.status), 0) + 1
        report.nodes += len(stored.view.nodes)
    began = [
        (line["task"], line["node"]) for line in evidence.worker_lines if line["what"] == "began"
    ]
    report.executions = len(began)
    report.repeated = len(began) - len(set(began))
    late = late_executions(evidence)
    report.late, report.latest_sec = len(late), max(late, default=0.0)
    report.batches = sum(line["what"] == "batch" for line in evidence.worker_lines)
    report.unavailable = sum(line["what"] == "unavailable" for line in evidence.client_lines)
