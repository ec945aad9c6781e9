"""Explanations of nodes, down to the lowest child task that a node waits for."""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from shlex import quote

from flowkit._engine.key_places import TURN_SEC, Claimant
from flowkit._records.heartbeats import slots_in_use, why_unserved
from flowkit._records.key_waits import MOST_NAMED, PlaceWait, place_wait
from flowkit._records.letter_records import read_letters
from flowkit._records.queries import records_of
from flowkit._records.task_records import decode_task
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit._tasks.ancestors import Ancestors, Place
from flowkit._tasks.explanations import (
    awaits_decision,
    cause_in,
    explain_node,
    explain_quarantine,
    keeps_waiting,
    may_be_quarantined,
    running_child,
)
from flowkit._tasks.map_children import with_maps
from flowkit._tasks.missing_processes import missing_coordinator, missing_worker
from flowkit.client._session import Session, index_of
from flowkit.errors import CorruptRecord
from flowkit.graph._expanded_plan import node_of
from flowkit.protocols import Store, TaskRecord
from flowkit.task import ENDED, WHOLE_TASK, DeadLetter, Mark, Task, TaskStatus

MOST_TASKS = 100
"""Child tasks that are read to find one that waits for a decision."""


async def explain(session: Session, task_id: str, node_id: str) -> str:
    """Return a sentence that says why a node is not running."""
    record = await session.record(task_id)
    try:
        task = decode_task(record)
    except CorruptRecord:
        if (letter := await _last_letter(session.store, task_id)) is None:
            raise
        with suppress(CorruptRecord):
            index_of(decode_task(record, to_look_at=True), node_id)
        return explain_quarantine(letter, now=session.clock.now())
    index = index_of(task, node_id)
    if task.marks[index] in ENDED:
        records = await records_of(session.store, task, with_maps(task, [index]))
        return explain_node(task, index, records, now=session.clock.now())
    return await _Explanation(session, await sessions_of(session.store)).of(record, task, index)


async def _last_letter(store: Store, task_id: str) -> DeadLetter | None:
    """Return the last dead letter of a task that was quarantined, or None."""
    letters = await read_letters(store, task_id=task_id, kind="task")
    return max(letters, key=lambda letter: letter.at, default=None)


