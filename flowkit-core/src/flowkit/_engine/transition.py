"""Transitions: changes of a task that are not applied yet."""

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

from flowkit._engine.due_times import change_times
from flowkit._engine.effects import Effect, EndSegments, EvaluateCondition, Letter
from flowkit._engine.map_expansion import (
    Growth,
    add_block,
    add_undos,
    drop_state,
    end_waiting_children,
    first_waiting,
    grow,
    may_start_child,
)
from flowkit._engine.pending_effects import return_of
from flowkit._engine.queue_ranks import first_of, queue_rank
from flowkit._engine.readiness import derive, fails_task
from flowkit._engine.segment_rules import has_segments
from flowkit._engine.sources import sources_progress, waits_for_batches
from flowkit._engine.tags import count_tags, waiting_tag
from flowkit._engine.transition_tables import NODE_MOVES, TASK_MOVES
from flowkit.errors import FlowKitError
from flowkit.graph import NodeSpec
from flowkit.graph._expanded_plan import has_children, is_shard, is_undo, map_of
from flowkit.task import (
    ATTEMPTED,
    CLAIM_KINDS,
    ENDED,
    IN_FLIGHT,
    STATUS_OF_MARK,
    ClaimKind,
    DueTimes,
    LogEntry,
    MapBlock,
    MapState,
    Mark,
    NodeRecord,
    Phase,
    Task,
    TaskSpec,
    TaskStatus,
)


class IllegalMove(FlowKitError):
    """The engine tried a move that is not in its tables. This is a defect of FlowKit."""


