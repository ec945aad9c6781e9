"""Recovery times after each disaster, from the workers' ledgers."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.chaos.evidence import Evidence
from tests.chaos.ledger import Line

AROUND_SEC = 1.0
FROM_END = ("broker ", "bus link ")
"""Disasters of parts that have no replacement: recovery is measured from their end. For all other
disasters it is measured from the start.
"""
OF_SERVERS = ("broker ", "topic ", "bus link ", "store link ", "primary ", "secondary ")


@dataclass(frozen=True, slots=True)
class Handover:
    """The end of a node's last parent and the start of the node, in seconds.

    Report, commit and command pass through both servers in between.
    """

    ended: float
    began: float


@dataclass(frozen=True, slots=True)
class Row:
    """Recovery times, in seconds, of all disasters of one name."""

    name: str
    times: int
    counted: int
    """Number of disasters measured. A disaster of a process during one of a server is left out,
    because the two recovery times cannot be separated.
    """
    from_end: bool
    next: tuple[float, float] | None
    """Median and maximum until the next node with parents started."""
    hit: tuple[float, float] | None
    """Median and maximum until all affected nodes started. For a killed worker: until each of its
    nodes ran on another worker.
    """


def recovery(evidence: Evidence, monkey: Sequence[dict[str, Any]]) -> list[Row]:
    """Return one row for each kind of disaster."""
    handovers = sorted(handovers_of(evidence), key=lambda handover: handover.ended)
    orphans = _orphans(
        evidence.worker_lines,
        {entry["pid"]: entry["at"] for entry in monkey if entry["name"] == "worker killed"},
    )
    troubled = [
        (entry["at"], entry["until"]) for entry in monkey if entry["name"].startswith(OF_SERVERS)
    ]
    by_name = defaultdict(list)
    for entry in monkey:
        by_name[entry["name"]].append(entry)
    rows = []
    for name, entries in sorted(by_name.items()):
        from_end = name.startswith(FROM_END)
        nexts, hits, counted = [], [], 0
        for entry in entries:
            since = entry["back"] if from_end else entry["at"]
            until = max(entry.get("back", entry["until"]), since) + AROUND_SEC
            if not name.startswith(OF_SERVERS) and any(
                at < until and over > since - AROUND_SEC for at, over in troubled
            ):
                continue
            counted += 1
            next_began = min(
                (one.began for one in handovers if one.ended >= entry["at"] and one.began >= since),
                default=None,
            )
            if next_began is not None:
                nexts.append(next_began - since)
            if name == "worker killed":
                hits += orphans.get(entry["pid"], [])
            else:
                hits += _longest(
                    [
                        one.began - max(one.ended, since)
                        for one in handovers
                        if one.ended <= until and one.began >= since
                    ]
                )
        rows.append(Row(name, len(entries), counted, from_end, _summary(nexts), _summary(hits)))
    return rows


def _longest(waits: Sequence[float]) -> list[float]:
    return [max(waits)] if waits else []


def handovers_of(evidence: Evidence) -> list[Handover]:
    found = []
    for stored in evidence.stored:
        submission = evidence.submissions.get(stored.submission)
        if submission is None:
            continue
        began: dict[str, float] = {}
        ended: dict[str, float] = {}
        for line in evidence.of_workers.get(stored.view.id, ()):
            times = {"began": began, "ended": ended}.get(line["what"])
            if times is not None:
                times.setdefault(line["node"], line["at"])
        for spec in submission.flow.graph["nodes"]:
            parents = spec["depends_on"]
            streams = spec.get("io", {}).get("start_when") == "first_batch"
            if (
                parents
                and not streams
                and spec["node_id"] in began
                and all(parent in ended for parent in parents)
            ):
                last = max(ended[parent] for parent in parents)
                # A repeated execution may end after the successor started: leave it out.
                if began[spec["node_id"]] >= last:
                    found.append(Handover(last, began[spec["node_id"]]))
    return found


def _orphans(lines: Sequence[Line], killed: dict[int, float]) -> dict[int, list[float]]:
    """Return the seconds until each node of a killed process ran on another, by process id."""
    running: dict[str, Line] = {}
    begun = defaultdict(list)
    for line in lines:
        if line["what"] == "began":
            begun[line["task"], line["node"]].append(line)
            if line["pid"] in killed:
                running[line["execution"]] = line
        elif line["what"] in ("ended", "failed"):
            running.pop(line["execution"], None)
    waits = defaultdict(list)
    for line in running.values():
        died = killed[line["pid"]]
        again = [
            other["at"]
            for other in begun[line["task"], line["node"]]
            if other["at"] > died and other["pid"] != line["pid"]
        ]
        if again:
            waits[line["pid"]].append(again[0] - died)
    return waits


def _summary(values: Sequence[float]) -> tuple[float, float] | None:
    return (statistics.median(values), max(values)) if values else None
