"""The engine against a naive implementation of the same rules, over random graphs and events."""

from dataclasses import replace
from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flowkit._engine import (
    ArgumentsEvaluated,
    AskWorker,
    CallFunction,
    CancelRequested,
    CheckCommand,
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    CommandsLost,
    CommandsSent,
    ConditionEvaluated,
    DecisionMade,
    Effect,
    EngineSettings,
    EvaluateArguments,
    EvaluateCondition,
    EvaluateOutput,
    Event,
    FunctionFailed,
    FunctionReturned,
    OutputDelayed,
    OutputEvaluated,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RunChild,
    SendCancel,
    SendCommand,
    SentCommand,
    SignalReceived,
    TaskEnding,
    TaskSubmitted,
    Transition,
    Woke,
    advance,
    awaits_output,
    pending_effects,
)
from flowkit.graph import Graph
from flowkit.messages import (
    BatchesRetried,
    BatchRetries,
    BatchStored,
    ChildEnded,
    NodeFailed,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.task import ENDED, STATUS_OF_MARK, Mark, ParentNode, TaskStatus
from flowkit_testing.simulation._fan_in import broken_fan_in
from tests.engine.drive import NOON, assert_nothing_drifted, copy_of, new_task
from tests.engine.flows import MAX_NODES, Word, graphs, scripts
from tests.engine.reference import Reference

FOREIGN = "0" * 24
AFTER = {CheckCommand: "check", AskWorker: "ask", CallFunction: "call", RunChild: "follow"}
VALUES = {
    "sleep": ("for_sec", (1, 3, 20, "much")),
    "wait_signal": ("signal", ("go", "stop", "go", 7)),
    "approval": ("prompt", ("Ship?", "Ship?", "Ship?", 7)),
}
"""Values of the arguments of control nodes, of which the last has the wrong type."""


class Both:
    """A task in the engine and in the reference, which get the same events and must agree."""

    def __init__(self, flow: Graph, *, deadline_sec: float | None, max_in_flight: int) -> None:
        self.settings = EngineSettings(max_in_flight=max_in_flight)
        self.task = new_task(flow, deadline_sec=deadline_sec)
        self.plan = flow.plan
        self.reference = Reference(flow.plan, settings=self.settings, deadline_sec=deadline_sec)
        self.now = NOON
        self.issued: dict[int, list[tuple[int, str]]] = {
            index: [] for index in range(len(flow.plan.nodes))
        }
        self.not_carried_out: list[Effect] = []
        self.sent = 0
        self.last: Event = TaskSubmitted()
        self.do(self.last)

    def do(self, event: Event) -> None:
        self.last = event
        self._assert_woken_in_time()
        task = self.task
        ended = {index for index, mark in enumerate(task.marks) if mark in ENDED}
        before = bytes(task.marks)
        step = advance(task, event, now=self.now, settings=self.settings)
        assert bytes(task.marks) == before
        if not step.ignored:
            step.apply()
        self.reference.happen(event, now=self.now)
        self._name_attempts()
        assert [STATUS_OF_MARK[mark] for mark in task.marks] == self.reference.node_statuses(), (
            event
        )
        starved = [node.starved for node in self.reference.nodes]
        assert [mark == Mark.UPSTREAM_FAILED for mark in task.marks] == starved, event
        assert task.status == self.reference.status, event
        kept = [(signal.name, signal.payload, signal.nodes) for signal in task.signals.kept]
        expected = [(signal.name, signal.payload, signal.nodes) for signal in self.reference.kept]
        assert kept == expected, event
        reason_codes = {index: record.reason_code for index, record in task.records.items()}
        assert broken_fan_in(self.plan, task.marks.decode(), reason_codes) is None, event
        self._assert_looked_after(event, step)
        if not isinstance(event, RetryRequested):
            assert all(task.marks[index] == before[index] for index in ended), (
                "a node that has ended never changes"
            )
        self._assert_order(step, before)
        self._assert_effects_are_restored(step)
        self._assert_idempotent(event)
        assert_nothing_drifted(task)

    def _assert_looked_after(self, event: Event, step: Transition) -> None:
        """Assert that the engine checks exactly the nodes without reports.

        For nodes that changed anyway, both answers are right.
        """
        if isinstance(event, Woke):
            done = {
                (AFTER[type(effect)], effect.index)
                for effect in step.effects
                if type(effect) in AFTER and effect.index not in step.marks
            }
            expected = {
                (what, index) for what, index in self.reference.after if index not in step.marks
            }
            assert done <= expected if event.due_only else done == expected
        elif isinstance(event, CommandsLost):
            assert [("run", effect.index) for effect in step.effects] == self.reference.after
            assert step.ignored == (not self.reference.after)

    def _name_attempts(self) -> None:
        for index in self.reference.unnamed:
            record = self.task.records[index]
            token = self.task.spec.token(index, record.attempt, record.handovers)
            assert (record.attempt, token) not in self.issued[index], (
                "every issue has its own token"
            )
            self.issued[index].append((record.attempt, token))
            self.reference.name(index, token, (record.attempt, record.handovers))

    def _assert_woken_in_time(self) -> None:
        """Assert that the task wakes in time for each change that time alone causes, and that each
        of these changes is due.
        """
        step = advance(self.task, Woke(), now=self.now, settings=self.settings)
        due = advance(self.task, Woke(due_only=True), now=self.now, settings=self.settings)
        assert due.marks == step.marks
        # A condition is evaluated with the event that made it due, or is delayed then.
        if step.wake_at is not None and Mark.CHECKING not in self.task.marks:
            assert due.wake_at is not None
            assert due.wake_at <= step.wake_at
        if step.marks:
            assert self.task.wake_at is not None
            assert self.task.wake_at <= self.now

    def _assert_order(self, step: Transition, before: bytes) -> None:
        """Assert that no node starts before its fan-in holds."""
        for effect in step.effects:
            if (
                isinstance(effect, SendCommand | CallFunction)
                and before[effect.index] == Mark.WAITING
            ):
                edges = self.plan.parents[effect.index]
                ended = sum(self.task.marks[edge.node] in ENDED for edge in edges)
                streams = any(
                    edge.streams and self.task.records[edge.node].has_batch
                    for edge in edges
                    if edge.node in self.task.records
                )
                assert ended == len(edges) or ended >= self.plan.need[effect.index] > 0 or streams

    def _assert_effects_are_restored(self, step: Transition) -> None:
        """Assert that every open decision follows from the task alone."""
        self.not_carried_out = [
            effect
            for effect in (*self.not_carried_out, *step.effects)
            if self._still_matters(effect)
        ]
        pending = pending_effects(self.task)
        assert all(effect in pending for effect in self.not_carried_out)
        assert {effect.index for effect in pending if isinstance(effect, SendCancel)} == {
            index
            for index, mark in enumerate(self.task.marks)
            if mark == Mark.CANCELLING and index not in self.plan.nested
        }

    def _still_matters(self, effect: Effect) -> bool:
        if isinstance(effect, EvaluateOutput):
            return awaits_output(self.task)
        mark, record = self.task.marks[effect.index], self.task.records.get(effect.index)
        match effect:
            case SendCommand(_, attempt):
                return (
                    mark == Mark.ISSUED
                    and record is not None
                    and record.attempt == attempt
                    and not record.sent
                )
            case CallFunction(_, attempt):
                return mark == Mark.RUNNING and record is not None and record.attempt == attempt
            case RunChild(_, attempt):
                begun = mark in (Mark.RUNNING, Mark.CANCELLING)
                return begun and record is not None and record.attempt == attempt
            case EvaluateArguments(_, attempt):
                return (
                    mark == Mark.DEFERRED
                    and record is not None
                    and record.attempt == attempt
                    and record.wait is None
                    and record.next_retry_at is None
                )
            case EvaluateCondition():
                return mark == Mark.CHECKING
        return False

    def _assert_idempotent(self, event: Event) -> None:
        if isinstance(event, RetryRequested) and self.task.terminal:
            return  # the retried nodes ended at once, so they can be retried again
        again = copy_of(self.task)
        step = advance(again, event, now=self.now, settings=self.settings)
        assert not step.marks
        assert step.status is again.status

    # ------------------------------------------------------------ events

    def hear(self, word: Word) -> None:
        kind, node, choice = word
        index = node % len(self.plan.nodes)
        if kind < 12:
            self.now += (1.0, 4.0, 10.0, 31.0)[choice % 4]
            self.do(Woke({"w": float(choice)} if kind < 3 else {}, due_only=kind > 7))
        elif kind < 14:
            self.do(CancelRequested(force=choice < 40))
        elif kind < 18:
            self.do(PauseRequested())
        elif kind < 24:
            self.do(ResumeRequested())
        elif kind < 28:
            self.do(RetryRequested(None if choice < 50 else (index,), fill=choice % 2 == 1))
        elif kind < 30:
            self.do(self.last)
        elif kind < 32:
            self.do(TaskSubmitted())
        elif kind < 36:
            sent = [
                SentCommand(
                    effect.index,
                    effect.attempt,
                    self.task.records[effect.index].handovers,
                    (0, choice) if choice % 2 else None,
                )
                for effect in pending_effects(self.task)
                if isinstance(effect, SendCommand)
            ]
            self.do(CommandsSent(sent[: choice % 3]))
        elif kind < 39:
            self.do(CommandsLost(self._commands(index, choice)))
        elif index in self.plan.controls:
            self._hear_of_a_wait(index, choice)
        elif kind < 42 and awaits_output(self.task):
            since = None if choice % 3 else self.now
            said = OutputEvaluated(choice, "broken" if choice > 80 else None, since)
            self.do(OutputDelayed() if choice < 40 else said)
        elif index in self.plan.nested and kind > 50:
            self.do(self._about_child(kind, index, choice))
        elif kind < 42:
            self.do(ConditionEvaluated(index, choice < 70, "broken" if choice > 94 else None))
        else:
            self.do(self._report(kind, index, choice))

    def _hear_of_a_wait(self, index: int, choice: int) -> None:
        """Report what a node waits for, and sometimes what it does not wait for."""
        record, node_type = self.task.records.get(index), self.plan.nodes[index].type
        waits = record is not None and record.wait is not None
        attempt = (record.attempt if record else 0) + (choice > 96)
        if node_type == "sleep" or waits == (choice % 10 == 0):
            self.do(self._arguments(index, attempt, choice))
        elif node_type == "approval":
            answer = "reject" if choice % 3 == 0 else "approve"
            self.do(DecisionMade(index, attempt, answer, "ann"))
        else:
            self.do(self._signal(index, choice))

    def _arguments(self, index: int, attempt: int, choice: int) -> ArgumentsEvaluated:
        argument, values = VALUES[self.plan.nodes[index].type]
        value = {argument: values[choice % 4]}
        return ArgumentsEvaluated(index, attempt, value, "no" if choice > 98 else None)

    def _signal(self, index: int, choice: int) -> SignalReceived:
        """Generate a signal: a new one or a known one, for all nodes or a single one."""
        self.sent += choice % 3 > 0
        name = "stop" if choice % 5 == 0 else "go"
        nodes = (index,) if choice % 7 == 0 else None
        return SignalReceived(name, self.sent, f"s{self.sent}", nodes)

    def _about_child(self, kind: int, index: int, choice: int) -> Event:
        """Generate a report about a child task: mostly of the current attempt."""
        record = self.task.records.get(index)
        attempt = (record.attempt if record else 0) - (choice > 90)
        if kind < 60:
            return ChildEnded(task_id="t", index=index)
        if kind < 65:
            return ChildrenCreated([ParentNode("t", "", index, 0, attempt)])
        if kind < 80:
            return ChildFinished(index, attempt, choice)
        reason_code = ("subflow_failed", "bad_input")[choice % 7 == 0]
        return ChildFailed(index, attempt, reason_code, "", permanent=choice % 5 == 0)

    def _commands(self, index: int, choice: int) -> list[SentCommand]:
        """Generate lost commands: mostly the current ones, sometimes others."""
        records = self.task.records
        chosen = sorted({index, choice % len(self.plan.nodes)} & {*records})
        found = [
            SentCommand(
                place, records[place].attempt, records[place].handovers, records[place].place
            )
            for place in chosen
        ]
        if choice < 75:
            return found
        if choice < 80:
            return [replace(command, place=(9, 9)) for command in found]
        return [
            replace(command, attempt=command.attempt + choice % 2, handovers=command.handovers + 1)
            for command in found
        ]

    def _report(self, kind: int, index: int, choice: int) -> Event:
        """Generate a report: mostly of the current attempt, sometimes of another one."""
        attempts = self.issued[index] or [(1, FOREIGN)]
        attempt, token = attempts[-1] if choice < 75 else attempts[choice % len(attempts)]
        if choice > 94:
            token = FOREIGN
        elif choice > 92:
            index = len(self.plan.nodes)
        if index < len(self.plan.nodes) and self.plan.nodes[index].type == "coordinator_fn":
            if kind < 75:
                statuses = (TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED)
                ending = TaskEnding(statuses[choice % 3]) if choice % 5 == 0 else None
                return FunctionReturned(index, attempt, token, self.now, ending=ending)
            if kind < 92:
                return FunctionFailed(index, attempt, token, self.now, "boom", choice % 5 == 0, "")
            return NodeStopped(
                task_id="t", index=index, attempt=attempt, token=token, worker_id="c", at=self.now
            )
        said: dict[str, Any] = {
            "task_id": "t",
            "index": index,
            "attempt": attempt,
            "token": token,
            "worker_id": "w",
            "at": self.now,
        }
        if kind < 55:
            return NodeStarted(**said)
        if kind < 60:
            return NodeProgressed(**said, progress=choice)
        if kind < 64:
            return BatchStored(**said)
        if kind < 67:
            return BatchesRetried(**said, retries=BatchRetries(number=choice, tries={"uid": 1}))
        if kind < 80:
            return NodeSucceeded(**said, started_at=self.now, pulled=choice % 2 == 0)
        if kind < 90:
            return NodeFailed(
                **said,
                started_at=self.now,
                reason_code=("boom", "bad_input")[choice % 7 == 0],
                permanent=choice % 5 == 0,
            )
        return NodeStopped(**said) if kind < 94 else NodeReleased(**said)

    def answer_everything(self) -> None:
        """Answer every open effect until the task ends."""
        self.do(ResumeRequested())
        for _ in range(20 * len(self.plan.nodes) + 20):
            if self.task.terminal:
                return
            if awaits_output(self.task):
                output = self.task.output
                self.do(OutputEvaluated(1, since=None if output is None else output.since))
                continue
            for index, mark in enumerate(bytes(self.task.marks)):
                if index in self.plan.controls and mark == Mark.DEFERRED:
                    self._answer_wait(index)
                elif mark == Mark.CHECKING:
                    self.do(ConditionEvaluated(index, True))
                elif index in self.plan.nested:
                    if mark in (Mark.RUNNING, Mark.CANCELLING):
                        self.do(ChildFinished(index, self.task.records[index].attempt))
                elif mark in (Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING):
                    self.do(self._report(70, index, 0))
            if not self.task.terminal and self.task.wake_at is not None:
                self.now = max(self.now, self.task.wake_at)
                self.do(Woke(due_only=True))
        raise AssertionError(f"not at its end: {self.task.marks!r} {self.task.status}")

    def _answer_wait(self, index: int) -> None:
        record = self.task.records[index]
        self.do(self._arguments(index, record.attempt, 1))
        record = self.task.records[index]
        if record.wait is not None and record.wait.kind == "approval":
            self.do(DecisionMade(index, record.attempt, "approve", "ann"))
        elif record.wait is not None and record.wait.kind == "signal":
            self.sent += 1
            name = record.wait.arguments["signal"]
            self.do(SignalReceived(name, self.sent, f"s{self.sent}", (index,)))


@settings(
    max_examples=300,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
)
@given(
    graphs(),
    scripts(),
    st.sampled_from([None, None, 60.0]),
    st.sampled_from([1, 2, 512]),
    st.integers(0, 2 * MAX_NODES + 1),
)
def test_the_engine_does_what_the_rules_say(
    document: dict[str, Any],
    script: list[Word],
    deadline_sec: float | None,
    max_in_flight: int,
    letter: int,
) -> None:
    both = Both(Graph.parse(document), deadline_sec=deadline_sec, max_in_flight=max_in_flight)
    for word in script:
        both.hear(word)
    both.answer_everything()
    assert both.task.status in (TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED)
    both.do(RetryRequested((letter % len(both.plan.nodes),), fill=True))
    both.answer_everything()


@settings(max_examples=80, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(graphs(waits=True), scripts(min_size=12))
def test_the_engine_gives_signals_and_decisions_to_the_nodes_that_the_rules_say(
    document: dict[str, Any], script: list[Word]
) -> None:
    both = Both(Graph.parse(document), deadline_sec=None, max_in_flight=2)
    for word in script:
        both.hear(word)
    both.answer_everything()
    both.do(RetryRequested((script[0][1] % len(both.plan.nodes),), fill=True))
    both.answer_everything()
