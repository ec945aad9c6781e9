"""A second, naive implementation of the rules: it derives everything again after every event.

It knows only the nodes and edges of a graph, the ids of children of maps, and the tokens of
attempts.
"""

from collections.abc import Callable
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
    MapCollected,
    MapFailed,
    MapGrew,
    MapOpened,
    NodeResolved,
    OutputDelayed,
    OutputEvaluated,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RoundChecked,
    RunNowRequested,
    SignalReceived,
    TaskSubmitted,
    Woke,
)
from flowkit.graph import Plan
from flowkit.messages import (
    BatchesRetried,
    BatchStored,
    ChildEnded,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import NodeStatus, TaskStatus
from tests.engine.reference import child_tasks, maps, operators, waits
from tests.engine.reference.consequences import follow
from tests.engine.reference.ends import (
    attempt_failed,
    end_stopped,
    fail,
    finish,
    stop_everything,
)
from tests.engine.reference.phases import awaits_output, begin_phases, cancel, see_status
from tests.engine.reference.reruns import retry
from tests.engine.reference.starts import issue
from tests.engine.reference.state import ENDED, IN_FLIGHT, Node, State
from tests.engine.reference.timers import look_after, set_deadline, time_passed


class Reference:
    def __init__(
        self,
        plan: Plan,
        *,
        settings: EngineSettings,
        deadline_sec: float | None,
        name_of: Callable[[int], str | None],
    ) -> None:
        """``name_of`` returns the id of the node at a place of the engine, None for no node."""
        self.state = State(plan, settings=settings, deadline_sec=deadline_sec)
        self._name_of = name_of

    # ------------------------------------------------------------ nodes by their ids

    def id_of(self, node: Node) -> str:
        suffix = "" if node.item is None else f"[{node.item}]"
        return self.state.spec(node).node_id + suffix

    def node(self, place: int) -> Node | None:
        """Return the node at a place of the engine."""
        return self.by_id().get(self._name_of(place) or "")

    def by_id(self) -> dict[str, Node]:
        return {self.id_of(node): node for node in self.state.everyone()}

    def statuses(self) -> dict[str, NodeStatus]:
        return {self.id_of(node): self.state.status_of(node) for node in self.state.everyone()}

    def name_attempt(self, node: Node, token: str, number: tuple[int, int]) -> None:
        """Record the token of the attempt just issued, its number and its handovers. No worker has
        the token of a map, whose children run.
        """
        node.number = number
        if not self.state.is_map(node):
            node.present = token
            node.tokens.append(token)

    # ------------------------------------------------------------ events

    def happen(self, event: Event, *, now: float) -> None:
        state = self.state
        state.now = now
        state.unnamed, state.after, state.followed = [], [], set()
        state.deadline_passed = False
        if not self._heard(event):
            return
        self._settle()
        while state.just_begun:
            state.just_begun.clear()
            self._settle()
        see_status(state)
        if isinstance(event, Woke):
            state.after = [
                (what, node)
                for node in state.everyone()
                if (what := look_after(state, node, event.silent))
            ]

    def _settle(self) -> None:
        while maps.close_a_map(self.state):
            follow(self.state)
        follow(self.state)
        waits.begin_controls(self.state)
        issue(self.state)
        begin_phases(self.state)

    def _heard(self, event: Event) -> bool:
        """Apply an event. Return False if nothing can follow from it."""
        state = self.state
        if isinstance(event, TaskSubmitted):
            if state.submitted:
                return False
            state.submitted = True
            set_deadline(state)
        elif isinstance(event, RetryRequested):
            # Only the retry of a dead letter runs a finished task again.
            finished = state.status is TaskStatus.FINISHED
            if not state.status.terminal or (finished and not event.fill):
                return False
            named = None if event.nodes is None else [*map(self.node, event.nodes)]
            retry(state, named, fill=event.fill)
        elif state.status.terminal:
            return False
        elif isinstance(event, Woke):
            time_passed(state, event.silent)
        elif isinstance(event, CancelRequested):
            if event.force:
                child_tasks.follow_again(state)
            cancel(state, force=event.force)
        elif isinstance(event, PauseRequested):
            # It reaches all child tasks, also of a task that is paused: they may run alone.
            if state.outcome is None:
                state.paused = True
                child_tasks.follow_again(state)
        elif isinstance(event, ResumeRequested):
            state.paused = False
            child_tasks.resumed(state)
            child_tasks.follow_again(state)
        elif isinstance(event, CommandsLost | CommandsSent):
            self._commands(event)
            return False
        elif isinstance(event, ChildrenCreated):
            for stored in event.nodes:
                if (parent := self.node(stored.index)) is not None:
                    child_tasks.child_created(state, parent, stored)
            return False
        elif isinstance(event, OutputDelayed):
            if awaits_output(state) and state.delayed_at is None:
                state.delayed_at = state.now
            return False
        elif isinstance(event, OutputEvaluated):
            if awaits_output(state) and event.since == state.delayed_at:
                state.outcome = TaskStatus.FAILED if event.error else TaskStatus.FINISHED
        elif isinstance(event, SignalReceived):
            waits.signalled(state, event)
        elif (node := self.node(event.index)) is not None:
            self._reported(node, event)
        return True

    def _commands(self, event: CommandsLost | CommandsSent) -> None:
        """Record that commands are on the bus, or send them again if they are lost. The same
        command is no new attempt, and changes nothing else.
        """
        for command in event.commands:
            node = self.node(command.index)
            if node is None or not node.is_issued(command):
                continue
            if isinstance(event, CommandsLost) and node.place == command.place:
                node.sent, node.place = False, None
                self.state.after.append(("run", node))
            elif isinstance(event, CommandsSent) and not node.sent:
                node.sent, node.place = True, command.place

    def _reported(self, node: Node, event: Any) -> None:
        state = self.state
        match event:
            case ArgumentsEvaluated():
                waits.arguments_evaluated(state, node, event)
            case RunNowRequested():
                operators.run_now(state, node, event)
            case NodeResolved():
                operators.resolved(state, node, event)
            case DecisionMade():
                waits.decided(state, node, event)
            case ChildEnded():
                # Only a hint: the child task is read from the store.
                if child_tasks.is_followed(state, node):
                    state.followed.add(node)
            case ChildFinished() | ChildFailed() | RoundChecked():
                child_tasks.child_reported(state, node, event)
            case MapOpened() | MapGrew() | MapFailed() | MapCollected():
                maps.map_reported(state, node, event)
            case ConditionEvaluated():
                if node.state == "checking" and event.error:
                    fail(state, node, "bad_condition")
                elif node.state == "checking" and event.value:
                    node.state = "ready"
                elif node.state == "checking":
                    node.end("skipped")
            case NodeSucceeded() | FunctionReturned():
                # The first success of any issued attempt counts.
                if event.token in node.tokens and node.state not in ENDED:
                    self._succeeded(node, event)
            case _ if event.token != node.present or node.state not in IN_FLIGHT:
                pass
            case _:
                self._reported_of_current_attempt(node, event)

    def _succeeded(self, node: Node, event: NodeSucceeded | FunctionReturned) -> None:
        state = self.state
        if node.resolution is not None:
            if event.token == node.present:
                end_stopped(state, node)
            return
        state.begun = True
        finish(state, node, event.result)
        node.pulled = isinstance(event, NodeSucceeded) and event.pulled
        ending = event.ending if isinstance(event, FunctionReturned) else None
        if ending is not None and state.outcome is None:
            state.ended_by = node.index
            stop_everything(state, ending.status)

    def _reported_of_current_attempt(self, node: Node, event: Any) -> None:
        state = self.state
        match event:
            case NodeStarted():
                self._begin(node, event.worker_id)
            case NodeProgressed() | BatchStored() | BatchesRetried() | NodeHeldUp() if (
                node.state != "cancelling"
            ):
                self._begin(node, event.worker_id)
                node.heard_at = state.now
                node.has_batch = node.has_batch or isinstance(event, BatchStored)
            case NodeFailed() | FunctionFailed():
                state.begun = True
                permanent = event.permanent
                attempt_failed(state, node, event.reason_code, permanent=permanent)
            case NodeStopped():
                attempt_failed(state, node, "stopped")
            case NodeReleased():
                if node.state == "cancelling":
                    end_stopped(state, node)
                else:
                    node.state, node.present = "ready", None
                    node.made -= 1

    def _begin(self, node: Node, worker: str) -> None:
        if node.state == "issued":
            node.state, node.worker = "running", worker
            node.began_at = node.heard_at = self.state.now
            self.state.begun = True
