"""Random events for a task that runs in the engine and in the reference."""

from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any

from flowkit._engine import (
    ArgumentsEvaluated,
    CancelRequested,
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    CollectMap,
    CommandsLost,
    CommandsSent,
    ConditionEvaluated,
    DecisionMade,
    Event,
    FunctionFailed,
    FunctionReturned,
    MapCollected,
    MapFailed,
    MapGrew,
    MapOpened,
    NextRound,
    NodeResolved,
    OutputDelayed,
    OutputEvaluated,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
    RoundChecked,
    RunNowRequested,
    SendCommand,
    SentCommand,
    SignalReceived,
    TaskEnding,
    TaskSubmitted,
    Woke,
    awaits_output,
    pending_effects,
)
from flowkit._engine.pauses import pause_end
from flowkit._tasks.maps import collected
from flowkit.graph._control_types import is_checked_first
from flowkit.graph._expanded_plan import is_map, runs_child_task
from flowkit.messages import (
    BatchesRetried,
    BatchRetries,
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
from flowkit.task import (
    ENDED,
    IN_FLIGHT,
    MapStream,
    Mark,
    NodeRecord,
    ParentNode,
    Resolution,
    TaskStatus,
)
from flowkit_testing import InMemoryStore
from tests.engine.both import Both
from tests.engine.flows import Word
from tests.engine.reference.maps import need, results

FOREIGN = "0" * 24
BEGUN = IN_FLIGHT | {Mark.CHECKING, Mark.DEFERRED, Mark.MAPPING}
VALUES = {
    "sleep": ("for_sec", (1, 3, 20, "much")),
    "wait_signal": ("signal", ("go", "stop", "go", 7)),
    "approval": ("prompt", ("Ship?", "Ship?", "Ship?", 7)),
}
"""Values of the arguments of control nodes, of which the last has the wrong type."""


class RandomEvents(Both):
    def __init__(self, *args: Any, **settings: Any) -> None:
        self.sent = 0
        self.artifacts: dict[tuple[int, int], int] = {}
        """Number of artifacts that a generation of a node has stored."""
        super().__init__(*args, **settings)

    def live(self, script: Sequence[Word], letter: int) -> None:
        """Hear the first half of a script, and bring the task to its end. Then retry a dead letter,
        hear the second half, and so on: what a retry keeps matters for the retry after it.
        """
        half = len(script) // 2
        for words in (script[:half], script[half:]):
            for word in words:
                self.hear(word)
            self.answer_everything()
            assert self.task.terminal
            self.retry_a_letter(letter)
        self.answer_everything()

    def hear(self, word: Word) -> None:
        kind, node, choice = word
        index, plan = self._place(node), self.task.spec.plan
        if self.task.terminal and kind % 2:
            self._retry(index, choice)
        elif kind < 12:
            self.now += (1.0, 4.0, 10.0, 31.0)[choice % 4]
            self.do(Woke({"w": float(choice)} if kind < 3 else {}, due_only=kind > 7))
        elif kind < 14:
            self.do(CancelRequested(force=choice < 40))
        elif kind < 18:
            self.do(PauseRequested())
        elif kind < 21:
            self.do(ResumeRequested())
        elif kind < 24:
            self._run_now(index, choice)
        elif kind < 28:
            self._retry(index, choice)
        elif kind == 28:
            self._repeat()
        elif kind == 30:
            self.do(TaskSubmitted())
        elif kind < 32:
            self._resolve(index, choice)
        elif kind < 36:
            self._send_commands(choice)
        elif kind < 39:
            self.do(CommandsLost(self._commands(index, choice)))
        elif index in self.plan.controls:
            self._hear_of_a_wait(index, choice)
        elif kind < 42 and awaits_output(self.task):
            since = None if choice % 3 else self.now
            said = OutputEvaluated(choice, "broken" if choice > 80 else None, since)
            self.do(OutputDelayed() if choice < 40 else said)
        elif self.task.marks[index] == Mark.CHECKING and kind % 8:
            self.do(ConditionEvaluated(index, choice < 80, "broken" if choice > 94 else None))
        elif is_map(plan, index) and kind > 45:
            self._hear_of_a_map(index, choice)
        elif runs_child_task(plan, index) and kind > 45:
            self._hear_of_a_child_task(kind, index, choice)
        elif kind < 42:
            self.do(ConditionEvaluated(index, choice < 80))
        else:
            self.do(self._report(kind, index, choice))

    def _places(self) -> list[int]:
        """Return the nodes of the graph and the children of its maps."""
        maps = self.task.maps.values()
        return [*range(self.plan.size), *(child for state in maps for child in state.children())]

    def _place(self, number: int) -> int:
        """Return a node: mostly one for which something may happen."""
        places, marks = self._places(), self.task.marks
        begun = [place for place in places if marks[place] in BEGUN]
        chosen = begun if begun and number % 4 else places
        return chosen[number // 4 % len(chosen)]

    def _repeat(self) -> None:
        """Repeat the last event, unless a node that it chose is none any more."""
        last = self.last
        if not isinstance(last, RetryRequested) or all(map(self.name_of, last.nodes or ())):
            self.do(last)

    def _retry(self, index: int, choice: int) -> None:
        """Retry the task, or one or two nodes, often one above a map; or dead letters, which a map
        has none of.
        """
        plan, places = self.task.spec.plan, self._places()
        above = [edge.node for place in self.task.maps for edge in plan.parents[place]]
        chosen = {index}
        if choice > 85:
            chosen.add(places[choice % len(places)])
        elif choice > 65 and above:
            chosen = {above[choice % len(above)]}
        fill = choice % 2 == 1 and not any(is_map(plan, one) for one in chosen)
        self.do(RetryRequested(None if choice < 40 else tuple(sorted(chosen)), fill=fill))

    def retry_a_letter(self, number: int) -> None:
        """Retry a dead letter, if the task may have one."""
        plan = self.task.spec.plan
        places = [place for place in self._places() if not is_map(plan, place)]
        if places:
            self.do(RetryRequested((places[number % len(places)],), fill=True))

    # ------------------------------------------------------------ operators

    def _run_now(self, index: int, choice: int) -> None:
        """End the pause of a node, or one that is over."""
        ends = {
            place: end
            for place, record in self.task.records.items()
            if (end := pause_end(self.task.marks[place], record)) is not None
        }
        chosen = index if index in ends or not ends else [*ends][choice % len(ends)]
        self.do(RunNowRequested(chosen, ends.get(chosen, self.now) - (choice > 90)))

    def _resolve(self, index: int, choice: int) -> None:
        outcome = ("finished", "failed", "skipped")[choice % 3]
        result = choice if outcome == "finished" else None
        self.do(NodeResolved(index, Resolution(outcome, "ann", result=result)))

    # ------------------------------------------------------------ commands

    def _send_commands(self, choice: int) -> None:
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

    # ------------------------------------------------------------ waits

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

    # ------------------------------------------------------------ maps

    def _hear_of_a_map(self, index: int, choice: int) -> None:
        """Give a map what it needs; sometimes what it does not need, or an earlier run needed."""
        record = self.task.records.get(index, NodeRecord())
        attempt = record.attempt - (choice % 10 == 0)
        node = self.reference.state.nodes[index]
        needed = need(self.reference.state, node)
        if needed is None and node.failing is None and choice > 75:
            self.do(MapCollected(index, attempt, [choice]))
        elif choice > (95 if needed else 50):
            reason = ("bad_map", "result_too_large")[choice % 2]
            self.do(MapFailed(index, attempt, reason, "unusable"))
        elif index in self.plan.map_sources:
            self.do(
                self._collected(index, attempt)
                if needed == "collect" and choice % 4
                else self._growth(index, attempt, choice)
            )
        elif needed == "collect":
            self.do(self._collected(index, attempt))
        else:
            self.do(MapOpened(index, attempt, (0, 1, 2, 3, 4)[choice % 5]))

    def _collected(self, index: int, attempt: int) -> MapCollected | MapFailed:
        """Collect the results of a map as a coordinator does."""
        effect = CollectMap(index, attempt)
        event = at_once(collected(InMemoryStore(), self.task, effect, self.settings))
        assert isinstance(event, MapCollected)
        assert event.result == results(self.reference.state.nodes[index])
        return event

    def _growth(self, index: int, attempt: int, choice: int) -> MapGrew:
        """Read artifacts of the parent of a map: mostly new ones, sometimes again."""
        parent, state = self.plan.map_sources[index], self.task.maps.get(index)
        generation = self.task.records.get(parent, NodeRecord()).generation
        known = (None if state is None else state.stream) or MapStream(generation)
        stored = self.artifacts.get((parent, known.generation), 0)
        after = max(known.position - (choice % 3 == 0), 0)
        position = after + min(max(stored - after, 0), 1 + choice % 2)
        without_item = position > after and choice % 7 == 0
        items = [b"[1]"] * (position - after - without_item)
        stream = MapStream(
            known.generation,
            position,
            known.size + len(items),
            known.batches + position - after,
            self.task.marks[parent] in ENDED and position >= stored,
        )
        return MapGrew(index, attempt, after, stream, items, more=position < stored)

    # ------------------------------------------------------------ child tasks

    def _hear_of_a_child_task(self, kind: int, index: int, choice: int) -> None:
        """Report on a child task: mostly of the current attempt and round."""
        record = self.task.records.get(index, NodeRecord())
        attempt, link = record.attempt - (choice > 90), record.child
        iteration = None if link is None else link.iteration
        if iteration is not None:
            iteration -= choice % 11 == 0
        if kind < 52:
            self.do(ChildEnded(task_id="t", index=index))
        elif kind < 58:
            stored = ParentNode("t", "", index, 0, attempt, iteration=iteration)
            self.do(ChildrenCreated([stored, replace(stored, attempt=attempt + 1)]))
        elif link is not None and not link.due:
            self._check_round(index, attempt, iteration, choice)
        elif kind < 66 and iteration is not None:
            self.do(RoundChecked(index, attempt, iteration, goes_on=choice % 2 == 0))
        elif kind < 88:
            goes_on = iteration is not None and kind < 80
            following = NextRound((100, 1, 2)[choice % 3], (0, 3, 20, 0)[choice % 4])
            self.do(
                ChildFinished(index, attempt, choice, iteration, following if goes_on else None)
            )
        else:
            reason = ("subflow_failed", "bad_input")[choice % 7 == 0]
            permanent = choice % 5 == 0
            missing = permanent and link is not None and not link.created
            self.do(ChildFailed(index, attempt, reason, "no", permanent, iteration, missing))

    def _check_round(self, index: int, attempt: int, iteration: int | None, choice: int) -> None:
        """Check the condition of a round that has no child task yet. A round that is stopped before
        it has one fails, but a check from before the stop may come late.
        """
        record = self.task.records[index]
        assert record.child is not None
        assert iteration is not None
        stops = self.task.marks[index] == Mark.CANCELLING or record.child.overdue
        if (stops and choice % 4) or choice > 85:
            reason = "subflow_failed" if stops else "bad_expression"
            self.do(ChildFailed(index, attempt, reason, "no", True, iteration))
        elif is_checked_first(self.plan.nodes[index]):
            self.do(RoundChecked(index, attempt, iteration, goes_on=choice % 3 > 0))

    # ------------------------------------------------------------ attempts

    def _report(self, kind: int, index: int, choice: int) -> Event:
        """Generate a report: mostly of the current attempt, sometimes of another one."""
        attempts = self.issued.get(index) or [(1, FOREIGN)]
        attempt, token = attempts[-1] if choice < 75 else attempts[choice % len(attempts)]
        plan = self.task.spec.plan
        function, mapped = plan.nodes[index].type == "coordinator_fn", plan.nodes[index].map
        if choice > 94:
            token = FOREIGN
        elif choice > 92:
            index = len(self.task.marks)
        if function:
            if kind < 75:
                statuses = (TaskStatus.FINISHED, TaskStatus.FAILED, TaskStatus.CANCELLED)
                ends = choice % 5 == 0 and mapped is None
                ending = TaskEnding(statuses[choice % 3]) if ends else None
                return FunctionReturned(index, attempt, token, self.now, choice, ending=ending)
            if kind < 92:
                return FunctionFailed(
                    index, attempt, token, self.now, "boom", choice % 5 == 0, "no"
                )
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
        if kind < 70 and choice % 2 and self._is_mapped(index):
            return self._batch(said)
        if kind < 55:
            return NodeStarted(**said)
        if kind < 57:
            return NodeHeldUp(**said, reader="r" if choice % 2 else None, batches=choice)
        if kind < 60:
            return NodeProgressed(**said, progress=choice)
        if kind < 64:
            return self._batch(said)
        if kind < 67:
            return BatchesRetried(**said, retries=BatchRetries(number=choice, tries={"uid": 1}))
        if kind < 80:
            pulled = choice % 2 == 0
            return NodeSucceeded(**said, started_at=self.now, pulled=pulled, result=choice)
        if kind < 90:
            return NodeFailed(
                **said,
                started_at=self.now,
                reason_code=("boom", "bad_input")[choice % 7 == 0],
                permanent=choice % 5 == 0,
                error="no",
            )
        return NodeStopped(**said) if kind < 94 else NodeReleased(**said)

    def _is_mapped(self, index: int) -> bool:
        """Return whether a map reads the artifacts of a node."""
        return index in self.plan.map_sources.values()

    def _batch(self, said: dict[str, Any]) -> BatchStored:
        index = said["index"]
        generation = self.task.records.get(index, NodeRecord()).generation
        key = index, generation
        if any(token == said["token"] for _, token in self.issued.get(index, ())):
            self.artifacts[key] = self.artifacts.get(key, 0) + 1
        return BatchStored(**said)

    # ------------------------------------------------------------ the end

    def answer_everything(self) -> None:
        """Answer every open effect until the task ends."""
        self.do(ResumeRequested())
        for _ in range(20 * len(self.plan.nodes) + 40):
            if self.task.terminal:
                return
            if awaits_output(self.task):
                output = self.task.output
                self.do(OutputEvaluated(1, since=None if output is None else output.since))
                continue
            for index in self._places():
                if not self.task.terminal and index < len(self.task.marks):
                    self._answer(index)
            if not self.task.terminal and self.task.wake_at is not None:
                self.now = max(self.now, self.task.wake_at)
                self.do(Woke(due_only=True))
        raise AssertionError(f"not at its end: {self.task.marks!r} {self.task.status}")

    def _answer(self, index: int) -> None:
        plan, mark = self.task.spec.plan, self.task.marks[index]
        begun = mark in (Mark.ISSUED, Mark.RUNNING, Mark.CANCELLING)
        if index in plan.controls and mark == Mark.DEFERRED:
            self._answer_wait(index)
        elif mark == Mark.CHECKING:
            self.do(ConditionEvaluated(index, True))
        elif mark == Mark.MAPPING:
            self._hear_of_a_map(index, 2)
        elif runs_child_task(plan, index) and begun:
            record = self.task.records[index]
            assert record.child is not None
            if record.child.due:
                iteration = record.child.iteration
                self.do(ChildFinished(index, record.attempt, index, iteration))
            else:
                self._check_round(index, record.attempt, record.child.iteration, 2)
        elif begun:
            self.do(self._report(70, index, 1))

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


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return the result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")