class _Explanation:
    """Explanation of a node that has not ended, with the processes that are there."""

    def __init__(self, session: Session, sessions: Sequence[WorkerSession]) -> None:
        self._store = session.store
        self._clock = session.clock
        self._sessions = sessions
        self._missing: list[str | None] = []
        self._ancestors = Ancestors(session.store)
        self._owners: set[Claimant] = set()
        """Nodes that compute results for which the others wait."""
        self._above: set[Place] = set()
        """Tasks of nodes that wait for these results, and the nodes and tasks above them."""

    async def of(self, record: TaskRecord, task: Task, index: int) -> str:
        """Return why a node is not running, and which processes are missing."""
        sentence, waits = await self._of_node(record, task, index)
        missing = [*self._missing, missing_coordinator(self._sessions, self._clock.now())]
        return " ".join([sentence, *filter(None, missing if waits else ())])

    async def _of_node(self, record: TaskRecord, task: Task, index: int) -> tuple[str, bool]:
        """Return why a node is not running, and whether it waits for processes: the nodes of a
        quarantined task do not.
        """
        if may_be_quarantined(task, index):
            letter = await _last_letter(self._store, task.task_id)
            if letter is not None and keeps_waiting(record, letter):
                return explain_quarantine(letter, now=self._clock.now()), False
        records = await records_of(self._store, task, with_maps(task, [index]))
        now, waits, below = self._clock.now(), True, None
        if (child_id := running_child(task, index, records)) is not None:
            below, waits = await self._below(task, child_id)
        if task.marks[index] == Mark.RUNNING and (name := records[index].worker_id) is not None:
            self._missing.append(missing_worker(self._sessions, name, now))
        role = task.spec.plan.nodes[index].type
        unserved = why_unserved(self._sessions, role, now)
        slots = slots_in_use(self._sessions, role, now)
        waited = await place_wait(self._store, task, index, records, now)
        sentence = explain_node(
            task,
            index,
            records,
            now=now,
            unserved=unserved,
            slots=slots,
            below=below,
            place_wait=_text_of(waited, task.marks[index]),
        )
        if waited is None or not waited.holders:
            return sentence, waits
        if waited.kind == "cache":
            return f"{sentence}{await self._of_owner(task, waited.holders[0])}", waits
        if waited.kind == "key":
            sentence += await self._of_pauses(waited.holders)
        if waited.kind == "key" and {holder[:2] for holder in waited.holders} <= self._above:
            sentence += self._of_mutual_wait(task, index)
        return sentence, waits

    async def _of_owner(self, task: Task, owner: Claimant) -> str:
        """Return what the node does that computes the result for which a node waits."""
        record = (await self._store.load([owner.task_id])).get(owner.task_id)
        if record is None or owner in self._owners:
            return ""
        try:
            computing = decode_task(record)
        except CorruptRecord:
            return ""
        self._owners.add(owner)
        ancestors = await self._ancestors.above(task.task_id)
        self._above |= {(task.task_id, WHOLE_TASK), *ancestors}
        sentence, waits = await self._of_node(record, computing, owner.node)
        return f" In that task, {sentence}" if waits else f" {sentence}"

    async def _of_pauses(self, holders: Sequence[Claimant]) -> str:
        """Return which holders of a key belong to paused tasks, and what resumes these."""
        sentences = []
        for holder in dict.fromkeys(one.task_id for one in holders[:MOST_NAMED]):
            above = [task_id for task_id, _ in await self._ancestors.above(holder)]
            stored = await self._store.load([*dict.fromkeys([holder, *above])])
            paused = [
                task_id
                for task_id in (holder, *above)
                if task_id in stored and stored[task_id].header.status == TaskStatus.PAUSED
            ]
            if holder in paused:
                resume = f"run `flowkit resume {quote(paused[-1])}`"
                sentences.append(f" Task {holder!r} is paused: {resume}.")
        return "".join(sentences)

    def _of_mutual_wait(self, task: Task, index: int) -> str:
        """Return what ends the wait of a node for a key whose holder waits for the result of this
        node, or of a sub-flow above it.
        """
        if (task.task_id, index) in [owner[:2] for owner in self._owners]:
            return f" It lets the other node run first after {TURN_SEC:g} s."
        cancel = f"`flowkit cancel {quote(task.task_id)}`"
        return f" So the two nodes wait for each other: {cancel} lets the other one run."

    async def _below(self, parent: Task, child_id: str) -> tuple[str | None, bool]:
        """Return what a child task waits for, as the end of a sentence that names it, or None; and
        whether it waits for processes.
        """
        record = (await self._store.load([child_id])).get(child_id)
        if record is None:
            return None, True
        if record.header.status == TaskStatus.PAUSED:
            paused = parent.task_id if parent.paused else child_id
            return f", which is paused: run `flowkit resume {quote(paused)}`.", True
        try:
            child = decode_task(record)
        except CorruptRecord as error:
            letter = await _last_letter(self._store, child_id)
            if letter is None:
                return f", which cannot be read: {error}.", False
            return f". {explain_quarantine(letter, now=self._clock.now())}", False
        if (cause := cause_in(child)) is None:
            return None, True
        sentence, waits = await self._of_node(record, child, cause)
        return f", in which {sentence}" if waits else f". {sentence}", waits


def _text_of(waited: PlaceWait | None, mark: int) -> str | None:
    """Return for which place a node waits. One that asks has an answer soon, unless the record of
    the place is damaged.
    """
    if waited is None or (mark == Mark.ASKING and not waited.is_damaged):
        return None
    return waited.text


async def asking_below(store: Store, task: Task, index: int) -> tuple[str, str] | None:
    """Return a node that waits for a decision in a child task of this node, or in one below: the id
    of its task, and its own; None if none is found.
    """
    children = deque(_children_of(task, index))
    for _ in range(MOST_TASKS):
        if not children:
            break
        child_id = children.popleft()
        record = (await store.load([child_id])).get(child_id)
        if record is None:
            continue
        child = decode_task(record, to_look_at=True)
        for place, node in sorted(child.records.items()):
            if awaits_decision(child, place, node):
                return child_id, child.spec.plan.ids[place]
        children += _children_of(child, None)
    return None


def _children_of(task: Task, index: int | None) -> list[str]:
    """Return the ids of the child tasks of a node, or of all nodes of a task."""
    plan = task.spec.plan
    nodes = (place for place in task.records if index in (None, place, node_of(plan, place)))
    found = (running_child(task, place, task.records) for place in sorted(nodes))
    return [child_id for child_id in found if child_id is not None]
