"""Rules that must hold after any chaos: the store and all ledgers agree.

The workers' ledgers say what ran, and the clients' ledgers say which answers they got.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from flowkit import TaskEvent
from flowkit.task import NodeView
from tests.chaos.clients import Submission, outcome
from tests.chaos.evidence import Evidence, Stored

TERMINAL = frozenset({"finished", "failed", "cancelled", "skipped"})


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule."""

    rule: str
    submission: str
    sentence: str
    node_id: str | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """A stored task, its submission, and all evidence."""

    evidence: Evidence
    submission: Submission
    stored: Stored

    @property
    def task_id(self) -> str:
        return self.stored.view.id

    @property
    def asked(self) -> set[str]:
        """The verbs that clients called for this task."""
        return {
            line["verb"]
            for line in self.evidence.of_client[self.submission.id]
            if line["what"] == "asking"
        }

    def worked(self, *statuses: str) -> Iterator[NodeView]:
        """Yield the nodes that workers run, only those in these statuses if any are given."""
        for node in self.stored.view.nodes.values():
            if node.type != "coordinator_fn" and (not statuses or node.status in statuses):
                yield node


Finding = tuple[str | None, str]
"""The id of the node, if there is one, and a sentence about the violation."""


def check(evidence: Evidence) -> list[Violation]:
    """Return all violations."""
    violations = list(_lost_or_strange(evidence))
    for stored in evidence.stored:
        submission = evidence.submissions.get(stored.submission)
        if submission is None:
            violations.append(
                Violation(
                    "no task is invented",
                    stored.submission,
                    f"no client submitted task {stored.view.id}",
                )
            )
            continue
        case = Case(evidence, submission, stored)
        for rule, findings in RULES.items():
            violations += [
                Violation(rule, submission.id, sentence, node_id)
                for node_id, sentence in findings(case)
            ]
    return violations


def _lost_or_strange(evidence: Evidence) -> Iterator[Violation]:
    stored = Counter(each.submission for each in evidence.stored)
    for submission_id, lines in evidence.of_client.items():
        if any(line["what"] == "submitted" for line in lines) and not stored[submission_id]:
            yield Violation(
                "nothing is lost", submission_id, "it was confirmed but is not in the store"
            )
        if stored[submission_id] > 1:
            yield Violation(
                "nothing is stored twice",
                submission_id,
                f"{stored[submission_id]} tasks are stored for it",
            )
        for line in lines:
            if line["what"] == "unexpected":
                yield Violation("verbs raise only documented errors", submission_id, line["error"])


def _ends_in_an_allowed_status(case: Case) -> Iterator[Finding]:
    view = case.stored.view
    if not view.status.terminal:
        nodes = {
            node.node_id: str(node.status)
            for node in view.nodes.values()
            if not node.status.terminal
        }
        yield None, f"it has not ended: it is {view.status}, with {nodes}"
        return
    allowed = set(case.submission.flow.ends) | ({"cancelled"} if "cancel" in case.asked else set())
    if view.status not in allowed:
        yield None, f"it is {view.status}, not {' or '.join(sorted(allowed))}: {view.error}"
    if view.status == "finished":
        for node in view.nodes.values():
            if node.status != "finished":
                yield node.node_id, f"it is {node.status} in a finished task"


def _clients_saw_what_is_stored(case: Case) -> Iterator[Finding]:
    now = outcome(case.stored.view)
    for line in case.evidence.of_client[case.submission.id]:
        if line["what"] == "submitted" and set(line["answers"]) != {case.task_id}:
            yield None, f"clients got the ids {line['answers']}, but the task is {case.task_id}"
        if line["what"] == "outcome" and line["view"] != now:
            yield None, f"clients saw {line['view']}, but {now} is stored"


def _is_recorded_once(case: Case) -> Iterator[Finding]:
    events = case.stored.events
    numbers = [event.seq for event in events]
    if numbers != list(range(1, len(events) + 1)):
        yield None, f"its events are numbered {numbers}"
    ended: dict[str | None, str] = {}
    for event in events:
        if event.kind != "status" or event.status is None:
            continue
        if event.node_id in ended and not _begins_again(event):
            yield event.node_id, f"{event.status} is recorded after {ended[event.node_id]}"
        ended.pop(event.node_id, None)
        if event.status in TERMINAL:
            ended[event.node_id] = str(event.status)
        elif _begins_again(event):
            ended.pop(None, None)  # the task runs again as well
    view = case.stored.view
    statuses: dict[str | None, str] = {
        None: str(view.status),
        **{node.node_id: str(node.status) for node in view.nodes.values()},
    }
    for node_id, status in ended.items():
        if statuses[node_id] != status:
            yield node_id, f"its last event says {status}, but it is {statuses[node_id]}"


