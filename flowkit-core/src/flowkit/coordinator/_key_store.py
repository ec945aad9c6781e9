"""Records of keys of one kind: their states, and the fronts of their queues, kept in memory."""

import asyncio
import logging
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import count
from typing import NamedTuple

from flowkit._engine.key_places import FREE, Candidate, KeyState
from flowkit._records.key_queues import KeyQueue, QueuedBatch, read_queue
from flowkit._records.key_records import (
    Batch,
    claims_in_queue,
    key_state,
    new_batches,
    queue_batch,
    queue_key,
    queue_kind,
    queue_prefix,
    queue_record,
)
from flowkit._records.queries import tasks_to_look_at
from flowkit._runtime.concurrency import Recent
from flowkit.coordinator._key_work import Ask, KeyWork, Step
from flowkit.errors import CorruptRecord
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion, Store
from flowkit.task import ClaimKind

logger = logging.getLogger(__name__)

MOST_KNOWN = 10_000
"""Keys of which the last state is kept in memory."""
MOST_QUEUES, MOST_QUEUED = 1_000, 500
"""Keys of which the front of the queue is kept in memory, and the claims of each."""
MOST_SEARCHED = 20
"""Batches that are read together to find those of claims that are withdrawn."""


class Known(NamedTuple):
    """State of a key, and what is known of its record."""

    state: KeyState
    revision: str
    """The empty text if there is no record."""
    due_at: float | None = None
    """Time at which the holders are to be checked."""


class Removal(NamedTuple):
    """Change of a batch in the queue of a key that claims leave."""

    change: RecordChange
    queue: KeyQueue | None = None
    batch: QueuedBatch | None = None
    """The batch, if it is in memory."""


