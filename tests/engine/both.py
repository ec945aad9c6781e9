"""A task in the engine and in the reference, which get the same events and must agree."""

from collections.abc import Sequence

from flowkit._engine import (
    AskWorker,
    CallFunction,
    CheckCommand,
    ChildrenDue,
    CollectMap,
    CommandsLost,
    Effect,
    EngineSettings,
    EvaluateArguments,
    EvaluateCondition,
    EvaluateOutput,
    Event,
    OpenMap,
    ReadArtifacts,
    RetryRequested,
    RunChild,
    SendCancel,
    SendCommand,
    TaskSubmitted,
    Transition,
    Woke,
    advance,
    awaits_output,
    child_node,
    pending_effects,
)
from flowkit._records.record_parts import RecordWriter
from flowkit._records.task_records import decode_task, encode_spec, header_of
from flowkit.graph import Graph
from flowkit.protocols import TaskRecord
from flowkit.task import ENDED, STATUS_OF_MARK, Mark, NodeStatus
from flowkit_testing.simulation._fan_in import broken_fan_in
from tests.engine.drive import NOON, assert_nothing_drifted, copy_of, new_task
from tests.engine.reference.interpreter import Reference
from tests.engine.reference.maps import need
from tests.engine.reference.state import Node

WORDS: dict[type, str] = {
    CheckCommand: "check",
    AskWorker: "ask",
    CallFunction: "call",
    RunChild: "follow",
    OpenMap: "open",
    ReadArtifacts: "read",
    CollectMap: "collect",
}
"""Effects for nodes without reports, and for what maps need."""


