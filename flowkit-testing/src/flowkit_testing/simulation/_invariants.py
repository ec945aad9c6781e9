"""Invariants that the simulation checks at every write to the store."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from math import isclose
from typing import Any

from pydantic_core import from_json

from flowkit._codecs.store_codec import encoded
from flowkit._dead_letters.letter_states import LetterState, letter_states
from flowkit._dead_letters.letters import node_letter_id
from flowkit._records.letter_records import read_letters
from flowkit._records.queries import archived_nodes, records_of
from flowkit._records.record_parts import decode_log, decode_nodes, signals_of
from flowkit._records.task_records import decode_task
from flowkit._tasks.views import full_view
from flowkit.graph._expanded_plan import (
    is_map,
    is_shard,
    is_sharded,
    is_undo,
    node_of,
    number_of,
    runs_child_task,
    stored_by,
)
from flowkit.messages import NodeSucceeded
from flowkit.plugins import Plugins
from flowkit.protocols import ArtifactRecord, Commit, Message, Store, Stream, TaskRecord
from flowkit.task import ATTEMPTED, ENDED, LogEntry, Mark, NodeRecord, Task, TaskStatus, TaskView
from flowkit_testing.simulation._caches import CacheLedger
from flowkit_testing.simulation._child_tasks import (
    broken_creation,
    broken_end,
    child_id,
    ended_round,
)
from flowkit_testing.simulation._fan_in import broken_fan_in
from flowkit_testing.simulation._keys import KeyLedger
from flowkit_testing.simulation._later_phases import broken_phase
from flowkit_testing.simulation._maps import broken_map
from flowkit_testing.simulation._outputs import awaits_output, broken_output
from flowkit_testing.simulation._rates import RateLedger
from flowkit_testing.simulation._store import HISTORY, StoreServer, at_once
from flowkit_testing.simulation._tags import broken_tags
from flowkit_testing.simulation._undos import broken_undo
from flowkit_testing.simulation._waits import SignalLedger, broken_wait

Invariant = Callable[[TaskView | None, TaskView], None]
"""A check called with a task before and after each commit (None before the first). It raises
AssertionError if the invariant is broken.
"""

_BEGUN = frozenset({Mark.ISSUED, Mark.RUNNING})
_WITHOUT_FAILURE = {Mark.FINISHED, Mark.SKIPPED}
_TERMINAL = frozenset(status.value for status in TaskStatus if status.terminal)
_RUN_NOW = {"run_now": True}
_SUCCEEDED = NodeSucceeded.model_fields["kind"].default


class InvariantBroken(AssertionError):
    """An invariant was broken."""


class _Known:
    """The last seen state of a task."""

    def __init__(self, task: Task, record: TaskRecord) -> None:
        state = from_json(record.parts["state"])
        self.spec = task.spec
        self.record = record
        self.version = record.version
        self.marks: str = task.marks.decode()
        self.seq: int = state["seq"]
        self.status: str = state["status"]
        self.outcome: str | None = state["outcome"]
        self.parent_attempt: int = state.get("parent_attempt", 0)
        self.nodes: dict[int, NodeRecord] = decode_nodes(record.parts, task.task_id, task.spec.plan)
        self.finished: set[tuple[int, int]] = set()
        """By node, the number of the first attempt of each run that finished."""
        self.issued: dict[int, set[tuple[int, int]]] = {}
        """By node, the issued attempts, each with the number of times it was handed back."""
        self.announced: dict[int, set[str]] = {}
        """By node, the tokens of starts within segments that arrived at the bus and are not stored.
        The run of one begins also if the result before it turns out not to count.
        """
        self.ends = _ends_in(_entries_in(record.parts, task.task_id))
        """By node, the number of the change with which it finished last."""
        self.hurried: set[int] = set()
        """The nodes of which a pause ended early."""
        self.signals = SignalLedger()
        self.started: set[str] = set()
        """Tokens of the starts within segments that are stored."""
        self.note_issued(self.nodes)

    def mark(self, index: int) -> str:
        """Return the mark of a node. A child of a map that is new has waited."""
        return self.marks[index] if index < len(self.marks) else chr(Mark.WAITING)

    def times_issued(self, node_id: str) -> int:
        """Return how often a node was issued. Children of several runs of a map have one id."""
        ids = self.spec.plan.ids
        return sum(
            len(found)
            for of_kind in (self.issued, self.announced)
            for index, found in of_kind.items()
            if ids[index] == node_id
        )

    def note_issued(self, nodes: Mapping[int, NodeRecord]) -> None:
        for index, node in nodes.items():
            if ord(self.marks[index]) == Mark.ISSUED:
                self.issued.setdefault(index, set()).add((node.attempt, node.handovers))
            if (issue := node.segment) is not None:
                self.issued.setdefault(index, set()).add((issue.attempt, issue.handovers))
                self.announced.get(index, set()).discard(issue.token)
                self.started.add(issue.token)


def _entries_in(parts: Mapping[str, bytes], task_id: str) -> list[tuple[int, LogEntry]]:
    """Return the changes of the history in parts of a record, with their numbers."""
    return [
        entry
        for name in sorted(parts)
        if name[0] == "e"
        for entry in decode_log(name, parts[name], task_id)
    ]


def _ends_in(entries: Sequence[tuple[int, LogEntry]]) -> dict[int, int]:
    """Return the numbers of the last changes with which nodes finished, by node."""
    return {
        index: number
        for number, (_, index, kind, status, _) in entries
        if (kind, status) == ("status", "finished")
    }


class Invariants:
    """The checks of the store's server side and of the messages that workers publish."""

    def __init__(
        self, server: StoreServer, plugins: Plugins, more: Sequence[Invariant] = ()
    ) -> None:
        self._server = server
        self._plugins = plugins
        self._codecs = plugins.encodes_payloads
        self.read_from(server.store)
        self._more = list(more)
        self._tasks: dict[str, _Known] = {}
        self._produced: dict[tuple[str, int], list[Any]] = {}
        self._streams: dict[Stream, set[str]] = {}
        self._keys = KeyLedger()
        self._rates = RateLedger()
        self._caches = CacheLedger()
        self._failed: set[str] = set()
        """The ids of the dead letters of nodes."""
        self._too_early: str | None = None
        """The first run that began without an issue of its attempt."""
        self.retries: Counter[str] = Counter()
        """The number of times that a client asked to run a task again."""
        self.hurried: set[tuple[str, str]] = set()
        """The nodes of which a client asked to end a pause."""
        self.resolving: set[tuple[str, str]] = set()
        """The nodes of which a client asked to choose the outcome."""
        self.checked = 0
        self.roles_with_own_metrics: set[str] = set()
        """Roles whose handlers may override the metrics of their batches."""
        server.on_create.append(self.created)
        server.on_commit.append(self.committed)
        server.on_put.append(self.put)

    def add(self, invariant: Invariant) -> None:
        """Check this invariant, too, from now on."""
        self._more.append(invariant)

    def read_from(self, store: Store) -> None:
        """Read records directly from this server, without the codecs of plugins."""
        self._reading = encoded(store, self._plugins)

    # ------------------------------------------------------------ observed writes

    def published(self, messages: Sequence[Message]) -> None:
        """Record the results that a worker reports."""
        for message in messages:
            if _SUCCEEDED.encode() in message.value:
                report = from_json(message.value)
                if report["kind"] == _SUCCEEDED:
                    self._produced.setdefault((report["task_id"], report["index"]), []).append(
                        report.get("result")
                    )

    def began(self, task_id: str, node_id: str, at: float) -> None:
        """Record that a run of a node begins. What is wrong with it is found at the next commit: an
        error raised now would be the handler's.
        """
        self._too_early = self._too_early or self._unissued_run(task_id, node_id)
        plan = self._tasks[task_id].spec.plan
        rate = plan.nodes[plan.index[node_id.partition("[")[0]]].rate_limit
        if rate is not None:
            self._rates.began(rate, at, f"node {node_id!r} of task {task_id!r}")

    def arrived(self, messages: Sequence[Message]) -> None:
        """Record the starts within segments that the bus has taken in."""
        for message in messages:
            if _SUCCEEDED.encode() in message.value:
                report = from_json(message.value)
                known = self._tasks.get(report["task_id"])
                start = report.get("next")
                if known is None or start is None or start["token"] in known.started:
                    continue
                known.announced.setdefault(start["index"], set()).add(start["token"])

    def signalled(self, task_id: str, signal_id: str) -> None:
        """Check that a signal is stored, for which a client has got its answer."""
        if signal_id not in signals_of(self._load(task_id).parts, task_id).ids:
            raise InvariantBroken(f"task {task_id!r} has lost the signal {signal_id!r}")

    def decided(self, task_id: str, node_id: str, choice: str, by: str) -> None:
        """Check that a decision counts, for which a client has got its answer."""
        task = decode_task(self._load(task_id), to_look_at=True)
        index = task.spec.plan.index[node_id]
        made = at_once(records_of(self._reading, task, [index]))[index].result
        if not isinstance(made, dict) or (made["choice"], made["by"]) != (choice, by):
            raise InvariantBroken(
                f"{by!r} decided {choice!r} about node {node_id!r} of {task_id!r}, and the stored"
                f" decision is {made!r}"
            )

    def created(self, record: TaskRecord, task_id: str) -> None:
        stored = at_once(self._reading.load([task_id])).get(task_id)
        if record.header.task_id == task_id and task_id not in self._tasks and stored is not None:
            known = _Known(decode_task(stored, to_look_at=True), stored)
            self._tasks[task_id] = known
            self._check_tags(known, known.marks, None, stored)
            self._check_creation(known)
            for invariant in self._more:
                invariant(None, self._view(stored))

    def committed(self, before: TaskRecord, commit: Commit, after: TaskRecord, who: str) -> None:
        known = self._tasks.get(commit.task_id)
        if known is None:
            raise InvariantBroken(
                f"{who} committed to task {commit.task_id!r}, which does not exist"
            )
        self.checked += 1
        previous, after = known.record, self._load(commit.task_id)
        try:
            self._check(known, before, commit, after)
        except InvariantBroken as broken:
            raise InvariantBroken(
                f"task {commit.task_id!r}, version {after.version}, committed by {who}: {broken}"
            ) from None
        for invariant in self._more:
            invariant(self._view(previous), self._view(after))

    def records(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        """Return the records of tasks as they are stored, decoded."""
        return at_once(self._reading.load(task_ids))

    def _load(self, task_id: str) -> TaskRecord:
        return at_once(self._reading.load([task_id]))[task_id]

    def _view(self, record: TaskRecord) -> TaskView:
        task = decode_task(record, to_look_at=True)
        return full_view(task, at_once(records_of(self._reading, task, range(len(task.marks)))))

    # ------------------------------------------------------------ tasks

    def _check(self, known: _Known, before: TaskRecord, commit: Commit, after: TaskRecord) -> None:
        state = from_json(after.parts["state"])
        marks, task = state["marks"], None
        if "maps" in state:
            task = decode_task(after, to_look_at=True)
            marks = task.marks.decode()
            known.spec = task.spec  # it has the nodes of the graph, and the children of maps
        put = {
            name: data for name, data in after.parts.items() if known.record.parts.get(name) != data
        }
        entries = _entries_in(put, commit.task_id)
        for _, (_, index, _, _, data) in entries:
            if data == _RUN_NOW:
                node_id = known.spec.plan.ids[index]
                if (commit.task_id, node_id) not in self.hurried:
                    raise InvariantBroken(f"the pause of node {node_id!r} ended without a request")
                known.hurried.add(index)
        again = {
            index
            for _, (_, index, _, status, data) in entries
            if status == "queued" and data == {"retry": True}
        }
        nodes = decode_nodes(put, commit.task_id, known.spec.plan)
        if before.version < known.version or after.version != before.version + 1:
            raise InvariantBroken(
                f"the version changed from {known.version} to {before.version} and then to"
                f" {after.version}"
            )
        followed = state.get("parent_attempt", 0) > known.parent_attempt
        if again and not self.retries[commit.task_id] and not followed:
            raise InvariantBroken("nodes run again without a retry request")
        # A retry of a cancelled task whose nodes all finished has nothing to run.
        restarted = bool(again) or (
            self.retries[commit.task_id] > 0
            and (
                awaits_output(known.spec.plan, marks, state["status"])
                or (state["status"] == "finished" and {*map(ord, marks)} <= _WITHOUT_FAILURE)
            )
        )
        self._check_archive(
            after,
            {name: data for name, data in known.record.parts.items() if name not in after.parts},
        )
        self._check_history(known, entries, state["seq"])
        restarted = restarted or followed
        self._check_marks(known, marks, state, again, restarted=restarted)
        for index, node in nodes.items():
            self._check_node(known, index, node, marks, again)
            self._check_resolution(known, index, node)
            if index in known.spec.plan.nested:
                self._check_round(known, index, node)
        for index in (
            index
            for index, mark in enumerate(marks)
            if ord(mark) == Mark.FINISHED and known.mark(index) != mark
        ):
            self._check_finish(known, task, index, nodes.get(index) or known.nodes[index])
        box = signals_of(after.parts, commit.task_id)
        if (wrong := known.signals.fault(entries, box, nodes)) is not None:
            raise InvariantBroken(wrong)
        known.nodes.update(nodes)
        self._check_child_ends(known, marks)
        reason_codes = {index: node.reason_code for index, node in known.nodes.items()}
        plan = known.spec.plan
        resolved = {index for index, node in known.nodes.items() if node.resolution is not None}
        if (wrong := broken_fan_in(plan, marks[: plan.size], reason_codes, resolved)) is not None:
            raise InvariantBroken(wrong)
        if task is not None and (wrong := broken_map(task)) is not None:
            raise InvariantBroken(wrong)
        known.ends |= _ends_in(entries)
        current = task or decode_task(after, to_look_at=True)
        wrong = broken_phase(current) or broken_undo(
            current, known.nodes, known.ends, before=known.marks
        )
        if wrong is not None:
            raise InvariantBroken(wrong)
        for index in (
            index
            for index, mark in enumerate(marks)
            if ord(mark) == Mark.FAILED and known.mark(index) != mark
        ):
            self._check_letter(known, index, known.nodes[index])
        if known.spec.plan.output is not None and (
            wrong := broken_output(self._reading, decode_task(after, to_look_at=True))
        ):
            raise InvariantBroken(wrong)
        self._check_tags(known, marks, task, after)
        self._check_rates()
        if wrong := self._keys.fault(current, nodes) or self._caches.fault(
            commit.task_id, marks, nodes
        ):
            raise InvariantBroken(wrong)
        known.record = after
        known.version, known.marks, known.seq = after.version, marks, state["seq"]
        known.note_issued(nodes)
        known.status, known.outcome = state["status"], state["outcome"]
        known.parent_attempt = state.get("parent_attempt", 0)

    def _check_archive(self, after: TaskRecord, dropped: Mapping[str, bytes]) -> None:
        """Check that the nodes that left the record are unchanged in the archive.

        The history entries of one commit are merged into one.
        """
        if not dropped:
            return
        task = decode_task(after, to_look_at=True)
        nodes = {name: int(name[1:]) for name in dropped if name[0] == "n"}
        kept = at_once(archived_nodes(self._reading, task, nodes.values()))
        lost = [name for name, index in nodes.items() if kept.get(index) != dropped[name]]
        changes = [name for name in dropped if name[0] == "e"]
        if changes and not at_once(self._reading.read_archive(task.task_id, changes)):
            lost += changes
        if lost:
            raise InvariantBroken(f"{lost} left the record and are not in the archive")

    @staticmethod
    def _check_history(known: _Known, entries: list[tuple[int, Any]], seq: int) -> None:
        numbers = [number for number, _ in entries]
        if numbers != list(range(known.seq + 1, seq + 1)):
            raise InvariantBroken(
                f"the history grew from {known.seq} to {seq} with the numbers {numbers}"
            )

    @staticmethod
    def _check_marks(
        known: _Known, marks: str, state: Mapping[str, Any], again: set[int], *, restarted: bool
    ) -> None:
        ids = known.spec.plan.ids
        if len(marks) < len(known.marks):
            raise InvariantBroken(f"{len(known.marks)} nodes became {len(marks)}")
        if known.status in _TERMINAL and state["status"] != known.status and not restarted:
            raise InvariantBroken(f"the task was {known.status} and is {state['status']}")
        main = range(known.spec.plan.main)
        most = known.spec.plan.max_parallel
        if most is not None and (started := sum(ord(mark) in ATTEMPTED for mark in marks)) > most:
            raise InvariantBroken(f"{started} nodes are in flight, and max_parallel is {most}")
        for index, new in enumerate(marks):
            old = known.mark(index)
            owner = node_of(known.spec.plan, index)
            if old == new or index in again or (owner in again and ord(old) == Mark.CANCELLED):
                continue
            if ord(old) in ENDED:
                raise InvariantBroken(f"node {ids[index]!r} had ended as {old!r} and is {new!r}")
            if (
                known.outcome is not None
                and owner in main
                and not again
                and ord(new) in _BEGUN
                and ord(old) not in _BEGUN
            ):
                raise InvariantBroken(
                    f"node {ids[index]!r} begins, although the task will end as {known.outcome}"
                )

    @staticmethod
    def _check_node(
        known: _Known, index: int, node: NodeRecord, marks: str, again: set[int]
    ) -> None:
        plan = known.spec.plan
        most = 1 + plan.nodes[index].retry_policy.max
        runs_shards = is_sharded(plan, index) and node.sharded_since is None
        if not runs_shards and node.attempt - node.first_attempt + 1 > most:
            raise InvariantBroken(
                f"node {plan.ids[index]!r} is at attempt {node.attempt} since {node.first_attempt}:"
                f" {most} are allowed"
            )
        old = known.nodes.get(index)
        if old is not None and ord(known.mark(index)) == Mark.FINISHED and index not in again:
            was = (old.attempt, old.generation, old.result, old.metrics, old.finished_at)
            now = (node.attempt, node.generation, node.result, node.metrics, node.finished_at)
            if was != now:
                raise InvariantBroken(
                    f"the record of node {plan.ids[index]!r}, which had finished, went from {was}"
                    f" to {now}"
                )

    def _check_resolution(self, known: _Known, index: int, node: NodeRecord) -> None:
        """Check that a client asked for a resolution, and that the first one stands."""
        old, new = known.nodes.get(index, NodeRecord()).resolution, node.resolution
        node_id = known.spec.plan.ids[index]
        if new is not None and (known.spec.task_id, node_id) not in self.resolving:
            raise InvariantBroken(f"node {node_id!r} was resolved without a request")
        if old is not None and new is not None and str(old) != str(new):
            raise InvariantBroken(f"node {node_id!r} was resolved as {old} and then as {new}")

    def _check_finish(self, known: _Known, task: Task | None, index: int, node: NodeRecord) -> None:
        plan = known.spec.plan
        node_id, role = plan.ids[index], plan.nodes[index].type
        if node.resolution is not None and node.attempt < node.first_attempt:
            return  # it was settled before its first attempt, which a retry runs
        if (index, node.first_attempt) in known.finished:
            raise InvariantBroken(
                f"node {node_id!r} finished twice in the run that began with attempt"
                f" {node.first_attempt}"
            )
        known.finished.add((index, node.first_attempt))
        if node.resolution is not None or node.cached:
            return
        if is_map(plan, index):
            self._check_map(known, task, index, node.result)
            return
        if role == "coordinator_fn":
            return
        if runs_child_task(plan, index):
            wanted = child_id(known.spec, index, node)
            result = None if wanted is None else self._view(self._tasks[wanted].record).result
            if result != node.result:
                raise InvariantBroken(
                    f"node {node_id!r} finished with {node.result!r}; its child task with"
                    f" {result!r}"
                )
            return
        if index in plan.controls:
            if index in known.hurried:
                return
            if (wrong := broken_wait(role, known.nodes.get(index), node)) is not None:
                raise InvariantBroken(f"node {node_id!r} has finished, but {wrong}")
            return
        produced = self._produced.get((known.spec.task_id, index), [])
        if node.result not in produced and not self._codecs:
            raise InvariantBroken(
                f"node {node_id!r} finished with {node.result!r}; its executions produced"
                f" {produced!r}"
            )
        if role not in self.roles_with_own_metrics:
            self._check_metrics(known, index, node)

    def _check_map(self, known: _Known, task: Task | None, index: int, result: Any) -> None:
        """Check that a map finished with the results of its children, each once and in order. The
        undo of a map has no result.
        """
        expected: list[Any] | None = []
        if is_undo(known.spec.plan, index):
            expected = None
        elif task is not None and index in task.maps:
            children = list(task.maps[index].children())
            finished = [child for child in children if task.marks[child] == Mark.FINISHED]
            records = at_once(records_of(self._reading, task, finished))
            expected = [records[child].result if child in records else None for child in children]
        if result != expected:
            raise InvariantBroken(
                f"map {known.spec.plan.ids[index]!r} finished with {result!r}; its children gave"
                f" {expected!r}"
            )

    def _check_creation(self, known: _Known) -> None:
        """Check that a child task is created for a node that runs it, and never a second time."""
        node = known.spec.parent
        parent = None if node is None else self._tasks.get(node.task_id)
        wrong = (
            broken_creation(known.spec, None, "", {})
            if parent is None
            else broken_creation(known.spec, parent.spec, parent.marks, parent.nodes)
        )
        if wrong is not None:
            raise InvariantBroken(f"task {known.spec.task_id!r} was created, but {wrong}")

    @staticmethod
    def _check_tags(known: _Known, marks: str, task: Task | None, record: TaskRecord) -> None:
        current = (
            () if task is None else [one for state in task.maps.values() for one in state.blocks]
        )
        dropped = () if task is None else [one for one in task.blocks if one not in current]
        tags, parent = record.header.tags, known.spec.parent
        claim = from_json(record.parts["state"]).get("key", {"state": None})["state"]
        wrong = broken_tags(tags, marks, known.nodes, parent=parent, claim=claim, dropped=dropped)
        if wrong is not None:
            raise InvariantBroken(wrong)

    def _check_child_ends(self, known: _Known, marks: str) -> None:
        """Check that a node ends after its child task."""
        plan = known.spec.plan
        for index, mark in enumerate(marks) if plan.nested else ():
            if mark == known.mark(index) or index not in known.nodes:
                continue
            if not runs_child_task(plan, index) or known.nodes[index].cached:
                continue
            wanted = child_id(known.spec, index, known.nodes[index])
            if wanted is None:
                continue
            child = self._tasks.get(wanted)
            end = ord(mark)
            if end == Mark.FINISHED and known.nodes[index].resolution is not None:
                end = Mark.CANCELLED  # its child task was stopped
            wrong = broken_end(end, None if child is None else child.status)
            if wrong is not None:
                node_id = known.spec.plan.ids[index]
                raise InvariantBroken(f"node {node_id!r} has ended, but {wrong}")

    def _check_round(self, known: _Known, index: int, node: NodeRecord) -> None:
        """Check that a loop goes on to its next round with the result of the one before."""
        node_id, old = known.spec.plan.ids[index], known.nodes.get(index) or NodeRecord()
        try:
            ended = ended_round(known.spec, index, old, node)
        except ValueError as error:
            raise InvariantBroken(f"loop {node_id!r} {error}") from None
        if ended is None or node.child is None:
            return
        child = self._tasks.get(ended)
        if child is None or child.status != "finished":
            raise InvariantBroken(
                f"loop {node_id!r} goes on; its round is {None if child is None else child.status}"
            )
        if (result := self._view(child.record).result) != node.child.previous:
            raise InvariantBroken(
                f"loop {node_id!r} goes on with {node.child.previous!r}; its round gave {result!r}"
            )

    def _check_letter(self, known: _Known, index: int, node: NodeRecord) -> None:
        """Check that a node that failed in an attempt left a dead letter, or that its batch did."""
        task_id, node_id = known.spec.task_id, known.spec.plan.ids[index]
        if node.resolution is not None and node.attempt < node.first_attempt:
            return
        plan = known.spec.plan
        if node.reason_code in ("bad_condition", "key_busy") or is_map(plan, index):
            return
        if is_sharded(plan, index) and node.sharded_since is None:
            return  # its shard left one
        if node.letter:
            self._failed.add(node_letter_id(known.spec, node_id, node.letter))
            kept = [
                *at_once(
                    read_letters(
                        self._reading, letter_ids=[node_letter_id(known.spec, node_id, node.letter)]
                    )
                )
            ]
        else:
            kept = [
                letter
                for letter in at_once(read_letters(self._reading, task_id=task_id, kind="batch"))
                if letter.node_id == node_id
            ]
        if not kept:
            raise InvariantBroken(
                f"node {node_id!r} failed in attempt {node.attempt} and left no dead letter"
            )

    def _check_metrics(self, known: _Known, index: int, node: NodeRecord) -> None:
        """Check the sums over the batches of a node. Those of a shard are in the stream of its
        node, with the number of the shard before their uids.
        """
        plan, node_id = known.spec.plan, known.spec.plan.ids[index]
        stream = Stream(known.spec.task_id, plan.ids[stored_by(plan, index)], node.generation)
        own = f"{number_of(plan, index)}/" if is_shard(plan, index) else ""
        sums: dict[str, float] = {}
        stored = [one.metrics for one in node.kept if one.partial] or [
            from_json(record.metrics)
            for record in self._stream(stream)
            if record.partial and record.uid.startswith(own)
        ]
        if node.skipped and node.batches < len(stored):
            # An attempt that gave up a batch was the first to succeed, while a later attempt stored
            # this batch.
            return
        for one in stored:
            for name, value in one.items():
                sums[name] = sums.get(name, 0) + value
        metrics = node.metrics or {}
        if metrics.keys() != sums.keys() or not all(
            isclose(metrics[name], sums[name]) for name in sums
        ):
            raise InvariantBroken(
                f"node {node_id!r} finished with the metrics {metrics}; the sum of its stored"
                f" batches is {sums}"
            )

    # ------------------------------------------------------------ artifacts

    def _stream(self, stream: Stream) -> list[ArtifactRecord]:
        found: list[ArtifactRecord] = []
        while page := at_once(self._reading.artifacts.read(stream, after=len(found), limit=1000)):
            found += page
        return found

    def put(self, records: Sequence[ArtifactRecord], new: Sequence[bool], who: str) -> None:
        for record, is_new in zip(records, new, strict=True):
            uids = self._streams.setdefault(record.stream, set())
            if is_new is (record.uid in uids):
                what = "twice" if is_new else "not at all, and was reported as known"
                raise InvariantBroken(
                    f"artifact {record.uid!r} of {record.stream} by {who} was stored {what}"
                )
            uids.add(record.uid)

    def check_letters(self) -> None:
        """Check that each dead letter of a node is about an attempt in which the node failed."""
        letters = at_once(read_letters(self._reading, kind="node", limit=10_000))
        states = at_once(letter_states(self._reading, letters))
        for letter, state in zip(letters, states, strict=True):
            if (
                state is LetterState.COMMITTED
                and letter.letter_id not in self._failed
                and letter.task_id in self._tasks
            ):
                what = (
                    f"node {letter.node_id!r} of {letter.task_id!r} did not fail in attempt"
                    f" {letter.attempt}"
                )
                raise InvariantBroken(f"{what}, and its dead letter is listed")

    def check_streams(self) -> None:
        """Check that positions are 1, 2, 3, … and that each uid occurs once."""
        for stream, uids in self._streams.items():
            records = self._stream(stream)
            if [record.position for record in records] != list(range(1, len(records) + 1)):
                raise InvariantBroken(
                    f"the positions of {stream} have gaps:"
                    f" {[record.position for record in records]}"
                )
            if sorted(record.uid for record in records) != sorted(uids):
                raise InvariantBroken(
                    f"{stream} holds {len(records)} artifacts; {len(uids)} were stored"
                )

    def check_runs(self) -> None:
        """Check that a node is executed at most once for each issued attempt.

        So it runs at most as often as its retry policy allows.
        """
        for task_id, node_id in self._server.world.runs:
            if (wrong := self._unissued_run(task_id, node_id)) is not None:
                raise InvariantBroken(wrong)

    def _unissued_run(self, task_id: str, node_id: str) -> str | None:
        """Return what is wrong if a node was executed more often than attempts were issued. A
        worker that ends within an eager segment may have executed a node unseen.
        """
        known = self._tasks.get(task_id)
        runs = len(self._server.world.runs[task_id, node_id])
        if known is None or known.spec.plan.segments == "eager":
            return None
        issued = known.times_issued(node_id)
        if runs <= issued:
            return None
        return (
            f"node {node_id!r} of {task_id!r} was executed {runs} times; {issued} attempts were"
            " issued"
        )

    # ------------------------------------------------------------ checks at the end

    def ended_tasks(self) -> list[str]:
        """Return the tasks that have ended, except damaged ones."""
        return [
            task_id
            for task_id, known in self._tasks.items()
            if known.status in _TERMINAL and task_id not in self._server.damaged
        ]

    def open_tasks(self) -> list[str]:
        """Return the tasks that have not ended, except those that a client has paused."""
        return [
            task_id
            for task_id, known in self._tasks.items()
            if known.status not in _TERMINAL and known.status != "paused"
        ]

    def _check_rates(self) -> None:
        if (wrong := self._rates.fault or self._too_early) is not None:
            raise InvariantBroken(wrong)

    def check_end(self, promised: Sequence[str], told: Mapping[str, TaskView]) -> None:
        """Check that every promise and answer to a client matches the stored tasks."""
        for task_id in promised:
            if task_id not in at_once(self._server.store.load([task_id])):
                raise InvariantBroken(
                    f"task {task_id!r} is lost: its submission was confirmed to the client"
                )
        for task_id, view in told.items():
            stored = self._view(self._load(task_id))
            if stored != view:
                raise InvariantBroken(
                    f"task {task_id!r} was reported to a client as\n  {view!r}\nand is stored as\n"
                    f"  {stored!r}"
                )
        self._check_rates()
        self.check_runs()
        self.check_letters()
        for letter in at_once(read_letters(self._reading, kind="task")):
            if letter.task_id not in self._server.damaged:
                raise InvariantBroken(f"task {letter.task_id!r} was quarantined: {letter.error}")
        self.check_streams()

    def check_damaged(self, listed: Mapping[str, TaskView], executed: Collection[str]) -> None:
        """Check that each damaged task is quarantined and listed with its defect.

        None of its nodes was executed, and its record was not changed.
        """
        store = self._server.store
        for task_id, how in self._server.damaged.items():
            about = f"task {task_id!r}, whose record is damaged ({how}),"
            if not at_once(read_letters(store, task_id=task_id, kind="task")):
                raise InvariantBroken(f"{about} was not quarantined")
            if task_id not in listed or (
                how != HISTORY and not listed[task_id].error
            ):  # a listing does not read the history
                raise InvariantBroken(
                    f"{about} is not listed with its defect: {listed.get(task_id)}"
                )
            if task_id in executed or at_once(store.load([task_id]))[task_id].version != 1:
                raise InvariantBroken(f"{about} was executed or changed")
