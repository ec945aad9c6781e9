"""Records of keys of one kind: their states, which stay in memory, and their queues."""

import asyncio
import logging
import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import NamedTuple

from flowkit._engine.key_places import FREE, Candidate, KeyState
from flowkit._records.key_records import (
    claim_in_queue,
    key_state,
    queue_key,
    queue_kind,
    queue_prefix,
    queued_claim,
    queued_record,
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


class Known(NamedTuple):
    """State of a key, and what is known of its record."""

    state: KeyState
    revision: str
    """The empty text if there is no record."""
    due_at: float | None = None
    """Time at which the holders are to be checked."""


class KeyStore:
    """Reads and stores the states of keys, and the claims in their queues."""

    def __init__(self, kind: ClaimKind, store: Store) -> None:
        self._kind = kind
        self._store = store
        self._records = store.records
        self._known: Recent[str, Known | None] = Recent(MOST_KNOWN)
        """Last states of keys; None for those to be read next time."""
        self._unseen: Known | None = Known(FREE, "") if kind == "key" else None
        self._name = secrets.token_hex(6)
        self._numbers = count()

    def new_id(self) -> str:
        """Return the id of a new change."""
        return f"{self._name}.{next(self._numbers)}"

    # ------------------------------------------------------------ states

    def states(self, keys: Iterable[str], *, unproved: Collection[str]) -> dict[str, Known]:
        """Return the states of keys in memory, without those that are to be read. If nothing will
        be stored that proves that it is the last one, a contended key is to be read.

        A concurrency key without a state in memory counts as free, because most are. If it is not,
        the change that gives a place of it is refused.
        """
        found: dict[str, Known] = {}
        for key in keys:
            known = self._known.get(key, self._unseen)
            if known is not None and not (known.state.contended and key in unproved):
                found[key] = known
        return found

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
        withdrawn: Iterable[tuple[str, Candidate]],
    ) -> set[str]:
        """Store the states of keys, and delete withdrawn claims from the queues. Return the keys
        that others have changed meanwhile.
        """
        refused: set[str] = set()
        names = {queue_key(key, one) for key, one in withdrawn}
        gone = [RecordDeletion(queue_kind(self._kind), name) for name in sorted(names)]
        deletions = [RecordChange(self.new_id(), delete=[one]) for one in gone]
        if not changes and not deletions:
            return refused
        stored = await self._records.change([*changes.values(), *deletions])
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
        return refused

    # ------------------------------------------------------------ queues

    async def enter_queues(self, work: Mapping[str, KeyWork]) -> Collection[str]:
        """Store claims in the queues, and return their keys."""
        put: list[tuple[str, Ask]] = [
            (key, ask) for key, one in work.items() for ask in one.asks if ask.enters
        ]
        changes = [
            RecordChange(self.new_id(), [queued_record(self._kind, key, ask.candidate)])
            for key, ask in put
        ]
        if changes:
            await self._records.change(changes)
        for _, ask in put:
            ask.enters, ask.queued = False, True
        return {key for key, _ in put}

    async def queues(self, reads: Mapping[str, int]) -> dict[str, list[Candidate]]:
        """Return the first claims in the queues of keys, as many as are to be read of each.

        Damaged records are repaired first. One whose task cannot be read is left out.
        """
        found = await self._scanned(reads)
        damaged = [
            (key, record)
            for key, records in found.items()
            for record in records
            if queued_claim(record) is None
        ]
        if damaged:
            await self._repair(damaged)
            found |= await self._scanned({key: reads[key] for key, _ in damaged})
        return {
            key: [one for one in map(queued_claim, records) if one is not None]
            for key, records in found.items()
        }

    async def _scanned(self, reads: Mapping[str, int]) -> dict[str, Sequence[KeyedRecord]]:
        scan, kind = self._records.scan, queue_kind(self._kind)
        found = await asyncio.gather(
            *(scan(kind, prefix=queue_prefix(key), limit=most) for key, most in reads.items())
        )
        return dict(zip(reads, found, strict=True))

    async def _repair(self, damaged: Collection[tuple[str, KeyedRecord]]) -> None:
        """Store damaged records in the queues of keys again, with the claims that their tasks have.
        Delete those without such a claim.
        """
        ids = {record.task_id for _, record in damaged if record.task_id is not None}
        tasks = await tasks_to_look_at(self._store, ids)
        deletions, puts = [], []
        for key, record in damaged:
            task = None if record.task_id is None else tasks.get(record.task_id)
            if task is None and record.task_id in tasks:
                continue
            one = None if task is None else claim_in_queue(task, record.key, self._kind)
            if one is None or record.fault is not None:  # its revision may be damaged, too
                gone = RecordDeletion(queue_kind(self._kind), record.key)
                deletions.append(RecordChange(self.new_id(), delete=[gone]))
            if one is not None:
                revision = "" if record.fault is not None else record.revision
                again = replace(queued_record(self._kind, key, one), revision=revision)
                puts.append(RecordChange(self.new_id(), [again]))
            logger.warning(
                "A damaged record in the queue of %s %r was repaired from task %r",
                self._kind,
                key,
                record.task_id,
                extra={"action": "queue_repaired", "task_id": record.task_id},
            )
        for changes in filter(None, (deletions, puts)):
            await self._records.change(changes)


def _known(record: KeyedRecord | None) -> Known:
    if record is None:
        return Known(FREE, "")
    return Known(key_state(record), record.revision, record.due_at)
