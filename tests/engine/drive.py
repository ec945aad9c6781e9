"""A small language in which tests drive one task through the engine."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flowkit._engine import (
    ArgumentsEvaluated,
    AskKey,
    AskWorker,
    CallFunction,
    CancelRequested,
    CheckCommand,
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    ChildrenDue,
    CollectMap,
    CommandsLost,
    CommandsSent,
    CommandWaiting,
    CommandWithdrawn,
    ConditionDelayed,
    ConditionEvaluated,
    DecisionMade,
    Effect,
    EndSegments,
    EndsRead,
    EngineSettings,
    EvaluateArguments,
    EvaluateCondition,
    EvaluateOutput,
    Event,
    FunctionFailed,
    FunctionReturned,
    KeyBusy,
    KeyGranted,
    KeyQueued,
    MapCollected,
    MapFailed,
    MapGrew,
    MapOpened,
    NameKey,
    NextRound,
    NodeResolved,
    OpenMap,
    OutputDelayed,
    OutputEvaluated,
    PauseRequested,
    ReadArtifacts,
    ReadEnds,
    ResumeRequested,
    RetryRequested,
    ReturnKey,
    RoundChecked,
    RunChild,
    RunNowRequested,
    SendCancel,
    SendCommand,
    SentCommand,
    ShardsCollected,
    SignalReceived,
    TaskEnding,
    TaskSubmitted,
    TellParent,
    TellReaders,
    Transition,
    VarsOp,
    WithdrawCommand,
    Woke,
    advance,
    child_node,
    derive,
    first_marks,
    pause_end,
    pending_effects,
)
from flowkit._records.record_parts import RecordWriter
from flowkit._records.task_records import encode_spec, header_of
from flowkit.graph import Graph
from flowkit.messages import (
    BatchesRetried,
    BatchRetries,
    BatchStored,
    NextStart,
    NodeFailed,
    NodeHeldUp,
    NodeProgressed,
    NodeReleased,
    NodeStarted,
    NodeStopped,
    NodeSucceeded,
)
from flowkit.protocols import TaskRecord
from flowkit.task import (
    STATUS_OF_MARK,
    WHOLE_TASK,
    LogEntry,
    MapStream,
    Mark,
    NodeRecord,
    NodeStatus,
    ParentNode,
    Resolution,
    Task,
    TaskSpec,
)

NOON = 1_000_000.0
FUNCTION = {"type": "coordinator_fn", "io": {"fn": "noop"}}
ONCE = {"retry_policy": {"max": 0}}
RATE = {"key": "r", "limit": 1, "per_sec": 60}
STEADY = {"backoff_sec": 10.0, "multiplier": 1.0, "jitter": 0.0}


def graph(
    *lines: str,
    on_node_failure: str = "stop",
    max_parallel: int | None = None,
    output: Any = None,
    final: tuple[dict[str, Any], ...] = (),
    concurrency: dict[str, Any] | None = None,
    segments: str | None = None,
    **nodes: dict[str, Any],
) -> Graph:
    """Build a graph from lines such as ``"a -> b c"`` (b and c wait for a) and fields of nodes.

    ``=>`` streams, ``+>`` is taken on success, ``!>`` on failure. A line may be the name of one
    node.
    """
    found: dict[str, dict[str, Any]] = {}
    edges: list[dict[str, Any]] = []
    for line in lines:
        source, arrow, targets = [*re.split(r"\s*([-=+!]>)\s*", line), "", ""][:3]
        for name in [*source.split(), *targets.split()]:
            found.setdefault(name, {"node_id": name, "type": "work"})
        for parent in source.split():
            for child in targets.split():
                if arrow in ("->", "=>"):
                    edges.append(
                        {
                            "from": parent,
                            "to": child,
                            "trigger": "on_done" if arrow == "->" else "on_batch",
                        }
                    )
                else:
                    routing = found[parent].setdefault("routing", {})
                    routing.setdefault("on_success" if arrow == "+>" else "on_failure", []).append(
                        child
                    )
    for name, fields in nodes.items():
        found.setdefault(name, {"node_id": name, "type": "work"}).update(fields)
    return Graph.parse(
        {
            "nodes": list(found.values()),
            "finally": list(final),
            "edges": edges,
            "on_node_failure": on_node_failure,
            "max_parallel": max_parallel,
            "output": output,
            "concurrency": concurrency,
            "segments": segments,
        }
    )


def new_task(flow: Graph, *, deadline_sec: float | None = None, **fields: Any) -> Task:
    spec = TaskSpec(
        "t", flow.plan, created_at=NOON, secret=b"key", deadline_sec=deadline_sec, **fields
    )
    task = Task(spec, marks=first_marks(flow.plan))
    derive(task)
    return task


def copy_of(task: Task) -> Task:
    """Return another task in the same state."""
    records = {index: record.copy() for index, record in task.records.items()}
    return replace(
        task,
        marks=bytearray(task.marks),
        records=records,
        taken=list(task.taken),
        empty=list(task.empty),
        broken=list(task.broken),
        ready=list(task.ready),
        ready_later=list(task.ready_later),
        blocks=list(task.blocks),
        maps={index: state.copy() for index, state in task.maps.items()},
        failed_codes=dict(task.failed_codes),
        tag_counts=dict(task.tag_counts),
    )


def kept_at_hand(task: Task) -> dict[str, Any]:
    """Return the derived state of a task, in a form that can be compared."""
    # When nodes are stopped, their ends are not counted.
    counted = [
        index
        for index, mark in enumerate(task.marks[: task.spec.plan.size])
        if task.outcome is None or mark == Mark.WAITING
    ]
    return {
        "counts": [(task.taken[index], task.empty[index], task.broken[index]) for index in counted],
        "phase": task.phase,
        "open": task.open,
        "in_flight": task.in_flight,
        "asking": task.asking,
        "deferred": task.deferred,
        "failures": task.failures,
        "waiting": {
            entry
            for entry in (*task.ready, *task.ready_later)
            if task.marks[entry[1]] == Mark.READY
        },
        "tags": task.tag_counts,
        "maps": {
            index: (
                state.waiting,
                state.open,
                state.in_flight,
                state.asking,
                sorted(child for child in state.again if task.marks[child] == Mark.READY),
            )
            for index, state in task.maps.items()
        },
    }


def failed_codes(task: Task) -> dict[str | None, int]:
    """Return the numbers of failed nodes by reason code; None for those without a record. Earlier
    children of a map do not count.
    """
    size, blocks = (
        task.spec.plan.size,
        [one for state in task.maps.values() for one in state.blocks],
    )
    return Counter(
        task.records[index].reason_code if index in task.records else None
        for index, mark in enumerate(task.marks)
        if mark == Mark.FAILED
        and (index < size or any(block.first <= index < block.end for block in blocks))
    )


def assert_nothing_drifted(task: Task, effects: Sequence[Effect] = ()) -> None:
    """Assert that the engine's step-by-step state equals the one derived from the record. The
    ``effects`` of the last event queue the children of maps that begin again.
    """
    fresh = copy_of(task)
    derive(fresh)
    assert kept_at_hand(task) == kept_at_hand(fresh)
    assert None in (codes := failed_codes(task)) or task.failed_codes == codes
    begin = {effect.index for effect in effects if isinstance(effect, OpenMap)}
    for index, state in fresh.maps.items():
        queued = task.maps[index].queued or index in begin
        assert not state.queued or queued, "children of a map were forgotten"


def record_of(task: Task, flow: Graph) -> TaskRecord:
    """Return the record of a task, without its history."""
    writer = RecordWriter(task, {})
    writer.changed.update(task.records)
    parts = writer.commit(task, "").put
    return TaskRecord(header_of(task), encode_spec(task.spec, flow.to_json()), parts)


class KeyTable:
    """Concurrency keys that only one task uses, and rates that always have a free place."""

    def __init__(self) -> None:
        self.holders: dict[str, list[tuple[int, int]]] = {}
        self._queue: list[tuple[int, float, int, int]] = []
        """Claims in the order in which they get places, with index and number of their nodes."""

    def answers(self, step: Transition) -> list[Event]:
        """Return the answers to the claims that ask for places or give them back."""
        task, found = step.task, list[Event]()
        for effect in list(step.effects):
            if isinstance(effect, ReturnKey) and effect.kind == "key":
                found += self._returned(task, effect.claim.key, effect.index, effect.claim.number)
        asking = [effect for effect in step.effects if isinstance(effect, AskKey)]
        for effect in asking:
            if effect.kind == "rate":
                found.append(KeyGranted(effect.index, effect.number, kind="rate"))
                continue
            claim = task.claim(effect.index)
            if claim is None or (claim.state, claim.number) != ("asked", effect.number):
                continue
            limit = task.spec.key_of(effect.index)
            held = self.holders.setdefault(claim.key, [])
            if limit is not None and len(held) < limit.limit:
                held.append((effect.index, effect.number))
                found.append(KeyGranted(effect.index, effect.number))
            elif limit is not None and limit.on_conflict == "queue":
                rank = (-task.spec.plan.nodes[effect.index].priority, claim.asked_at)
                self._queue = sorted({*self._queue, (*rank, effect.index, effect.number)})
                found.append(KeyQueued(effect.index, effect.number))
            else:
                found.append(KeyBusy(effect.index, effect.number, "others hold it"))
        return found

    def _returned(self, task: Task, key: str, index: int, number: int) -> list[Event]:
        """Give back a place, and give it to the next claim."""
        self._queue = [one for one in self._queue if one[2:] != (index, number)]
        held = self.holders.get(key, [])
        if (index, number) not in held:
            return []
        held.remove((index, number))
        for one in self._queue:
            waiting = task.spec.plan.nodes[one[2]].key
            if waiting is not None and waiting.key == key:
                self._queue.remove(one)
                held.append(one[2:])
                return [KeyGranted(*one[2:])]
        if not held:
            del self.holders[key]
        return []


class Play:
    """A submitted task. Each verb applies one event and returns the transition."""

    def __init__(
        self,
        flow: Graph,
        *,
        deadline_sec: float | None = None,
        parent: ParentNode | None = None,
        check: bool = True,
        keys: bool = True,
        **settings: Any,
    ) -> None:
        """``keys`` answers claims of concurrency keys at once, with the events that follow."""
        self.task = new_task(flow, deadline_sec=deadline_sec, parent=parent)
        self.now = NOON
        self.settings = EngineSettings(**settings)
        self._check = check
        self.log: list[LogEntry] = []
        self.keys = KeyTable() if keys else None
        self.do(TaskSubmitted())

    # ------------------------------------------------------------ queries

    def index(self, name: str) -> int:
        """Return a node's place in the graph; for an unknown name, a place behind the end."""
        return self.task.spec.plan.index.get(name, len(self.task.marks))

    def record(self, name: str) -> NodeRecord:
        return self.task.records[self.index(name)]

    def status(self, name: str) -> NodeStatus:
        return STATUS_OF_MARK[self.task.marks[self.index(name)]]

    @property
    def marks(self) -> str:
        """Return one letter per node, in the order of the graph."""
        return self.task.marks.decode()

    def token(self, name: str, attempt: int | None = None, handovers: int | None = None) -> str:
        record = self.record(name)
        if attempt in (None, record.attempt) and handovers in (None, record.handovers):
            return self.task.spec.current_token(self.index(name), record)
        return self.task.spec.token(
            self.index(name),
            record.attempt if attempt is None else attempt,
            record.handovers if handovers is None else handovers,
        )

    def next_start(self, name: str, after: str, *, token: str | None = None) -> NextStart:
        """Return the start of a node within a segment, right after the attempt of another node."""
        index, record = self.index(name), self.task.record(self.index(name))
        attempt = max(record.attempt + 1, record.first_attempt)
        before = self.token(after) if token is None else token
        own = self.task.spec.token_after(before, index, attempt, record.handovers)
        return NextStart(index=index, attempt=attempt, token=own)

    @property
    def pending(self) -> list[str]:
        return sorted(told(self.task, pending_effects(self.task)))

    # ------------------------------------------------------------ events

    def do(self, event: Event) -> Transition:
        before = copy_of(self.task) if self._check else self.task
        step = advance(self.task, event, now=self.now, settings=self.settings)
        assert self.task == before, "advance touched the task"
        if not step.ignored:
            step.apply()
            self.log += step.log
        if self._check:
            assert_nothing_drifted(self.task, step.effects)
        for answer in self.keys.answers(step) if self.keys is not None else ():
            step.effects += self.do(answer).effects
        return step

    def later(self, seconds: float, *, silent: dict[str, float] | None = None) -> Transition:
        """Let time pass, and wake the task."""
        self.now += seconds
        return self.do(Woke(silent or {}))

    def _address(self, name: str, attempt: int | None, token: str | None) -> dict[str, Any]:
        attempt = self.record(name).attempt if attempt is None else attempt
        token = self.token(name, attempt) if token is None else token
        return {"task_id": "t", "index": self.index(name), "attempt": attempt, "token": token}

    def starts(
        self,
        name: str,
        *,
        attempt: int | None = None,
        token: str | None = None,
        worker: str = "w",
        at: float | None = None,
        begun: bool = False,
        ends_segment: bool = False,
    ) -> Transition:
        at = self.now if at is None else at
        where = self._address(name, attempt, token)
        return self.do(
            NodeStarted(**where, worker_id=worker, at=at, begun=begun, ends_segment=ends_segment)
        )

    def progresses(
        self,
        name: str,
        progress: Any = None,
        *,
        attempt: int | None = None,
        token: str | None = None,
    ) -> Transition:
        return self.do(
            NodeProgressed(
                **self._address(name, attempt, token), worker_id="w", at=self.now, progress=progress
            )
        )

    def stores_a_batch(
        self, name: str, *, attempt: int | None = None, token: str | None = None
    ) -> Transition:
        return self.do(
            BatchStored(**self._address(name, attempt, token), worker_id="w", at=self.now)
        )

    def retries(
        self, name: str, number: int = 1, *, token: str | None = None, **tries: int
    ) -> Transition:
        told = BatchRetries(number=number, tries=tries)
        return self.do(
            BatchesRetried(
                **self._address(name, None, token), worker_id="w", at=self.now, retries=told
            )
        )

    def is_held_up(self, name: str, reader: str | None, batches: int = 0) -> Transition:
        about = self._address(name, None, None)
        event = NodeHeldUp(**about, worker_id="w", at=self.now, reader=reader, batches=batches)
        return self.do(event)

    def succeeds(
        self,
        name: str,
        result: Any = None,
        *,
        attempt: int | None = None,
        token: str | None = None,
        pulled: bool = False,
        then: NextStart | None = None,
        at: float | None = None,
    ) -> Transition:
        """``then`` is the node with which the worker goes on, and ``at`` the worker's time."""
        said = {"result": result, "metrics": {"n": 1}, "pulled": pulled, "next": then}
        return self.do(
            NodeSucceeded(
                **self._address(name, attempt, token),
                worker_id="w",
                started_at=self.now,
                at=self.now if at is None else at,
                **said,
            )
        )

    def fails(
        self,
        name: str,
        reason_code: str = "boom",
        *,
        permanent: bool = False,
        attempt: int | None = None,
        token: str | None = None,
    ) -> Transition:
        failure = {"reason_code": reason_code, "permanent": permanent, "error": "it broke"}
        return self.do(
            NodeFailed(
                **self._address(name, attempt, token),
                worker_id="w",
                started_at=self.now,
                at=self.now,
                **failure,
            )
        )

    def breaks(self, name: str) -> Transition:
        """Fail the node permanently."""
        return self.fails(name, permanent=True)

    def stops(
        self, name: str, *, attempt: int | None = None, token: str | None = None
    ) -> Transition:
        return self.do(
            NodeStopped(**self._address(name, attempt, token), worker_id="w", at=self.now)
        )

    def is_released(
        self,
        name: str,
        progress: Any = None,
        *,
        attempt: int | None = None,
        token: str | None = None,
    ) -> Transition:
        return self.do(
            NodeReleased(
                **self._address(name, attempt, token), worker_id="w", at=self.now, progress=progress
            )
        )

    def returns(
        self,
        name: str,
        result: Any = None,
        *ops: VarsOp,
        attempt: int | None = None,
        token: str | None = None,
        ending: TaskEnding | None = None,
    ) -> Transition:
        where = self._address(name, attempt, token)
        return self.do(
            FunctionReturned(
                where["index"], where["attempt"], where["token"], self.now, result, ops, ending
            )
        )

    def function_fails(
        self,
        name: str,
        *,
        permanent: bool = False,
        attempt: int | None = None,
        token: str | None = None,
    ) -> Transition:
        where = self._address(name, attempt, token)
        return self.do(
            FunctionFailed(
                where["index"],
                where["attempt"],
                where["token"],
                self.now,
                "boom",
                permanent,
                "it broke",
            )
        )

    def condition(
        self,
        name: str,
        value: bool = False,
        *,
        error: str | None = None,
        since: float | None = None,
    ) -> Transition:
        return self.do(ConditionEvaluated(self.index(name), value, error, since))

    def output(
        self, value: Any = None, *, error: str | None = None, since: float | None = None
    ) -> Transition:
        return self.do(OutputEvaluated(value, error, since))

    def delays_output(self) -> Transition:
        """Delay the evaluation of the output."""
        return self.do(OutputDelayed())

    def evaluates(
        self, name: str, *, attempt: int | None = None, error: str | None = None, **values: Any
    ) -> Transition:
        """Evaluate the arguments of a control node."""
        attempt = self.record(name).attempt if attempt is None else attempt
        return self.do(ArgumentsEvaluated(self.index(name), attempt, values, error))

    def creates(self, *names: str) -> Transition:
        """Report that the child tasks of nodes are stored."""
        indexes = [self.index(name) for name in names]
        records = self.task.records
        return self.do(
            ChildrenCreated([child_node(self.task, index, records[index]) for index in indexes])
        )

    def child_finishes(
        self, name: str, result: Any = None, *, attempt: int | None = None
    ) -> Transition:
        """Report that the child task of a node finished."""
        attempt = self.record(name).attempt if attempt is None else attempt
        return self.do(ChildFinished(self.index(name), attempt, result, self.round_of(name)))

    def round_of(self, name: str) -> int | None:
        """Return the round of a loop; None for other nodes."""
        link = self.record(name).child
        return None if link is None else link.iteration

    def goes_on(
        self, name: str, result: Any = None, *, delay_sec: float = 0.0, most: int = 100
    ) -> Transition:
        """Report that a round of a loop finished, and that its condition asks for another."""
        attempt, iteration = self.record(name).attempt, self.round_of(name)
        following = NextRound(most, delay_sec)
        return self.do(ChildFinished(self.index(name), attempt, result, iteration, following))

    def checks(self, name: str, goes_on: bool) -> Transition:
        """Report the value of the condition of a loop before a round."""
        attempt, iteration = self.record(name).attempt, self.round_of(name)
        return self.do(RoundChecked(self.index(name), attempt, iteration or 0, goes_on))

    def child_fails(
        self, name: str, reason_code: str = "subflow_failed", *, attempt: int | None = None
    ) -> Transition:
        """Report that the child task of a node failed."""
        attempt = self.record(name).attempt if attempt is None else attempt
        return self.do(
            ChildFailed(
                self.index(name),
                attempt,
                reason_code,
                "it failed",
                iteration=self.round_of(name),
            )
        )

    def delays(self, name: str) -> Transition:
        """Delay the evaluation of the node's condition."""
        return self.do(ConditionDelayed(self.index(name)))

    def opens(self, name: str, size: int) -> Transition:
        """Report the number of a map's items, and start its children."""
        attempt = self.record(name).attempt
        step = self.do(MapOpened(self.index(name), attempt, size))
        return self.begins(name) if size and not step.ignored else step

    def grows(
        self, name: str, count: int, *, ended: bool = False, after: int | None = None
    ) -> Transition:
        """Report new artifacts for a map, and start its children."""
        state, attempt = self.task.maps.get(self.index(name)), self.record(name).attempt
        known = (state.stream if state else None) or MapStream(0)
        stream = MapStream(
            0, known.position + count, known.size + count, known.batches + count, ended
        )
        after = known.position if after is None else after
        step = self.do(MapGrew(self.index(name), attempt, after, stream, [b"[1]"] * count))
        return self.begins(name) if count and not step.ignored else step

    def begins(self, name: str) -> Transition:
        """Start the children of a map."""
        return self.do(ChildrenDue(self.index(name), self.record(name).attempt))

    def collects(self, name: str, *results: Any, attempt: int | None = None) -> Transition:
        """Report the results of the children of a map."""
        attempt = self.record(name).attempt if attempt is None else attempt
        return self.do(MapCollected(self.index(name), attempt, results))

    def collects_shards(
        self, name: str, *, attempt: int | None = None, **metrics: float
    ) -> Transition:
        """Report the sums over the shards of a node."""
        attempt = self.record(name).attempt if attempt is None else attempt
        return self.do(ShardsCollected(self.index(name), attempt, metrics, batches=4, skipped=1))

    def reads_ends(
        self, name: str, *, most: int = 100, before: int | None = None, attempt: int | None = None
    ) -> Transition:
        """Report which children of a map finished last, up to ``most`` at a time. The name is that
        of the undo of the map.
        """
        undo, record = self.index(name), self.record(name)
        before = record.after if before is None else before
        plan = self.task.spec.plan
        assert plan.ends is not None
        children = list(self.task.maps[plan.ends.undone_by[undo]].children())
        ends = {
            index: seq
            for seq, (_, index, kind, status, _) in enumerate(self.log, start=1)
            if index in children and (kind, status) == ("status", "finished") and seq <= before
        }
        first = self.task.maps[undo].blocks[0].first
        found = [
            (number, ends[child])
            for number, child in enumerate(children)
            if child in ends and self.task.marks[first + number] == Mark.WAITING
        ]
        found = sorted(found, key=lambda end: -end[1])[:most]
        after = found[-1][1] - 1 if found else 0
        attempt = record.attempt if attempt is None else attempt
        return self.do(EndsRead(undo, attempt, before, after, found))

    def map_fails(self, name: str, reason_code: str = "bad_map") -> Transition:
        """Report that the items of a map cannot be used."""
        record = self.record(name)
        return self.do(MapFailed(self.index(name), record.attempt, reason_code, "no list"))

    def sent(
        self, *commands: tuple[str, int], place: tuple[int, int] | None = None, carried: int = 0
    ) -> None:
        """Record that the commands of these nodes' attempts are on the bus."""
        found = [(self.index(name), attempt) for name, attempt in commands]
        self.do(
            CommandsSent(
                [
                    SentCommand(index, attempt, self.task.records[index].handovers, place, carried)
                    for index, attempt in found
                ]
            )
        )

    def loses(self, name: str, **other: Any) -> Transition:
        """Report that the bus lost the node's command.

        The arguments name another attempt, handovers or place.
        """
        return self.do(CommandsLost([self._command(name, other)]))

    def is_withdrawn(
        self, name: str, *, attempt: int | None = None, token: str | None = None
    ) -> Transition:
        """Report that the node's command was withdrawn before a worker started it."""
        where = self._address(name, attempt, token)
        return self.do(CommandWithdrawn(where["index"], where["attempt"], where["token"]))

    def withdraws(self, step: Transition) -> Transition:
        """Report that all commands that a step has withdrawn were not started."""
        for effect in step.effects:
            if isinstance(effect, WithdrawCommand):
                step = self.is_withdrawn(self.task.spec.plan.ids[effect.index])
        return step

    def waits(self, name: str, **other: Any) -> None:
        """Confirm that the node's command waits on the bus.

        The arguments name another attempt, handovers or place.
        """
        self.do(CommandWaiting(self._command(name, other)))

    def _command(self, name: str, other: dict[str, Any]) -> SentCommand:
        known = self.task.records.get(self.index(name), NodeRecord())
        attempt, handovers, place = (
            other.get(field, getattr(known, field)) for field in ("attempt", "handovers", "place")
        )
        return SentCommand(self.index(name), attempt, handovers, place)

    def signal(
        self,
        name: str,
        payload: Any = None,
        *,
        signal_id: str | None = None,
        nodes: tuple[str, ...] | None = None,
    ) -> Transition:
        places = None if nodes is None else tuple(map(self.index, nodes))
        return self.do(SignalReceived(name, payload, signal_id, places))

    def decide(
        self, name: str, choice: str, *, by: str = "ann", attempt: int | None = None, **more: Any
    ) -> Transition:
        attempt = self.record(name).attempt if attempt is None else attempt
        return self.do(DecisionMade(self.index(name), attempt, choice, by, **more))

    def resolve(self, name: str, outcome: Any, **more: Any) -> Transition:
        """Choose the outcome of a node, as an operator."""
        return self.do(NodeResolved(self.index(name), Resolution(outcome, "ann", **more)))

    def runs_now(self, name: str, *, until: float | None = None) -> Transition:
        """End the pause of a node."""
        index = self.index(name)
        ends_at = pause_end(self.task.marks[index], self.task.records[index])
        until = until or ends_at
        assert until is not None
        return self.do(RunNowRequested(index, until))

    def cancel(self, reason: str = "", *, force: bool = False) -> Transition:
        return self.do(CancelRequested(reason, force))

    def pause(self) -> Transition:
        return self.do(PauseRequested())

    def resume(self) -> Transition:
        return self.do(ResumeRequested())

    def retry(self, *names: str, fill: bool = False) -> Transition:
        return self.do(RetryRequested(tuple(map(self.index, names)) if names else None, fill=fill))


