"""Queues of keys in memory: the claims that are first, and the batches that they came in."""

from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from flowkit._engine.key_places import Candidate
from flowkit._records.key_records import Batch, queue_batch, queue_kind, queue_prefix
from flowkit.protocols import KeyedRecord, RecordStore
from flowkit.task import ClaimKind

MOST_OTHERS = 20
"""Batches beyond those in memory for which the record of a key counts the claims that have left."""
PAGE = 100

Left = tuple[tuple[str, int], ...]
"""For batches, how many of the first claims of each have left."""


@dataclass(eq=False, slots=True)
class QueuedBatch:
    """Batch in the queue, and which of its claims have left."""

    batch: Batch
    out: set[int]
    """Indexes of the claims that have left."""
    first: int = 0
    """Index of the first claim that has not left."""

    @property
    def is_empty(self) -> bool:
        """Whether all claims have left."""
        return self.first == len(self.batch.claims)

    def index(self, one: Candidate) -> int:
        """Return the index of a claim."""
        return bisect_left(self.batch.claims, one)

    def remove(self, index: int) -> None:
        """Note that a claim has left."""
        self.out.add(index)
        while self.first in self.out:
            self.first += 1


@dataclass(eq=False, slots=True)
class KeyQueue:
    """The first claims in the queue of a key, in the order of places.

    It holds for one revision of the record of the key, because each claim that comes into the queue
    changes that record afterwards.
    """

    end: Candidate | None = None
    """Claims from this one on may be missing; None if no claim is."""
    claims: deque[Candidate] = field(default_factory=deque)
    damaged: list[KeyedRecord] = field(default_factory=list)
    """Records that were read, and whose claims are missing because they are damaged."""
    _batches: dict[Candidate, QueuedBatch] = field(default_factory=dict)
    """Batch of each claim, also of those that have left, until the batch is deleted."""
    _copies: dict[Candidate, list[QueuedBatch]] = field(default_factory=dict)
    """Other batches of claims that are in several."""
    _begun: dict[str, QueuedBatch] = field(default_factory=dict)
    """Batches whose first claims have left."""
    _deleted: set[str] = field(default_factory=set)

    def add(self, batches: Iterable[Batch], left: Left = ()) -> None:
        """Add batches, with the numbers of claims that have left by the record of the key.

        A claim may be in several batches, if the answer of the store to an earlier one was lost. It
        is in the queue if it has not left all of them.
        """
        added: list[Candidate] = []
        numbers = dict(left)
        for batch in batches:
            if self.end is not None and batch.claims[0] >= self.end:
                continue
            one = QueuedBatch(batch, set())
            for index in (*range(numbers.get(batch.batch_id, 0)), *batch.gone):
                one.remove(index)
            if one.first:
                self._begun[batch.batch_id] = one
            for index, claim in enumerate(batch.claims):
                if index in one.out:
                    continue
                other = self._batches.get(claim)
                if other is None or other.index(claim) in other.out:
                    self._batches[claim] = one
                    if self.end is None or claim < self.end:
                        added.append(claim)
                else:
                    self._copies.setdefault(claim, []).append(one)
        if added:
            added.sort()
            in_order = not self.claims or self.claims[-1] < added[0]
            self.claims.extend(added)
            if not in_order:
                self.claims = deque(sorted(self.claims))

    def cut(self, end: Candidate) -> None:
        """Drop the claims from ``end`` on, because others may be missing there."""
        self.end = end
        while self.claims and self.claims[-1] >= end:
            self.claims.pop()

    def has(self, most: int) -> bool:
        """Return whether there are claims: so many, or all that are in the queue."""
        return bool(self.claims) and (self.end is None or len(self.claims) >= most)

    def front(self, most: int) -> Sequence[Candidate]:
        """Return the first claims."""
        return list(islice(self.claims, most))

    def remove(self, claims: Collection[Candidate]) -> None:
        """Note that claims have left the queue."""
        scattered: set[Candidate] = set()
        for one in sorted(claims):
            for batch in self.batches_of(one):
                batch.remove(batch.index(one))
                if batch.first:
                    self._begun[batch.batch.batch_id] = batch
            if self.claims and self.claims[0] == one:
                self.claims.popleft()
            else:
                scattered.add(one)
        if not scattered.isdisjoint(self.claims):
            self.claims = deque(one for one in self.claims if one not in scattered)

    def batches_of(self, one: Candidate) -> Sequence[QueuedBatch]:
        """Return the batches of a claim; none if they are not known."""
        batch = self._batches.get(one)
        return () if batch is None else (batch, *self._copies.get(one, ()))

    def is_counted(self, one: Candidate) -> bool:
        """Return whether a claim is one of the first of its batches, and these have left."""
        batches = self.batches_of(one)
        return bool(batches) and all(batch.index(one) < batch.first for batch in batches)

    def empty_batches(self) -> list[QueuedBatch]:
        """Return the batches that all claims have left."""
        return [batch for batch in self._begun.values() if batch.is_empty]

    def forget(self, batch: QueuedBatch) -> None:
        """Forget a batch that is deleted."""
        name = batch.batch.batch_id
        self._deleted.add(name)
        self._begun.pop(name, None)
        for one in batch.batch.claims:
            if self._batches.get(one) is batch:
                del self._batches[one]

    def left(self, before: Left) -> Left:
        """Return for the record of the key how many of the first claims have left each batch. Keep
        what it says of batches that are not in memory.
        """
        begun = [(name, batch.first) for name, batch in self._begun.items()]
        if self.end is None:
            return tuple(begun)
        known = self._begun.keys() | self._deleted
        others = [one for one in before if one[0] not in known]
        return (*others[-MOST_OTHERS:], *begun)


async def read_queue(
    records: RecordStore, kind: ClaimKind, key: str, left: Left, *, most: int
) -> KeyQueue:
    """Read so many first claims in the queue of a key, or all of them. ``left`` is that of the
    state of the key.
    """
    queue, after, limit = KeyQueue(), "", min(most + 1, PAGE)
    while True:
        page = await records.scan(
            queue_kind(kind), prefix=queue_prefix(key), after=after, limit=limit
        )
        found = [(record, queue_batch(record)) for record in page]
        batches = [batch for _, batch in found if batch is not None]
        queue.damaged += [record for record, batch in found if batch is None]
        queue.add(batches, left)
        if len(page) < limit:
            return queue
        if batches and sum(one < batches[-1].claims[0] for one in queue.claims) >= most:
            queue.cut(batches[-1].claims[0])
            return queue
        after = page[-1].key