def _begins_again(event: TaskEvent) -> bool:
    return (
        event.node_id is not None
        and event.status == "queued"
        and isinstance(event.data, dict)
        and bool(event.data.get("retry"))
    )


def _finished_nodes_were_executed(case: Case) -> Iterator[Finding]:
    for node in case.worked("finished"):
        results = [
            line["result"] for line in case.evidence.executions(case.task_id, node.node_id, "ended")
        ]
        if not results:
            yield node.node_id, "it is finished, but no execution of it ended"
        elif node.result not in results:
            yield node.node_id, f"its result is {node.result}, but executions returned {results}"


def _results_follow_from_the_graph(case: Case) -> Iterator[Finding]:
    """Check that each node's value is its own plus the values of its parents."""
    specs = {spec["node_id"]: spec for spec in case.submission.flow.graph["nodes"]}

    def value(node_id: str) -> int:
        spec = specs[node_id]
        if spec["type"] not in ("work", "block"):
            return 0
        own: int = spec["io"]["input_inline"]["value"]
        return own + sum(map(value, spec["depends_on"]))

    for node in case.worked("finished"):
        if not isinstance(node.result, dict) or node.result.get("value") != value(node.node_id):
            yield (
                node.node_id,
                f"its result is {node.result}, but its value should be {value(node.node_id)}",
            )


def _batches_count_once(case: Case) -> Iterator[Finding]:
    stored = defaultdict(list)
    for artifact in case.stored.artifacts:
        stored[artifact.node_id].append(artifact)
    for node_id, (count, total) in (case.submission.flow.sums or {}).items():
        node = case.stored.view.nodes[node_id]
        uids = [artifact.uid for artifact in stored[node_id]]
        if len(set(uids)) != len(uids):
            yield node_id, f"batches are stored twice: {uids}"
        worked = {line["uid"] for line in case.evidence.executions(case.task_id, node_id, "batch")}
        if not set(uids) <= worked:
            yield node_id, f"batches are stored that no worker processed: {set(uids) - worked}"
        if node.status != "finished":
            continue
        expected = {"batches": count, "sum": total}
        if node.metrics != expected:
            yield node_id, f"its metrics are {node.metrics}, not {expected}"
        held = {
            "batches": len(uids),
            "sum": sum(artifact.meta["value"] for artifact in stored[node_id]),
        }
        if held != expected:
            yield node_id, f"its artifacts add up to {held}, not {expected}"


def _functions_take_effect_once(case: Case) -> Iterator[Finding]:
    if case.submission.flow.increments is None:
        return
    ended = sum(
        node.type == "coordinator_fn" and node.status == "finished"
        for node in case.stored.view.nodes.values()
    )
    counted = case.stored.view.vars.get("count", 0)
    if counted != ended:
        yield None, f"{ended} functions added one, but the sum is {counted}"


def _attempts_are_bounded(case: Case) -> Iterator[Finding]:
    runs = 1 + ("retry" in case.asked)
    for node in case.worked():
        most = case.submission.flow.most_attempts(node.node_id) * runs
        executed = [
            line["attempt"]
            for line in case.evidence.executions(case.task_id, node.node_id, "began")
        ]
        if node.attempt > most or max(executed, default=0) > most:
            yield (
                node.node_id,
                f"{most} attempts are allowed, but it is at {node.attempt}; executed: {executed}",
            )
        retries_used_up = (
            node.status == "failed"
            and node.reason_code == "planned_failure"
            and not _permanent(case, node.node_id)
        )
        if retries_used_up and runs == 1 and node.attempt != most:
            yield (
                node.node_id,
                f"it failed without further retry at attempt {node.attempt} of {most}",
            )


def _permanent(case: Case, node_id: str) -> bool:
    (spec,) = (spec for spec in case.submission.flow.graph["nodes"] if spec["node_id"] == node_id)
    return bool(spec["io"]["input_inline"].get("permanent"))


