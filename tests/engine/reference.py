"""A second, naive implementation of the rules: it derives everything again after every event.

It knows only the nodes and edges of a graph, and only the tokens of attempts.
"""

from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

from flowkit._engine import (
    ArgumentsEvaluated,
    CancelRequested,
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    CommandsLost,
    CommandsSent,
    ConditionEvaluated,
    DecisionMade,
    EngineSettings,
    Event,
    FunctionFailed,
    FunctionReturned,
    OutputDelayed,
    OutputEvaluated,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    SentCommand,
    SignalReceived,
    TaskSubmitted,
    Woke,
)
from flowkit.graph import Edge, Plan, Route
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    ChildEnded,
    NodeFailed,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import NodeStatus, TaskStatus

UNBEGUN = ("waiting", "checking", "ready")
IN_FLIGHT = ("issued", "running", "cancelling")
ENDED = ("finished", "failed", "cancelled", "skipped")
ARGUMENTS: dict[str, tuple[str, type]] = {
    "sleep": ("for_sec", int),
    "wait_signal": ("signal", str),
    "approval": ("prompt", str),
}
"""The argument of each control type that may be an expression, and the type of its value."""


@dataclass
class Node:
    """The events of a node since it was submitted or last retried."""

    state: str = "waiting"
    tokens: list[str] = field(default_factory=list)
    """The tokens of every attempt of this run."""
    present: str | None = None
    number: tuple[int, int] = (0, 0)
    """Attempt number and handovers of the current attempt."""
    sent: bool = False
    place: tuple[int, int] | None = None
    made: int = 0
    has_batch: bool = False
    first_issued_at: float | None = None
    issued_at: float = 0.0
    began_at: float = 0.0
    heard_at: float | None = None
    retry_at: float = 0.0
    attempt: int = 0
    """Attempt of a control node, over all runs."""
    cancel_by: float = 0.0
    worker: str | None = None
    starved: bool = False
    """It was skipped because its data will never come: a node above it failed."""
    owed_nothing: bool = False
    """It was stopped because its parents ended without data, so it counts as skipped."""
    pulled: bool = False
    """It finished, and its batches came from its parents."""
    required: bool = False
    """It was chosen for a retry, or had a result when a retry reset it. So it is not stopped as
    unneeded.
    """
    overdue: bool = False
    """Its child task is stopped because the attempt took too long."""
    until: float | None = None
    """It waits until then, or has begun and its arguments are not known (None)."""
    signal: str | None = None
    """Name of the signal that it waits for."""
    excused: bool = False
    """It failed in an earlier run and was not chosen for this one: it stops no other node."""

    def is_issued(self, command: SentCommand) -> bool:
        number = command.attempt, command.handovers
        return self.state == "issued" and self.number == number