class Both:
    def __init__(self, flow: Graph, *, deadline_sec: float | None, max_in_flight: int) -> None:
        self.settings = EngineSettings(max_in_flight=max_in_flight)
        self.task = new_task(flow, deadline_sec=deadline_sec)
        self.plan = flow.plan
        self.reference = Reference(
            flow.plan, settings=self.settings, deadline_sec=deadline_sec, name_of=self.name_of
        )
        self.now = NOON
        self.issued: dict[int, list[tuple[int, str]]] = {}
        self.not_carried_out: list[Effect] = []
        self.child_tasks: dict[tuple[int, int | None, int, int], str] = {}
        """Child task of each round of each life of a node."""
        self._spec = encode_spec(self.task.spec, flow.to_json())
        self.last: Event = TaskSubmitted()
        self.do(self.last)

    def name_of(self, place: int) -> str | None:
        """Return the id of the node at a place; None if there is none, or no longer."""
        plan = self.task.spec.plan
        name = plan.ids[place] if place < len(self.task.marks) else None
        return name if name is not None and plan.index.get(name) == place else None

    def place_of(self, node: Node) -> int:
        return self.task.spec.plan.index[self.reference.id_of(node)]

    # ------------------------------------------------------------ events

    def do(self, event: Event) -> None:
        self.last = event
        self._assert_woken_in_time()
        before = bytes(self.task.marks)
        needs = self._needs()
        self.reference.happen(event, now=self.now)
        steps = self._apply(event)
        self._name_attempts()
        self._assert_equal(event)
        self._assert_looked_after(event, steps)
        self._assert_child_tasks_follow(event, steps)
        self._assert_maps_get_what_they_need(steps, needs)
        if not isinstance(event, RetryRequested):
            after = self.task.marks
            assert all(after[at] == mark for at, mark in enumerate(before) if mark in ENDED), (
                "a node that has ended never changes"
            )
        for step in steps:
            self._assert_order(step, before)
        self._assert_effects_are_restored(steps)
        self._assert_idempotent(event)
        if self.task.blocks:
            self._assert_stored()
        assert_nothing_drifted(self.task)

    def _apply(self, event: Event) -> list[Transition]:
        """Apply an event, and the starts of new children, which belong to the same commit."""
        before = bytes(self.task.marks)
        step = advance(self.task, event, now=self.now, settings=self.settings)
        assert bytes(self.task.marks) == before
        if not step.ignored:
            step.apply()
        steps = [step]
        for effect in step.effects:
            if isinstance(effect, OpenMap) and effect.index in self.task.maps:
                steps += self._apply(ChildrenDue(effect.index, effect.attempt))
        return steps

    def _name_attempts(self) -> None:
        for node in self.reference.state.unnamed:
            place = self.place_of(node)
            record = self.task.records[place]
            token = self.task.spec.token(place, record.attempt, record.handovers)
            issued = self.issued.setdefault(place, [])
            assert (record.attempt, token) not in issued, "every issue has its own token"
            issued.append((record.attempt, token))
            self.reference.name_attempt(node, token, (record.attempt, record.handovers))

    # ------------------------------------------------------------ state

    def _assert_equal(self, event: Event) -> None:
        task, state = self.task, self.reference.state
        plan = task.spec.plan
        names = {name: at for at in range(len(task.marks)) if (name := self.name_of(at))}
        statuses = {name: STATUS_OF_MARK[task.marks[at]] for name, at in names.items()}
        assert statuses == self.reference.statuses(), event
        starved = [node.starved for node in state.nodes]
        marks = task.marks[: plan.size]
        assert [mark == Mark.UPSTREAM_FAILED for mark in marks] == starved, event
        assert task.status == state.status, event
        kept = [(signal.name, signal.payload, signal.nodes) for signal in task.signals.kept]
        expected = [(signal.name, signal.payload, signal.nodes) for signal in state.kept]
        assert kept == expected, event
        reason_codes = {index: record.reason_code for index, record in task.records.items()}
        resolved = [index for index, record in task.records.items() if record.resolution]
        assert broken_fan_in(self.plan, marks.decode(), reason_codes, resolved) is None, event
        for name, node in self.reference.by_id().items():
            self._assert_same_outcome(node, names[name], event)

    def _assert_same_outcome(self, node: Node, place: int, event: Event) -> None:
        """Assert that a node has the same result, reason and child task in both."""
        record = self.task.records.get(place)
        status = self.reference.state.status_of(node)
        if record is None:
            assert status not in (NodeStatus.FINISHED, NodeStatus.FAILED)
            return
        if status is NodeStatus.FINISHED:
            if node.index not in self.plan.controls:
                assert record.result == node.result, event
        elif status is NodeStatus.FAILED:
            assert record.reason_code == node.reason, event
        if record.child is not None:
            assert (record.child.created, record.child.due) == (node.created, node.round_begun)
            life = (node.index, node.item, node.life, node.round)
            child_id = child_node(self.task, place, record).child_id()
            assert self.child_tasks.setdefault(life, child_id) == child_id
            assert len({*self.child_tasks.values()}) == len(self.child_tasks)

    # ------------------------------------------------------------ effects

    def _assert_looked_after(self, event: Event, steps: Sequence[Transition]) -> None:
        """Assert that the engine checks exactly the nodes without reports.

        For nodes that changed anyway, both answers are right.
        """
        expected = {(what, self.place_of(node)) for what, node in self.reference.state.after}
        step = steps[0]
        if isinstance(event, Woke):
            expected = {(what, place) for what, place in expected if place not in step.marks}
            done = {
                (WORDS[type(effect)], effect.index)
                for effect in step.effects
                if type(effect) in WORDS and effect.index not in step.marks
            }
            assert done <= expected if event.due_only else done == expected, event
        elif isinstance(event, CommandsLost):
            assert {("run", effect.index) for effect in step.effects} == expected
            assert step.ignored == (not expected)

    def _assert_child_tasks_follow(self, event: Event, steps: Sequence[Transition]) -> None:
        """Assert that child tasks are brought in line with their nodes when these change."""
        expected = {self.place_of(node) for node in self.reference.state.followed}
        effects = [effect for step in steps for effect in step.effects]
        done = {effect.index for effect in effects if isinstance(effect, RunChild)}
        assert expected <= done if isinstance(event, Woke) else expected == done, event

    def _needs(self) -> dict[int, str | None]:
        state = self.reference.state
        return {node.index: need(state, node) for node in state.nodes if state.is_map(node)}

    def _assert_maps_get_what_they_need(
        self, steps: Sequence[Transition], before: dict[int, str | None]
    ) -> None:
        """Assert that what a map needs is asked for as soon as the map needs it, and that results
        are not collected before. A map may be stopped by the same event.
        """
        done = {
            (effect.index, WORDS[type(effect)])
            for step in steps
            for effect in step.effects
            if isinstance(effect, OpenMap | ReadArtifacts | CollectMap)
        }
        needs = self._needs()
        for index, needed in needs.items():
            assert needed in (None, before[index]) or (index, needed) in done
        nodes = self.reference.state.nodes
        assert all(
            needs[index] == what or nodes[index].state != "mapping"
            for index, what in done
            if what == "collect"
        )

    def _assert_order(self, step: Transition, before: bytes) -> None:
        """Assert that no node starts before its fan-in holds."""
        for effect in step.effects:
            if (
                isinstance(effect, SendCommand | CallFunction)
                and effect.index < self.plan.size
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

    def _assert_effects_are_restored(self, steps: Sequence[Transition]) -> None:
        """Assert that every open decision follows from the task alone."""
        new = [effect for step in steps for effect in step.effects]
        self.not_carried_out = [
            effect for effect in (*self.not_carried_out, *new) if self._still_matters(effect)
        ]
        pending = pending_effects(self.task)
        assert all(effect in pending for effect in self.not_carried_out)
        cancelling = [
            self.place_of(node)
            for node in self.reference.state.everyone()
            if node.state == "cancelling" and not self.reference.state.runs_child_task(node)
        ]
        cancels = [effect.index for effect in pending if isinstance(effect, SendCancel)]
        assert sorted(cancels) == sorted(cancelling)

    def _still_matters(self, effect: Effect) -> bool:
        if isinstance(effect, EvaluateOutput):
            return awaits_output(self.task)
        mark, record = self.task.marks[effect.index], self.task.records.get(effect.index)
        if isinstance(effect, EvaluateCondition):
            return mark == Mark.CHECKING
        if record is None or record.attempt != getattr(effect, "attempt", None):
            return False
        match effect:
            case SendCommand(handovers=handovers):
                return mark == Mark.ISSUED and not record.sent and record.handovers == handovers
            case CallFunction():
                return mark == Mark.RUNNING
            case RunChild():
                return mark in (Mark.RUNNING, Mark.CANCELLING)
            case EvaluateArguments():
                waits = record.wait is not None or record.next_retry_at is not None
                return mark == Mark.DEFERRED and not waits
            case ReadArtifacts(later=True):
                return False  # the same effect without ``later`` is restored
            case OpenMap() | ReadArtifacts() | CollectMap():
                return self._needs()[effect.index] == WORDS[type(effect)]
        return False

    # ------------------------------------------------------------ time and storage

    def _assert_woken_in_time(self) -> None:
        """Assert that the task wakes in time for each change that time alone causes, and that each
        of these changes is due.
        """
        step = advance(self.task, Woke(), now=self.now, settings=self.settings)
        due = advance(self.task, Woke(due_only=True), now=self.now, settings=self.settings)
        assert due.marks == step.marks
        # A condition is evaluated with the event that made it due, or is delayed then.
        checks = Mark.CHECKING in self.task.marks or Mark.CHECKING in step.marks.values()
        if step.wake_at is not None and not checks and not self._asks():
            assert due.wake_at is not None
            assert due.wake_at <= step.wake_at
        if step.marks:
            assert self.task.wake_at is not None
            assert self.task.wake_at <= self.now

    def _asks(self) -> bool:
        """Return whether a worker is asked for a run, or a map looks for artifacts. The time of
        that depends on what a wake-up knows.
        """
        marks, records = self.task.marks, self.task.records.items()
        asked = any(marks[at] == Mark.RUNNING and record.worker_id for at, record in records)
        return asked or any(marks[index] == Mark.MAPPING for index in self.plan.map_sources)

    def _assert_idempotent(self, event: Event) -> None:
        if isinstance(event, RetryRequested) and self.task.terminal:
            return  # the retried nodes ended at once, so they can be retried again
        if self.reference.state.deadline_passed:
            return  # the other nodes are examined with the next wake-up, which is due at once
        again = copy_of(self.task)
        step = advance(again, event, now=self.now, settings=self.settings)
        assert not step.marks
        assert step.status is again.status

    def _assert_stored(self) -> None:
        """Assert that the stored task with its children is the same."""
        task = self.task
        writer = RecordWriter(task, {})
        writer.changed.update(task.records)
        writer.changed_marks.add(0)
        put = writer.commit(task, "").put
        stored = decode_task(TaskRecord(header_of(task), self._spec, put))
        assert (stored.marks, stored.records) == (task.marks, task.records)
        assert (stored.blocks, sorted(stored.maps)) == (task.blocks, sorted(task.maps))