def _only_issued_attempts_run(case: Case) -> Iterator[Finding]:
    """Check that no attempt ran that was not issued.

    A command may be delivered late or twice, but a node that ended or was cancelled gets no new
    attempt. A worker begins the later nodes of a segment by itself: they count as issued.
    """
    issued = {
        node.node_id: node.attempt or _is_cancelled_in_segment(case, node) for node in case.worked()
    }
    for event in case.stored.events:
        if (
            isinstance(event.data, dict)
            and "released_by" in event.data
            and event.node_id is not None
        ):
            issued[event.node_id] = max(
                issued[event.node_id], case.stored.view.nodes[event.node_id].attempt + 1
            )
    for node_id, most in issued.items():
        late = [
            line["attempt"]
            for line in case.evidence.executions(case.task_id, node_id, "began")
            if line["attempt"] > most
        ]
        if late:
            yield node_id, f"{most} attempts were issued, but attempt {max(late)} was executed"


def _is_cancelled_in_segment(case: Case, node: NodeView) -> bool:
    """Return whether the task of a node was cancelled before a coordinator read that a worker had
    gone on to this node. Then the node has no attempt.
    """
    specs = {spec["node_id"]: spec for spec in case.submission.flow.graph["nodes"]}
    return node.status == "cancelled" and any(
        parent["pid"] == began["pid"] and parent["at"] <= began["at"]
        for began in case.evidence.executions(case.task_id, node.node_id, "began")
        for name in specs[node.node_id]["depends_on"]
        for parent in case.evidence.executions(case.task_id, name, "ended")
    )


def late_executions(evidence: Evidence) -> list[float]:
    """Return how many seconds each late execution began after its node's end was recorded."""
    found = []
    for stored in evidence.stored:
        limits: dict[str, float] = {}
        for event in stored.events:
            if event.node_id is not None and event.kind == "status":
                if event.status in TERMINAL:
                    limits[event.node_id] = event.at.timestamp()
                elif _begins_again(event):
                    limits.pop(event.node_id, None)
        began = (
            line for line in evidence.of_workers.get(stored.view.id, ()) if line["what"] == "began"
        )
        found += [
            late
            for line in began
            if (late := line["at"] - limits.get(line["node"], line["at"])) > 0
        ]
    return found


RULES: dict[str, Callable[[Case], Iterator[Finding]]] = {
    "every task ends in an allowed status": _ends_in_an_allowed_status,
    "clients saw what is stored": _clients_saw_what_is_stored,
    "each end is recorded once": _is_recorded_once,
    "finished nodes were executed": _finished_nodes_were_executed,
    "results follow from the graph": _results_follow_from_the_graph,
    "each batch is stored and counted once": _batches_count_once,
    "functions take effect once": _functions_take_effect_once,
    "attempts are bounded": _attempts_are_bounded,
    "only issued attempts run": _only_issued_attempts_run,
}

PROMISES = (
    "nothing that was confirmed is lost, stored twice, or invented",
    "verbs raise only documented errors",
    *RULES,
)
"""The names of all rules."""


def describe(violation: Violation, evidence: Evidence, monkey: list[dict[str, Any]]) -> str:
    """Return a violation as text, with all evidence about its task."""
    lines = [
        (
            f"{violation.rule}: submission {violation.submission}, node {violation.node_id}:"
            f" {violation.sentence}"
        )
    ]
    lines += [f"  client  {line}" for line in evidence.of_client.get(violation.submission, ())]
    for stored in (each for each in evidence.stored if each.submission == violation.submission):
        times = [stored.view.created_at.timestamp()]
        for event in stored.events:
            times.append(event.at.timestamp())
            lines.append(
                f"  event   {event.seq} {event.at.timestamp():.3f} {event.node_id} {event.kind}"
                f" {event.status} {event.data}"
            )
        lines += [
            f"  node    {node}"
            for node in stored.view.nodes.values()
            if violation.node_id in (None, node.node_id)
        ]
        lines += [
            f"  worker  {line}"
            for line in evidence.of_workers.get(stored.view.id, ())
            if violation.node_id in (None, line["node"])
        ]
        lines += [
            f"  monkey  {entry}"
            for entry in monkey
            if min(times) - 10 <= entry["until"] and entry["at"] <= max(times) + 10
        ]
    return "\n".join(lines)