def told(task: Task, effects: Sequence[Any]) -> list[str]:
    """Return effects in words.

    They are ``run a``, ``call f``, ``decide b``, ``stop c``, ``check d``, ``ask for e``, ``order
    m~undo``, ``tell readers of a``, ``evaluate the output`` and so on.
    """
    ids = task.spec.plan.ids
    words = {
        SendCommand: "run",
        CallFunction: "call",
        EvaluateCondition: "decide",
        EvaluateArguments: "evaluate",
        SendCancel: "stop",
        CheckCommand: "check",
        OpenMap: "open",
        ReadArtifacts: "read",
        CollectMap: "collect",
        ReadEnds: "order",
        AskWorker: "ask for",
        TellReaders: "tell readers of",
        RunChild: "follow",
        NameKey: "name the key of",
        WithdrawCommand: "withdraw",
    }
    return [
        "evaluate the output"
        if isinstance(effect, EvaluateOutput)
        else "tell parent"
        if isinstance(effect, TellParent)
        else "end segments"
        if isinstance(effect, EndSegments)
        else f"{_verb(effect, words)} {_whose(effect, ids)}"
        for effect in effects
    ]


def _verb(effect: Any, words: dict[type, str]) -> str:
    if isinstance(effect, AskKey):
        return f"ask for the {effect.kind} of"
    if isinstance(effect, ReturnKey):
        return f"return the {effect.kind} of"
    return words[type(effect)]


def _whose(effect: Any, ids: Sequence[str]) -> str:
    return "the task" if effect.index == WHOLE_TASK else ids[effect.index]


def effects(step: Transition) -> list[str]:
    return told(step.task, step.effects)


def started(step: Transition) -> list[str]:
    """Return the nodes whose command or function call was issued, in this order."""
    return [words.split()[1] for words in effects(step) if words.startswith(("run", "call"))]


def changes(step: Transition) -> list[str]:
    """Return the new history entries: ``a running``, or ``finished`` for the task."""
    ids = step.task.spec.plan.ids
    return [
        f"{ids[index]} {status or kind}" if index >= 0 else f"{status}"
        for _, index, kind, status, _ in step.log
    ]