class KeyStore:
    """Reads and stores the states of keys, and the claims in their queues."""

    def __init__(self, kind: ClaimKind, store: Store) -> None:
        self._kind = kind
        self._store = store
        self._records = store.records
        self._known: Recent[str, Known | None] = Recent(MOST_KNOWN)
        """Last states of keys; None for those to be read next time."""
        self._queues: Recent[str, tuple[str, KeyQueue]] = Recent(MOST_QUEUES)
        """Queues, each with the revision of the record of its key for which it holds."""
        self._unseen: Known | None = Known(FREE, "") if kind == "key" else None
        self._name = secrets.token_hex(6)
        self._numbers = count()

    def new_id(self) -> str:
        """Return the id of a new change."""
        return f"{self._name}.{next(self._numbers)}"

    # ------------------------------------------------------------ states

    def states(self, keys: Iterable[str]) -> dict[str, Known]:
        """Return the states of keys in memory, without those that are to be read.

        A concurrency key without a state in memory counts as free, because most are. If it is not,
        the change that gives a place of it is refused.
        """
        known = {key: self._known.get(key, self._unseen) for key in keys}
        return {key: one for key, one in known.items() if one is not None}

    def seems_contended(self, key: str) -> bool:
        """Return whether there may be claims in the queue of a key, by its state in memory."""
        known = self._known.get(key)
        return known is not None and known.state.contended

    def forget(self, key: str) -> None:
        """Read the state of a key next time."""
        self._known[key] = None

    def forget_all(self) -> None:
        """Read the states of all keys next time."""
        self._known.update(dict.fromkeys(self._known))

    async def read(self, keys: Collection[str]) -> dict[str, Known]:
        """Read the states of keys, and return them without those whose records are damaged."""
        found: dict[str, Known] = {}
        stored = await self._records.get(self._kind, keys) if keys else {}
        for key in keys:
            record = stored.get(key)
            try:
                self._known[key] = found[key] = _known(record)
            except CorruptRecord as error:
                logger.error("%s", error, extra={"action": "key_damaged"})
                self.forget(key)
        return found

    async def change(
        self,
        changes: Mapping[str, RecordChange],
        steps: Mapping[str, Step],
        removals: Sequence[Removal],
    ) -> set[str]:
        """Store the states of keys, and take claims out of the queues. Return the keys that others
        have changed meanwhile.
        """
        refused: set[str] = set()
        stored: Sequence[bool] = ()
        if changes or removals:
            removing = (removal.change for removal in removals)
            stored = await self._records.change([*changes.values(), *removing])
        for (key, change), success in zip(changes.items(), stored, strict=False):
            if success:
                self._known[key] = Known(
                    steps[key].state,
                    change.op_id if change.put else "",
                    change.put[0].due_at if change.put else None,
                )
            else:
                refused.add(key)
                self.forget(key)
        for (change, queue, batch), success in zip(removals, stored[len(changes) :], strict=True):
            if queue is None or batch is None:
                continue
            if change.delete:
                queue.forget(batch)
            elif success:
                batch.batch = batch.batch._replace(revision=change.op_id)
        return refused

    # ------------------------------------------------------------ queues

    async def enter_queues(self, work: Mapping[str, KeyWork]) -> dict[str, list[Batch]]:
        """Store claims in the queues, and return them. They count when the record of their key is
        changed after that.
        """
        asking: dict[str, list[Ask]] = {}
        for key, one in work.items():
            if asks := [ask for ask in one.asks if ask.enters]:
                asking[key] = asks
        if not asking:
            return {}
        entered: dict[str, list[Batch]] = {}
        changes: list[RecordChange] = []
        for key, asks in asking.items():
            entered[key] = []
            for batch in new_batches(key, [ask.candidate for ask in asks], self.new_id):
                op_id = self.new_id()
                changes.append(RecordChange(op_id, [queue_record(self._kind, key, batch)]))
                entered[key].append(batch._replace(revision=op_id))
        await self._records.change(changes)
        for asks in asking.values():
            for ask in asks:
                ask.enters, ask.queued = False, True
        return entered

    async def queues(
        self,
        states: Mapping[str, Known],
        work: Mapping[str, KeyWork],
        entered: Mapping[str, Sequence[Batch]],
    ) -> dict[str, KeyQueue]:
        """Return the queues of keys that are in memory or matter for a step, with the claims that
        have ``entered``. Those that matter have as many claims as are to be read, or all of them.
        Damaged batches are repaired first. One whose task cannot be read is left out.

        A queue without claims is read, so that a key is not free while another coordinator has
        stored a claim in its queue, and stopped before it changed the record of the key.
        """
        queues: dict[str, KeyQueue] = {}
        missing: list[str] = []
        for key, known in states.items():
            todo = work[key]
            queue = self._take_queue(key, known, new=key in entered)
            if queue is not None:
                queue.add(entered.get(key, ()))
                queue.remove(todo.withdrawn)
            if todo.reads_queue(known.state) and not (queue and queue.has(todo.reads)):
                missing.append(key)
            elif queue is not None:
                queues[key] = queue
        found = await self._read_queues({key: (states[key], work[key].reads) for key in missing})
        if damaged := {key: queue.damaged for key, queue in found.items() if queue.damaged}:
            await self._repair(damaged)
            found |= await self._read_queues(
                {key: (states[key], work[key].reads) for key in damaged}
            )
        for key, queue in found.items():
            queue.remove(work[key].withdrawn)
        return queues | found

    async def _read_queues(self, wanted: Mapping[str, tuple[Known, int]]) -> dict[str, KeyQueue]:
        """Read the first claims in the queues of keys, as many as are wanted of each."""
        read = (
            read_queue(self._records, self._kind, key, known.state.left, most=most)
            for key, (known, most) in wanted.items()
        )
        return dict(zip(wanted, await asyncio.gather(*read), strict=True))

    async def _repair(self, damaged: Mapping[str, Sequence[KeyedRecord]]) -> None:
        """Replace damaged batches in the queues of keys by new ones, with the claims that their
        tasks have. A claim that is in another batch, too, is in the queue once.
        """
        of_tasks: dict[tuple[str, str | None], list[str]] = {}
        for key, records in damaged.items():
            for record in records:
                of_tasks.setdefault((key, record.task_id), []).append(record.key)
        ids = {task_id for _, task_id in of_tasks if task_id is not None}
        tasks = await tasks_to_look_at(self._store, ids)
        changes = []
        for (key, task_id), names in of_tasks.items():
            task = None if task_id is None else tasks.get(task_id)
            if task is None and task_id in tasks:
                continue
            claims = [] if task is None else claims_in_queue(task, key, self._kind)
            batches = new_batches(key, claims, self.new_id)
            puts = [queue_record(self._kind, key, batch) for batch in batches]
            deletions = [RecordDeletion(queue_kind(self._kind), name) for name in names]
            changes.append(RecordChange(self.new_id(), puts, deletions))
            logger.warning(
                "Damaged records in the queue of %s %r were repaired from task %r",
                self._kind,
                key,
                task_id,
                extra={"action": "queue_repaired", "task_id": task_id},
            )
        if changes:
            await self._records.change(changes)

    def keep(self, key: str, queue: KeyQueue) -> None:
        """Keep a queue in memory after a step that counts."""
        known = self._known.get(key)
        if known is not None and known.revision and 0 < len(queue.claims) <= MOST_QUEUED:
            self._queues[key] = known.revision, queue

    def _take_queue(self, key: str, known: Known, *, new: bool) -> KeyQueue | None:
        """Return the queue in memory, unless the record of its key has been changed since. A key
        that is not contended has no claims in its queue.
        """
        revision, queue = self._queues.pop(key, ("", None))
        if queue is not None and revision == known.revision:
            return queue
        return KeyQueue() if new and not known.state.contended else None

    async def removals(
        self, work: Mapping[str, KeyWork], queues: Mapping[str, KeyQueue]
    ) -> list[Removal]:
        """Return the changes of the batches that claims have left by what is stored, and of those
        that withdrawn claims leave.
        """
        found: list[Removal] = []
        lost: dict[str, list[Candidate]] = {}
        for listed in queues.values():
            for batch in listed.empty_batches():
                found.append(Removal(self._deletion(batch.batch), listed, batch))
        for key, todo in work.items():
            if not todo.withdrawn:
                continue
            queue = queues.get(key)
            if queue is None and key in self._queues:
                queue = self._queues[key][1]
                queue.remove(todo.withdrawn)
            left: dict[int, QueuedBatch] = {}
            for one in todo.withdrawn:
                batches = () if queue is None else queue.batches_of(one)
                left.update((id(batch), batch) for batch in batches)
                if not batches:
                    lost.setdefault(key, []).append(one)
            for batch in left.values():
                if not batch.is_empty:
                    change = self._replacement(key, batch.batch, batch.out)
                    found.append(Removal(change, queue, batch))
                elif key not in queues:
                    found.append(Removal(self._deletion(batch.batch), queue, batch))
        changed = {one.batch.batch.name for one in found if one.batch is not None}
        searched = await asyncio.gather(*(self._search(*one, changed) for one in lost.items()))
        return [*found, *(Removal(change) for some in searched for change in some)]

    def _deletion(self, batch: Batch) -> RecordChange:
        name = RecordDeletion(queue_kind(self._kind), batch.name)
        return RecordChange(self.new_id(), delete=[name])

    def _replacement(self, key: str, batch: Batch, gone: Collection[int]) -> RecordChange:
        """Return the change that stores which claims have left a batch."""
        record = queue_record(self._kind, key, batch._replace(gone=gone))
        return RecordChange(self.new_id(), [record])

    async def _search(
        self, key: str, claims: Collection[Candidate], changed: Collection[str]
    ) -> list[RecordChange]:
        """Return the changes that take withdrawn claims out of batches that are not in memory.
        Leave out those that are ``changed`` anyway: a batch in memory is without the claims that
        had left it when it was read.

        A batch comes before its claims, and not far. A claim that is not found is given back when
        it gets a place.
        """
        changes: list[RecordChange] = []
        wanted, first = {*claims}, queue_key(key, min(claims))
        after = f"{queue_key(key, max(claims))}~"  # which is after all batches
        while after > first:
            records = await self._records.scan(
                queue_kind(self._kind),
                prefix=queue_prefix(key),
                after=after,
                limit=MOST_SEARCHED,
                last=True,
            )
            for batch in map(queue_batch, records):
                if batch is None or batch.name in changed or wanted.isdisjoint(batch.claims):
                    continue
                out = {index for index, one in enumerate(batch.claims) if one in wanted}
                gone = out.union(batch.gone)
                if len(gone) == len(batch.claims):
                    changes.append(self._deletion(batch))
                elif len(gone) > len(batch.gone):
                    changes.append(self._replacement(key, batch, gone))
            if len(records) < MOST_SEARCHED:
                break
            after = records[-1].key
        return changes


def _known(record: KeyedRecord | None) -> Known:
    if record is None:
        return Known(FREE, "")
    return Known(key_state(record), record.revision, record.due_at)