class Reference:
    def __init__(self, plan: Plan, *, settings: EngineSettings, deadline_sec: float | None) -> None:
        self.plan = plan
        self.settings = settings
        self.deadline_sec = deadline_sec
        self.nodes = [Node() for _ in plan.nodes]
        self.later: dict[str, list[int]] = {"undo": [], "finally": []}
        if plan.ends is not None:
            self.later = {"undo": [*plan.ends.undos], "finally": [*plan.ends.final]}
        self.phase = "main"
        self.ended_by: int | None = None
        """The node with which task.end ended the task."""
        self.kept: list[SignalReceived] = []
        """The signals that no node has taken, the oldest first."""
        self.signal_ids: set[str | None] = set()
        self.finishes: list[int] = []
        """The finished nodes of the main phase, in the order of their ends."""
        for index in self._later_nodes():
            self.nodes[index].state = "held"
        self.status = TaskStatus.QUEUED
        self.outcome: TaskStatus | None = None
        self.paused = False
        self.delayed_at: float | None = None
        """Time at which the evaluation of the output was delayed."""
        self.begun = False
        self.submitted = False
        self.deadline_at: float | None = None
        self.now = 0.0
        self.unnamed: list[int] = []
        """Nodes with an issued attempt whose token is not known yet."""
        self.after: list[tuple[str, int]] = []
        """Expected effects for nodes without reports and for lost commands."""

    # ------------------------------------------------------------ effects

    def node_statuses(self) -> list[NodeStatus]:
        return [
            NodeStatus("queued" if node.state in (*UNBEGUN, "issued", "held") else node.state)
            for node in self.nodes
        ]

    def name(self, index: int, token: str, number: tuple[int, int]) -> None:
        """Record the token of the attempt just issued, its number and its handovers."""
        self.nodes[index].present = token
        self.nodes[index].number = number
        self.nodes[index].tokens.append(token)

    # ------------------------------------------------------------ events

    def happen(self, event: Event, *, now: float) -> None:
        self.now = now
        self.unnamed = []
        self.after = []
        self.deadline_passed = False
        if isinstance(event, TaskSubmitted):
            if self.submitted:
                return
            self.submitted = True
            self._set_deadline()
        elif isinstance(event, RetryRequested):
            # Only the retry of a dead letter runs a finished task again.
            if not self.status.terminal or (self.status is TaskStatus.FINISHED and not event.fill):
                return
            self._retry(event.nodes)
        elif self.status.terminal:
            return
        elif isinstance(event, Woke):
            self._time_passed(event.silent)
        elif isinstance(event, CancelRequested):
            if event.force:
                for index in self._later_nodes():
                    if self.nodes[index].state == "held":
                        self.nodes[index].state = "waiting"
                good = self.outcome in (None, TaskStatus.FINISHED)
                self._stop_everything(
                    TaskStatus.CANCELLED if good or self.outcome is None else self.outcome
                )
                self.phase = "finally"
            elif self.outcome is None:
                self._stop_everything(TaskStatus.CANCELLED)
        elif isinstance(event, PauseRequested):
            self.paused = self.outcome is None
        elif isinstance(event, ResumeRequested):
            self.paused = False
        elif isinstance(event, CommandsLost):
            # The same command is sent again: this is no new attempt and changes nothing else.
            self.after = [
                ("run", command.index)
                for command in event.commands
                if self.nodes[command.index].is_issued(command)
                and self.nodes[command.index].place == command.place
            ]
            for _, index in self.after:
                self.nodes[index].sent, self.nodes[index].place = False, None
            return
        elif isinstance(event, OutputDelayed):
            if self._awaits_output() and self.delayed_at is None:
                self.delayed_at = now
            return
        elif isinstance(event, OutputEvaluated):
            if self._awaits_output() and event.since == self.delayed_at:
                self.outcome = TaskStatus.FAILED if event.error else TaskStatus.FINISHED
        elif isinstance(event, SignalReceived):
            self._signalled(event)
        elif isinstance(event, ChildrenCreated):
            return
        elif isinstance(event, CommandsSent):
            for command in event.commands:
                node = self.nodes[command.index]
                if node.is_issued(command) and not node.sent:
                    node.sent, node.place = True, command.place
            return
        else:
            self._reported(event)
        self._follow()
        self._begin_controls()
        self._issue()
        self._begin_phases()
        self._see_status()
        if isinstance(event, Woke):
            self.after = [
                (what, index)
                for index in range(len(self.nodes))
                if (what := self._look_after(index, event.silent))
            ]

    def _look_after(self, index: int, silent: dict[str, float]) -> str | None:
        """Return the expected effects for a node without reports for a while."""
        node = self.nodes[index]
        if index in self.plan.nested:
            followed = node.state in ("running", "cancelling") and not self.deadline_passed
            return "follow" if followed else None
        if (
            node.state not in ("issued", "running")
            or self.now - node.issued_at < self.settings.resend_sec
        ):
            return None
        if node.state == "issued":
            return None if node.sent and self.now - node.issued_at < 30 else "check"
        if self.plan.nodes[index].type == "coordinator_fn":
            return "call"
        unheard = self.now - (node.heard_at or 0) >= self.settings.lease_ttl_sec
        return (
            "ask"
            if unheard and silent.get(node.worker or "", 0) < self.settings.worker_suspect_sec
            else None
        )

    def _reported(self, event: Any) -> None:
        if event.index >= len(self.nodes):
            return
        node = self.nodes[event.index]
        match event:
            case ArgumentsEvaluated():
                begun = self._waits(event.index) and node.until is None
                if begun and event.attempt == node.attempt and event.error is not None:
                    node.state = "failed"
                elif begun and event.attempt == node.attempt:
                    self._wait(event.index, event.values)
            case DecisionMade():
                waits = self._waits(event.index) and node.until is not None
                if waits and event.attempt == node.attempt and self._is_approval(event.index):
                    self._decide(event.index, event.choice)
            case ChildEnded():
                pass
            case ChildFinished() | ChildFailed():
                current = event.attempt == node.number[0] and node.state in IN_FLIGHT
                if current and isinstance(event, ChildFinished):
                    self._finish(event.index)
                elif current:
                    reason = "start_to_close_timeout" if node.overdue else event.reason_code
                    permanent = event.permanent and not node.overdue
                    self._attempt_failed(event.index, reason, permanent=permanent)
            case ConditionEvaluated():
                if node.state == "checking":
                    node.state = "failed" if event.error else "ready" if event.value else "skipped"
            case NodeSucceeded() | FunctionReturned():
                # The first success of any issued attempt counts.
                if event.token in node.tokens and node.state not in ENDED:
                    self.begun = True
                    self._finish(event.index)
                    ending = getattr(event, "ending", None)
                    if ending is not None and self.outcome is None:
                        self.ended_by = event.index
                        self._stop_everything(ending.status)
                    node.pulled = isinstance(event, NodeSucceeded) and event.pulled
            case _ if event.token != node.present or node.state not in IN_FLIGHT:
                pass
            case NodeStarted():
                self._begin(node, event.worker_id)
            case NodeProgressed() | BatchStored() | BatchesRetried() if node.state != "cancelling":
                self._begin(node, event.worker_id)
                node.heard_at = self.now
                node.has_batch = node.has_batch or isinstance(event, BatchStored)
            case NodeFailed() | FunctionFailed():
                self.begun = True
                self._attempt_failed(event.index, event.reason_code, permanent=event.permanent)
            case NodeStopped():
                self._attempt_failed(event.index, "stopped")
            case NodeReleased():
                if node.state == "cancelling":
                    self._end_stopped(node)
                else:
                    node.state, node.present = "ready", None
                    node.made -= 1

    def _begin(self, node: Node, worker: str) -> None:
        if node.state == "issued":
            node.state, node.worker = "running", worker
            node.began_at = node.heard_at = self.now
            self.begun = True

    def _finish(self, index: int) -> None:
        self.nodes[index].state = "finished"
        self.finishes.append(index)

    def _attempt_failed(self, index: int, reason: str, *, permanent: bool = False) -> None:
        node, policy = self.nodes[index], self.plan.nodes[index].retry_policy
        if node.state == "cancelling":
            self._end_stopped(node)
            return
        delay = min(
            policy.backoff_sec * policy.multiplier ** (node.made - 1), policy.max_backoff_sec
        )
        spent = self.now - (node.first_issued_at or self.now)
        over_budget = policy.budget_sec is not None and spent + delay > policy.budget_sec
        if permanent or reason in policy.permanent_on or node.made > policy.max or over_budget:
            node.state = "failed"
        else:
            node.until = node.signal = None
            node.state, node.retry_at = "deferred", self.now + delay

    def _retry(self, chosen: tuple[int, ...] | None) -> None:
        again: set[int] = set()
        later = self._later_nodes()
        if chosen and not set(chosen) - set(later):
            self._retry_later(chosen)
            return
        undone = {
            index
            for undo, index in self._undone().items()
            if self.nodes[undo].first_issued_at is not None
        }
        chosen_here = {*(chosen or ()), *undone} - set(later)
        if self.ended_by is not None and self.outcome is not TaskStatus.FINISHED:
            chosen_here.add(self.ended_by)
        all_stopped = self.outcome is not TaskStatus.FINISHED

        def run_again(index: int, *, with_all_below: bool) -> None:
            again.add(index)
            for edge in self.plan.children[index]:
                if with_all_below or self.nodes[edge.node].state != "finished":
                    run_again(edge.node, with_all_below=with_all_below)
                elif self._missed_something(edge):
                    # It had finished, and its result is replaced, and so are all results computed
                    # from it.
                    run_again(edge.node, with_all_below=True)

        for index, node in enumerate(self.nodes):
            if index in later:
                continue
            if index in chosen_here:
                run_again(index, with_all_below=True)
            elif (node.state == "cancelled" and all_stopped) or (
                chosen is None and self._failed_for_good(index)
            ):
                run_again(index, with_all_below=False)
        while needed := [
            index
            for index, node in enumerate(self.nodes)
            if index not in later and node.state == "cancelled" and self._is_missed(index, again)
        ]:
            for index in needed:
                run_again(index, with_all_below=False)
        for index, node in enumerate(self.nodes):
            required = index in (chosen or ()) or node.state == "finished"
            self.nodes[index] = (
                Node(required=required, attempt=node.attempt)
                if index in again
                else replace(node, excused=True)
            )
        self.finishes = [index for index in self.finishes if index not in again]
        self._hold(later)
        if again or self.outcome is not TaskStatus.FINISHED:
            self.outcome, self.delayed_at, self.ended_by = None, None, None
        self.phase, self.status = "main", TaskStatus.QUEUED
        self.begun = self.begun and not again
        self._set_deadline()

    def _retry_later(self, chosen: tuple[int, ...]) -> None:
        """Run undos again, then ``finally``. The nodes of the main phase stay as they are."""
        self._hold(self.later["finally"])
        self.phase, self.status = "main", TaskStatus.QUEUED
        for index in set(chosen) & set(self.later["undo"]):
            if self.nodes[index].first_issued_at is None:
                continue
            self.nodes[index] = Node(state="ready")
            self.phase = "undo"

    def _hold(self, later: list[int]) -> None:
        for index in later:
            self.nodes[index] = Node(state="held", attempt=self.nodes[index].attempt)

    def _later_nodes(self) -> list[int]:
        return [*self.later["undo"], *self.later["finally"]]

    def _undone(self) -> dict[int, int]:
        """Return the node of each undo."""
        ids = {node.node_id: index for index, node in enumerate(self.plan.nodes)}
        return {
            index: ids[self.plan.nodes[index].node_id.removesuffix("~undo")]
            for index in self.later["undo"]
        }

    def _stopping(self) -> bool:
        """Return whether the main phase is being stopped."""
        return self.outcome is not None and self.phase == "main"

    def _begin_phases(self) -> None:
        """Begin the next phases while all nodes of the earlier ones have ended."""
        while not self._awaits_output() and all(
            node.state in (*ENDED, "held") for node in self.nodes
        ):
            waiting = [
                phase
                for phase in ("undo", "finally")
                if any(self.nodes[index].state == "held" for index in self.later[phase])
            ]
            if not waiting:
                return
            self.phase = waiting[0]
            self.outcome = self.outcome or self._main_outcome()
            self.paused = False
            for index in self.later[self.phase]:
                self.nodes[index].state = "waiting"
                if self.phase == "undo":
                    bad = self.outcome is not TaskStatus.FINISHED
                    due = bad and self._undone()[index] in self.finishes
                    self.nodes[index].state = "ready" if due else "skipped"
            self._follow()
            self._begin_controls()
            self._issue()

    def _main_outcome(self) -> TaskStatus:
        main = range(len(self.nodes) - len(self._later_nodes()))
        return TaskStatus.FAILED if any(map(self._failed_for_good, main)) else TaskStatus.FINISHED

    def _is_missed(self, index: int, again: set[int]) -> bool:
        """Return whether a stopped node is missed by a child that runs again.

        It is, if the child cannot start with the other data. A child that was skipped for lack of
        that data is missed in its turn.
        """
        for edge in () if self.plan.nodes[index].optional else self.plan.children[index]:
            wanted = edge.node in again or (
                self.nodes[edge.node].starved and self._is_missed(edge.node, again)
            )
            if index not in again and wanted and edge.route is not Route.ON_FAILURE:
                kept = [
                    self._said(other)
                    for other in self.plan.parents[edge.node]
                    if other.node not in again
                ]
                need = self.plan.nodes[edge.node].fan_in
                if need == "ended":
                    continue
                if need == "all" or kept.count("good") < (
                    1 if need == "any" else int(need.split(":")[1])
                ):
                    return True
        return False

    def _missed_something(self, edge: Edge) -> bool:
        """Return whether a finished node could get more data from this parent, which runs again.

        A node that waits for all of its parents misses the data that any parent did not give. A
        node that waits for some misses nothing, unless it pulled from its parents and did not ask
        to stop the others.
        """
        child = self.plan.nodes[edge.node]
        return child.fan_in in ("all", "ended") or (
            self.nodes[edge.node].pulled and child.on_satisfied == "leave"
        )

    # ------------------------------------------------------------ time

    def _set_deadline(self) -> None:
        self.deadline_at = None if self.deadline_sec is None else self.now + self.deadline_sec

    def _time_passed(self, silent: dict[str, float]) -> None:
        if self.deadline_at is not None and self.now >= self.deadline_at and self.outcome is None:
            self.deadline_passed = True
            self._stop_everything(TaskStatus.FAILED)
            return
        for index, node in enumerate(self.nodes):
            if index in self.plan.nested and node.state in IN_FLIGHT:
                # Its child task is stopped first.
                limit = self.plan.nodes[index].timeouts.start_to_close_sec
                late = limit is not None and self.now - node.issued_at >= limit
                node.overdue = node.overdue or (late and node.state == "running")
            elif self._waits(index):
                self._wait_on(index)
            elif node.state == "deferred" and self.now >= node.retry_at:
                node.state = "ready"
            elif node.state == "cancelling" and self.now >= node.cancel_by:
                self._end_stopped(node)
            elif node.state in ("issued", "running") and (reason := self._overdue(index, silent)):
                self._attempt_failed(index, reason)
            self._follow()

    def _overdue(self, index: int, silent: dict[str, float]) -> str | None:
        node, limits = self.nodes[index], self.plan.nodes[index].timeouts

        def passed(since: float | None, limit: float | None) -> bool:
            return since is not None and limit is not None and self.now - since >= limit

        if node.state == "issued":
            return (
                "schedule_to_start_timeout"
                if passed(node.issued_at, limits.schedule_to_start_sec)
                else None
            )
        if passed(node.began_at, limits.start_to_close_sec):
            return "start_to_close_timeout"
        if passed(node.heard_at, limits.heartbeat_sec):
            return "heartbeat_timeout"
        patience = max(
            self.settings.worker_lost_sec, self.settings.lease_ttl_sec * 2 ** (node.made - 1)
        )
        return "worker_lost" if silent.get(node.worker or "", 0.0) >= patience else None

    # ------------------------------------------------------------ waits

    def _waits(self, index: int) -> bool:
        """Return whether a control node has begun and is not between two attempts."""
        node = self.nodes[index]
        return index in self.plan.controls and node.state == "deferred" and node.retry_at == 0

    def _begin_controls(self) -> None:
        while not self._stopping() and not self.paused:
            ready = [i for i in self.plan.controls if self.nodes[i].state == "ready"]
            if not ready:
                return
            index = min(ready)
            node, io = self.nodes[index], self.plan.nodes[index].io.model_extra
            node.made += 1
            node.attempt += 1
            node.state, node.issued_at, node.until, node.retry_at = "deferred", self.now, None, 0
            node.signal = None
            if node.first_issued_at is None:
                node.first_issued_at = self.now
            self.begun = True
            if "${" not in str(io):
                self._wait(index, {})
            for parent in self._unneeded(index):
                self._stop(parent)
            self._follow()

    def _wait(self, index: int, values: dict[str, Any]) -> None:
        """Start a wait, given the values of its expressions."""
        node, given = self.nodes[index], {**self.plan.nodes[index].io.model_extra, **values}
        argument, kind = ARGUMENTS[self.plan.nodes[index].type]
        if not isinstance(given[argument], kind):
            node.state = "failed"
            return
        seconds = given[argument] if kind is int else given.get("timeout_sec")
        node.until = inf if seconds is None else node.issued_at + seconds
        if argument == "signal":
            node.signal = given["signal"]
            self._take_a_kept_signal(index)
        elif kind is int and self.now >= node.until:
            self._finish(index)

    def _is_approval(self, index: int) -> bool:
        return self.plan.nodes[index].type == "approval"

    def _decide(self, index: int, choice: str) -> None:
        on_reject = self.plan.nodes[index].io.model_extra["on_reject"]
        if choice == "reject" and on_reject == "fail":
            self.nodes[index].state = "failed"
        else:
            self._finish(index)

    def _signalled(self, signal: SignalReceived) -> None:
        """Give a signal to the node that has waited for it the longest, or keep it."""
        if signal.signal_id in self.signal_ids:
            return
        self.signal_ids.add(signal.signal_id)
        waiting = [
            (node.issued_at, index)
            for index, node in enumerate(self.nodes)
            if self._waits(index) and self._may_take(index, signal)
        ]
        if waiting:
            self._finish(min(waiting)[1])
        else:
            self.kept.append(signal)

    def _may_take(self, index: int, signal: SignalReceived) -> bool:
        allowed = signal.nodes is None or index in signal.nodes
        return allowed and self.nodes[index].signal == signal.name

    def _take_a_kept_signal(self, index: int) -> None:
        for signal in self.kept:
            if self._may_take(index, signal):
                self.kept.remove(signal)
                self._finish(index)
                return

    def _out_of_time(self, index: int) -> None:
        """End a wait for which nothing came in time; a sleep finishes."""
        io = self.plan.nodes[index].io.model_extra
        if self.plan.nodes[index].type == "sleep":
            self._finish(index)
        else:
            self.nodes[index].state = "skipped" if io.get("on_timeout") == "skip" else "failed"

    def _wait_on(self, index: int) -> None:
        """End a wait that is over."""
        node, limit = self.nodes[index], self.plan.nodes[index].timeouts.start_to_close_sec
        ends = [(node.until, "time")] if node.until is not None else []
        ends += [(node.issued_at + limit, "to long")] if limit is not None else []
        due = [end for end in ends if self.now >= end[0]]
        if due and min(due, key=lambda end: end[0])[1] == "time":
            self._out_of_time(index)
        elif due:
            self._attempt_failed(index, "start_to_close_timeout")

    # ------------------------------------------------------------ consequences

    def _follow(self) -> None:
        """Apply all consequences of the nodes' states until none is left."""
        while not self._stopping() and self._follow_once():
            pass

    def _follow_once(self) -> bool:
        failed = [
            index
            for index, node in enumerate(self.nodes)
            if self._failed_for_good(index) and not node.excused
        ]
        if failed and self.plan.on_node_failure == "stop" and self.phase == "main":
            self._stop_everything(TaskStatus.FAILED)
            return True
        for index, node in enumerate(self.nodes):
            if node.state in (*ENDED, "held"):
                continue
            met = self._met(index)
            if met is None and node.state in UNBEGUN and not node.made:
                node.state = "skipped"
                node.starved = any(self._said(edge) == "bad" for edge in self.plan.parents[index])
                return True
            if met is None and node.state != "cancelling":
                node.owed_nothing = all(
                    self._said(edge) != "bad" for edge in self.plan.parents[index]
                )
                self._stop(node)
                return True
            if node.state == "waiting" and (met or self._streams(index)):
                node.state = "checking" if self.plan.nodes[index].when is not None else "ready"
                return True
        return self._stop_what_is_not_needed()

    def _stop_what_is_not_needed(self) -> bool:
        unneeded = [
            parent
            for index, node in enumerate(self.nodes)
            if node.state in IN_FLIGHT
            for parent in self._unneeded(index)
        ]
        for node in unneeded:
            self._stop(node)
        return bool(unneeded)

    def _unneeded(self, index: int) -> list[Node]:
        """Return the parents that a node which has started stops."""
        if self.plan.nodes[index].on_satisfied != "cancel" or not self._met(index):
            return []
        return [
            self.nodes[edge.node]
            for edge in self.plan.parents[index]
            if self.nodes[edge.node].state not in (*ENDED, "cancelling")
            and not self.nodes[edge.node].required
        ]

    def _met(self, index: int) -> bool | None:
        """Return whether a node's fan-in holds; None if it never will."""
        edges = self.plan.parents[index]
        said = [self._said(edge) for edge in edges]
        need = self.plan.nodes[index].fan_in
        if not edges:
            return True
        if need == "all":
            if "bad" in said or set(said) == {"nothing"}:
                return None
            return "open" not in said
        if need == "ended":
            if "open" in said:
                return False
            not_taken = set(said) == {"nothing"} and all(edge.route for edge in edges)
            return None if not_taken else True
        wanted = 1 if need == "any" else int(need.split(":")[1])
        if said.count("good") >= wanted:
            return True
        return False if said.count("good") + said.count("open") >= wanted else None

    def _said(self, edge: Edge) -> str:
        """Return the state of an edge: ``open``, ``good``, ``bad`` or ``nothing``.

        ``bad`` means that the parent owes data that will not come, ``nothing`` that it owes none.
        An edge on failure is owed nothing unless the parent itself failed. An edge on success is
        owed nothing after a handled failure, because the branch was not taken. A skipped parent
        owes the data that it was owed itself.
        """
        parent = self.nodes[edge.node]
        if parent.state not in ENDED:
            return "open"
        if edge.route is Route.ON_FAILURE:
            return "good" if parent.state == "failed" else "nothing"
        if parent.state == "finished":
            return "good"
        if parent.state == "skipped" and not parent.starved:
            return "nothing"
        branch_not_taken = (
            edge.route is Route.ON_SUCCESS
            and parent.state == "failed"
            and self._is_handled(edge.node)
        )
        optional = self.plan.nodes[edge.node].optional
        return "nothing" if branch_not_taken or optional else "bad"

    def _streams(self, index: int) -> bool:
        """Return whether a streaming parent has a batch and all others have ended."""
        edges = self.plan.parents[index]
        batches = [self.nodes[edge.node].has_batch for edge in edges if edge.streams]
        return any(batches) and all(
            self.nodes[edge.node].state in ENDED for edge in edges if not edge.streams
        )

    def _failed_for_good(self, index: int) -> bool:
        """Return whether a node failed that is not optional, and no branch handles it."""
        return (
            self.nodes[index].state == "failed"
            and not self.plan.nodes[index].optional
            and not self._is_handled(index)
        )

    def _is_handled(self, index: int) -> bool:
        """Return whether a failure of this node has a branch."""
        return any(edge.route is Route.ON_FAILURE for edge in self.plan.children[index])

    def _stop_everything(self, outcome: TaskStatus) -> None:
        self.outcome = outcome
        self.paused = False
        for node in self.nodes:
            if node.state not in (*ENDED, "cancelling", "held"):
                self._stop(node)

    def _stop(self, node: Node) -> None:
        if node.state == "running":
            node.state, node.cancel_by = "cancelling", self.now + self.settings.cancel_grace_sec
        else:
            self._end_stopped(node)

    @staticmethod
    def _end_stopped(node: Node) -> None:
        node.state = "skipped" if node.owed_nothing else "cancelled"

    def _issue(self) -> None:
        """Issue the nodes that may start, the most urgent first, while there is room."""
        undone = self._undone()
        while not self._stopping() and not self.paused:
            flying = [index for index, node in enumerate(self.nodes) if node.state in IN_FLIGHT]
            taken = {self.plan.nodes[index].concurrency_key for index in flying} - {None}
            own = self.plan.max_parallel
            limit = min(own or self.settings.max_in_flight, self.settings.max_in_flight)
            if self.phase == "undo":
                limit = 0 if any(node.state == "deferred" for node in self.nodes) else 1
            free = [
                (-spec.priority, index)
                for index, spec in enumerate(self.plan.nodes)
                if self.nodes[index].state == "ready"
                and index not in self.plan.controls
                and spec.concurrency_key not in taken
                and (own is None or len(flying) + 1 < limit or self._has_input(index))
            ]
            if not free or len(flying) >= limit:
                return
            index = min(free)[1]
            if self.phase == "undo":
                index = max((i for _, i in free), key=lambda i: self.finishes.index(undone[i]))
            node, spec = self.nodes[index], self.plan.nodes[index]
            node.made += 1
            node.issued_at = self.now
            node.first_issued_at = (
                self.now if node.first_issued_at is None else node.first_issued_at
            )
            node.heard_at, node.worker, node.sent, node.place = None, None, False, None
            node.overdue = False
            node.state = "running" if spec.type in ("coordinator_fn", "subflow") else "issued"
            if node.state == "running":
                node.began_at = self.now
                self.begun = True
            self.unnamed.append(index)
            self._follow()
            self._begin_controls()

    def _has_input(self, index: int) -> bool:
        """Return whether the artifacts that a node reads are stored or being made."""
        adapter = self.plan.nodes[index].io.input_adapter
        streams = any(edge.streams for edge in self.plan.parents[index])
        return (adapter is None and not streams) or all(
            self.nodes[source].state in ENDED
            or (self.nodes[source].state in IN_FLIGHT and self._has_input(source))
            for source in self.plan.sources[index]
        )

    def _has_failed(self) -> bool:
        return any(map(self._failed_for_good, range(len(self.nodes))))

    def _awaits_output(self) -> bool:
        """Return whether only the output is missing."""
        return (
            self.plan.output is not None
            and all(node.state in (*ENDED, "held") for node in self.nodes)
            and self.outcome is None
            and not self._has_failed()
        )

    def _see_status(self) -> None:
        states = {node.state for node in self.nodes}
        bad_end = any(map(self._failed_for_good, self.later["finally"]))
        if states <= set(ENDED) and not self._awaits_output():
            self.outcome = self.outcome or self._main_outcome()
            good = self.outcome is TaskStatus.FINISHED
            self.status = TaskStatus.FAILED if good and bad_end else self.outcome
            self.paused = False
        elif self.outcome is not None and (bad_end or self.outcome is not TaskStatus.FINISHED):
            self.status = TaskStatus.CANCELLING
        elif self.paused:
            self.status = TaskStatus.PAUSED
        elif "deferred" in states and not states & set(IN_FLIGHT):
            self.status = TaskStatus.DEFERRED
        else:
            self.status = TaskStatus.RUNNING if self.begun else TaskStatus.QUEUED