class Transition:
    """Change of a task by an event, and its effects.

    It reads unchanged values from the task. The task stays as it is until :meth:`apply`.
    """

    __slots__ = (
        "asking",
        "beginning",
        "counts",
        "deadline_at",
        "deferred",
        "dropped_maps",
        "due",
        "due_again",
        "effects",
        "error",
        "failures",
        "finished_at",
        "forced",
        "free_asks",
        "fresh",
        "growths",
        "ignored",
        "in_flight",
        "in_order",
        "key",
        "later",
        "letters",
        "log",
        "maps",
        "marks",
        "new_marks",
        "now",
        "open",
        "opened",
        "outcome",
        "output",
        "parent_attempt",
        "parent_pauses",
        "paused",
        "pauses",
        "phase",
        "publication",
        "reason",
        "records",
        "rederive",
        "signals",
        "signals_changed",
        "started_at",
        "status",
        "taken_from_later",
        "taken_from_ready",
        "task",
        "unbegun_ended",
        "undo_blocks",
        "vars",
        "vars_changed",
        "wake_at",
    )

    def __init__(self, task: Task, now: float) -> None:
        self.task = task
        self.now = now
        self.marks: dict[int, int] = {}
        self.records: dict[int, NodeRecord] = {}
        self.counts: dict[int, list[int]] = {}
        self.effects: list[Effect] = []
        self.letters: list[Letter] = []
        self.maps: dict[int, MapState] = {}
        self.dropped_maps: list[int] = []
        """Maps that begin again with new children."""
        self.opened: tuple[MapBlock, Sequence[bytes]] | None = None
        """Children to add to the task, and their items as they are archived."""
        self.growths: list[Growth] = []
        """Changes of maps that read artifacts."""
        self.undo_blocks: list[MapBlock] = []
        """Undos of the children of maps to add to the task."""
        self.unbegun_ended: list[range] = []
        """Places of maps of which the children end that have not begun."""
        self.new_marks: list[range] = []
        """Places of children whose marks :meth:`apply` sets besides ``marks``."""
        self.due: dict[int, float | None] = {}
        """New due times; None for a node that has none any more."""
        self.due_again = False
        """The due times of all nodes are among the new ones."""
        self.log: list[LogEntry] = []
        self.fresh: list[tuple[int, int]] = []
        self.later: list[tuple[int, int]] = []
        """Ready nodes that must not ask for their places now."""
        self.beginning: list[int] = []
        self.free_asks: int | None = None
        """Nodes that may ask for places now, once that is counted."""
        self.taken_from_later: int | None = None
        self.taken_from_ready = 0
        self.in_order: list[tuple[int, int]] = []
        self.ignored = False
        self.rederive = False
        self.vars_changed = False
        self.signals_changed = False
        self.signals = task.signals
        self.status = task.status
        self.outcome = task.outcome
        self.output = task.output
        self.paused = task.paused
        self.phase = task.phase
        self.pauses = task.pauses
        self.forced = task.forced
        self.parent_attempt = task.parent_attempt
        self.parent_pauses = task.parent_pauses
        self.key = task.key
        self.publication = task.publication
        self.vars = task.vars
        self.error = task.error
        self.reason = task.reason
        self.started_at = task.started_at
        self.finished_at = task.finished_at
        self.deadline_at = task.deadline_at
        self.wake_at = task.wake_at
        self.open = task.open
        self.in_flight = task.in_flight
        self.asking = task.asking
        self.deferred = task.deferred
        self.failures = task.failures

    # ------------------------------------------------------------ reading

    @property
    def spec(self) -> TaskSpec:
        return self.task.spec

    @property
    def main_is_stopping(self) -> bool:
        """Whether the nodes of the main phase stop, so that none of them starts."""
        return self.outcome is not None and self.phase is Phase.MAIN

    def mark(self, index: int) -> int:
        """Return the mark of a node."""
        mark = self.marks.get(index)
        return self.task.marks[index] if mark is None else mark

    def record(self, index: int) -> NodeRecord:
        """Return the record of a node. It must not be changed."""
        record = self.records.get(index)
        if record is None:
            record = self.task.records.get(index)
        return _NOTHING if record is None else record

    def edit(self, index: int) -> NodeRecord:
        """Return a copy of a node's record, which may be changed."""
        record = self.records.get(index)
        if record is None:
            known = self.task.records.get(index)
            record = self.records[index] = NodeRecord() if known is None else known.copy()
        return record

    def count(self, index: int) -> list[int]:
        """Return the counts of a node's taken, empty and broken edges, which may be changed."""
        counts = self.counts.get(index)
        if counts is None:
            task = self.task
            counts = self.counts[index] = [task.taken[index], task.empty[index], task.broken[index]]
        return counts

    # ------------------------------------------------------------ changing

    def move(self, index: int, mark: int, *, at: float | None = None, data: Any = None) -> None:
        """Move a node to a mark that the tables allow, and record a change that users see."""
        before = self.marks.get(index, self.task.marks[index])
        if mark not in NODE_MOVES[before]:
            raise IllegalMove(
                f"node {index} of task {self.task.task_id!r}: {chr(before)!r} to {chr(mark)!r}"
            )
        self.marks[index] = mark
        self.in_flight += (mark in IN_FLIGHT) - (before in IN_FLIGHT)
        self.asking += (mark == Mark.ASKING) - (before == Mark.ASKING)
        self.deferred += (mark == Mark.DEFERRED) - (before == Mark.DEFERRED)
        plan = self.task.spec.plan
        if (before in ATTEMPTED and mark not in ATTEMPTED) or mark in ENDED:
            self.end_claims(index, begun=before in ATTEMPTED, finished=mark == Mark.FINISHED)
            if self.record(index).overdue:
                self.edit(index).overdue = False
        if mark in ENDED:
            self.due[index] = None
            self.open -= 1
            self.failures += mark == Mark.FAILED and fails_task(plan, index)
            if index in self.task.maps:
                self.end_unbegun_children(index)
        if index >= plan.size:
            self._count_child(index, before, mark)
        status = _SHOWN_AS[mark]
        if status != _SHOWN_AS[before] or mark == Mark.ISSUED or mark == before:
            self.log.append((self.now if at is None else at, index, "status", status, data))

    def note(
        self,
        index: int,
        kind: str,
        status: str | None,
        data: Any = None,
        *,
        at: float | None = None,
    ) -> None:
        """Add a change to the history of the task."""
        self.log.append((self.now if at is None else at, index, kind, status, data))

    def set_status(self, status: TaskStatus, data: Any = None) -> None:
        """Move the task to a status that the tables allow, and record the change."""
        if status is self.status:
            return
        if status not in TASK_MOVES[self.status]:
            raise IllegalMove(f"task {self.task.task_id!r}: {self.status} to {status}")
        self.status = status
        self.note(-1, "status", status.value, data)

    def wake(self, at: float | None) -> None:
        """Schedule a wake-up no later than ``at``."""
        if at is not None and (self.wake_at is None or at < self.wake_at):
            self.wake_at = at

    def schedule(self, index: int, at: float) -> None:
        """Have a node examined no later than ``at``."""
        known = self.task.due.of_node.get(index) if self.task.due is not None else None
        known = self.due.get(index, known)
        self.due[index] = at if known is None else min(at, known)
        self.wake(at)

    # ------------------------------------------------------------ queue of ready nodes

    def make_ready(self, index: int) -> None:
        """Queue a node whose fan-in is met, or have its condition evaluated first."""
        if self.task.spec.plan.nodes[index].when is not None:
            self.move(index, Mark.CHECKING)
            self.effects.append(EvaluateCondition(index))
            return
        self.move(index, Mark.READY)
        self.queue(index)

    def may_stream(self, child: int) -> bool:
        """Return whether a waiting node may start on a batch: a parent that streams to it has
        stored one, and the other parents have ended.
        """
        return waits_for_batches(self, child) and any(
            edge.streams and self.record(edge.node).has_batch
            for edge in self.task.spec.plan.parents[child]
        )

    def queue(self, index: int) -> None:
        """Queue a ready node. One of a control type needs no place, and begins next. A child is
        queued with its map, unless it is an undo.
        """
        plan = self.task.spec.plan
        if index in plan.controls:
            heappush(self.beginning, index)
            return
        if index >= plan.size and not is_undo(plan, index):
            owner = map_of(plan, index)
            heappush(self.edit_map(owner).again, index)
            self.queue_map(owner)
            return
        heappush(self.fresh, (-queue_rank(plan, index, self.record(index)), index))

    def next_ready(self, held: list[int] | None = None) -> int | None:
        """Remove and return the ready node of the highest priority. Among nodes of equal priority,
        this is the first one in the graph. Those that would ask for a place while many others of
        the task wait for theirs are put aside. The undo of a map is returned, and stays first in
        the queue, if the undos of its children that run next are not known.

        With ``held``, nodes are moved there whose sources do not progress.
        """
        if self.taken_from_later is None and self.task.ready_later:
            self._take_from_later()
        while self.fresh or self.taken_from_ready < len(self.task.ready):
            entry = self._pop()
            index = entry[1]
            mark = self.mark(index)
            if mark == Mark.MAPPING and is_undo(self.task.spec.plan, index):
                if self._is_current_rank(entry):
                    return index
                continue
            if mark != Mark.READY:
                if mark != Mark.MAPPING:
                    continue
                if self._must_not_ask(index):
                    self.later.append(entry)
                    continue
                child = self._next_child(index)
                if child is None:
                    continue
                index = child
            elif not self.begins_with_children(index) and self._must_not_ask(index):
                self.later.append(entry)
                continue
            if held is not None and not sources_progress(self, index):
                held.append(index)
                continue
            return index
        return None

    def _take_from_later(self) -> None:
        """Queue as many of the nodes that were put aside as may ask for their places now."""
        taken = first_of(self.task.ready_later, self._may_ask())
        self.taken_from_later = len(taken)
        for entry in taken:
            heappush(self.fresh, entry)

    def _must_not_ask(self, index: int) -> bool:
        """Return the same as :func:`must_not_ask`, without counting again for each node."""
        return asks_for_place(self.spec.plan.nodes[index]) and not self._may_ask()

    def _may_ask(self) -> int:
        """Return how many nodes may ask for places now."""
        if self.free_asks is None:
            self.free_asks = may_ask(self.task)
        return self.free_asks

    def _pop(self) -> tuple[int, int]:
        """Remove and return the first entry of the queue, which is not empty."""
        queued = self.task.ready
        taken = self.taken_from_ready
        head = None
        if taken < len(queued):
            if taken == 1:
                self.in_order = sorted(queued)
            head = queued[0] if taken == 0 else self.in_order[taken]
        if head is None or (self.fresh and self.fresh[0] < head):
            return heappop(self.fresh)
        self.taken_from_ready += 1
        return head

    def _is_current_rank(self, entry: tuple[int, int]) -> bool:
        """Queue the undo of a map again if more of its children are to be undone, and return
        whether that leaves it in its place.
        """
        rank, index = entry
        state = self.edit_map(index)
        state.queued = False
        self.queue_map(index)
        return state.queued and -rank <= self.record(index).after

    # ------------------------------------------------------------ keys, rates and caches

    def return_unused(self, index: int) -> None:
        """Give back the places of a node that cannot start now. It keeps its ranks in the queues,
        and asks again when it can.
        """
        for kind in CLAIM_KINDS:
            claim = self.record(index).claim(kind)
            if claim is not None and not claim.is_over:
                self.end_claim(index, kind, begun=False)
                self.edit(index).set_claim(kind, claim.in_state("unused"))
        self.move(index, Mark.READY)
        self.queue(index)

    def end_segments(self) -> None:
        """Ask the workers to begin no further nodes without commands, if one of them may."""
        if has_segments(self.task):
            self.effects.append(EndSegments())

    def end_claims(self, index: int, *, begun: bool, finished: bool = False) -> None:
        """Give back the places of a node whose attempt is over, or take it out of the queues.
        ``begun`` says whether the attempt may have begun, and ``finished`` whether the node has.
        """
        record = self.record(index)
        for kind in CLAIM_KINDS:
            if record.claim(kind) is not None:
                self.end_claim(index, kind, begun=begun, finished=finished)

    def end_claim(
        self, index: int, kind: ClaimKind, *, begun: bool, finished: bool = False
    ) -> None:
        """Give back the place of a node, or take it out of the queue."""
        record = self.record(index)
        claim = record.claim(kind)
        if claim is None or claim.is_over:
            return
        self.edit(index).set_claim(kind, claim.in_state("over"))
        if claim.state not in NOTHING_TO_RETURN:
            self.effects.append(
                return_of(index, claim, kind, record, begun=begun, finished=finished)
            )

    # ------------------------------------------------------------ maps

    def begins_with_children(self, index: int) -> bool:
        """Return whether a node that starts has children to run, and no attempt of its own yet."""
        return has_children(self.task.spec.plan, index) and self.record(index).sharded_since is None

    def children_of(self, index: int) -> Iterator[int]:
        """Yield the children of a map, or the shards of a node."""
        return self.task.children_of(index)

    def edit_map(self, index: int) -> MapState:
        """Return a copy of a map's state, which may be changed."""
        state = self.maps.get(index)
        if state is None:
            state = self.maps[index] = self.task.maps[index].copy()
        return state

    def end_unbegun_children(self, index: int) -> None:
        """Cancel the children of a map that have not begun. They are not in the history, and
        neither is their end.
        """
        state = self.edit_map(index)
        if state.waiting:
            self.unbegun_ended += state.places()
            self.open -= state.waiting
            state.open -= state.waiting
            state.waiting = 0

    def queue_map(self, index: int) -> None:
        """Queue a map if one of its children may start."""
        plan, state = self.task.spec.plan, self.edit_map(index)
        if (
            not state.queued
            and self.mark(index) == Mark.MAPPING
            and may_start_child(plan.nodes[index], state)
        ):
            state.queued = True
            heappush(self.fresh, (-queue_rank(plan, index, self.record(index)), index))

    def _next_child(self, index: int) -> int | None:
        """Return the next child of a map that may start, and queue the map again if there are
        more; None if no child may start now.
        """
        state = self.edit_map(index)
        state.queued = False
        if not may_start_child(self.task.spec.plan.nodes[index], state):
            return None
        child = None
        while child is None and state.again:
            child = heappop(state.again)
            if self.mark(child) != Mark.READY:
                child = None
        if child is None and state.waiting:
            child = first_waiting(self.task.marks, state)
            while self.mark(child) != Mark.WAITING:  # this event has ended it
                state.cursor = child + 1
                child = first_waiting(self.task.marks, state)
            state.cursor = child + 1
            if self.record(child) is _NOTHING:
                # A child that runs again has a record, and keeps what it has stored.
                record, owner = self.edit(child), self.record(index)
                record.generation = owner.generation
                if is_shard(self.task.spec.plan, child):
                    record.first_attempt = owner.first_attempt
            self.move(child, Mark.READY)
        self.queue_map(index)
        return child

    def _count_child(self, index: int, before: int, mark: int) -> None:
        """Count a move of a child, and queue its map if another child may start."""
        owner = map_of(self.task.spec.plan, index)
        state = self.edit_map(owner)
        state.in_flight += (mark in IN_FLIGHT) - (before in IN_FLIGHT)
        state.asking += (mark == Mark.ASKING) - (before == Mark.ASKING)
        state.waiting -= before == Mark.WAITING
        if mark in ENDED:
            state.open -= 1
        if before in IN_FLIGHT:
            self.queue_map(owner)

    # ------------------------------------------------------------ applying

    def apply(self) -> None:
        """Make the change."""
        task = self.task
        count_tags(task, self.marks, self.records, self.dropped_maps)
        marks = task.marks
        for index, mark in self.marks.items():
            marks[index] = mark
        task.records.update(self.records)
        for index, (taken, empty, broken) in self.counts.items():
            task.taken[index], task.empty[index], task.broken[index] = taken, empty, broken
        task.status, task.outcome, task.paused = self.status, self.outcome, self.paused
        task.phase = self.phase
        task.vars, task.output = self.vars, self.output
        task.error, task.reason = self.error, self.reason
        task.signals = self.signals
        task.pauses, task.forced = self.pauses, self.forced
        task.parent_attempt, task.parent_pauses = self.parent_attempt, self.parent_pauses
        task.key = self.key
        task.publication = self.publication
        task.started_at, task.finished_at = self.started_at, self.finished_at
        task.deadline_at, task.wake_at = self.deadline_at, self.wake_at
        task.open, task.in_flight, task.asking = self.open, self.in_flight, self.asking
        task.deferred, task.failures = self.deferred, self.failures
        task.seq += len(self.log)
        task.maps.update(self.maps)
        for index in self.dropped_maps:
            drop_state(task, index)
        end_waiting_children(task.marks, self.unbegun_ended)
        self.new_marks += self.unbegun_ended
        if self.opened is not None or self.growths or self.undo_blocks:
            self._add_children()
        if self.rederive:
            derive(task)
            return
        if self.due_again:
            task.due = DueTimes()
        if task.due is not None and self.due:
            change_times(task.due, self.due)
        if self.taken_from_ready == 1:
            heappop(task.ready)
        elif self.taken_from_ready:
            task.ready = (self.in_order or sorted(task.ready))[self.taken_from_ready :]
        for _ in range(self.taken_from_later or 0):
            heappop(task.ready_later)
        for entry in self.later:
            heappush(task.ready_later, entry)
        for entry in self.fresh:
            heappush(task.ready, entry)
        while task.ready and marks[task.ready[0][1]] not in _QUEUED:
            heappop(task.ready)

    def _add_children(self) -> None:
        """Add new children of maps, and queue these maps."""
        task, grown = self.task, list[int]()
        if self.opened is not None:
            block = self.opened[0]
            add_block(task, block)
            self.new_marks.append(range(block.first, block.end))
            grown.append(block.owner)
        for growth in self.growths:
            self.new_marks += grow(task, growth)
            if growth.items:
                grown.append(growth.owner)
        for block in self.undo_blocks:
            add_undos(task, block)
            self.new_marks.append(range(block.first, block.end))
        for index in grown:
            if not task.maps[index].queued:
                task.maps[index].queued = True
                self.fresh.append((-self.spec.plan.nodes[index].priority, index))


_NOTHING = NodeRecord()
_SHOWN_AS = {mark: status.value for mark, status in STATUS_OF_MARK.items()}
"""Statuses of nodes in the history, by mark."""
_QUEUED = frozenset({Mark.READY, Mark.MAPPING})
NOTHING_TO_RETURN = frozenset({"unnamed", "shared"})
"""States of claims that have no place of their own and did not ask for one."""
MOST_WAITING_FOR_KEYS = 1_000
"""Nodes of a task that may wait for places of one kind before no further node asks for one."""
_WAITING: tuple[str, ...] = tuple(map(waiting_tag, CLAIM_KINDS))


def may_ask(task: Task) -> int:
    """Return how many more nodes of a task may ask for places now."""
    waiting = max([task.tag_counts.get(tag, 0) for tag in _WAITING])
    return max(MOST_WAITING_FOR_KEYS - waiting, 0)


def must_not_ask(task: Task, index: int) -> bool:
    """Return whether a node would ask for a place while many others of the task wait for theirs."""
    return asks_for_place(task.spec.plan.nodes[index]) and not may_ask(task)


def asks_for_place(node: NodeSpec) -> bool:
    """Return whether a node asks for a place of a key or a rate, or for a cached result."""
    return node.key is not None or node.rate_limit is not None or node.cache is not None
