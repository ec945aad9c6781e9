"""Concurrency keys, rates and the keys of caches, as keyed records of the store.

A key that is in use has a record. Claims of a task that come into its queue together are a batch,
and share a record. The keys of these records begin with a hash of the key, and are in the order of
the first claims of the batches.

Claims leave a batch in their order, with few exceptions. So the record of the key counts those that
have left, and the batch is changed only for the exceptions, and deleted with its last claim.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import to_json

from flowkit._engine.key_places import (
    FREE,
    Begun,
    Candidate,
    Claimant,
    Holder,
    KeyState,
    Value,
)
from flowkit._json.limits import Count, Moment, PositiveSeconds, Seconds
from flowkit._records.record_parts import corrupt
from flowkit.errors import CorruptRecord
from flowkit.graph import TaskConcurrency
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit.task import ENDED, WHOLE_TASK, ClaimKind, KeyClaim, Task

_LOWEST = 2**33
"""More than twice the highest priority of a task or node."""
_EARLIEST = 62_135_596_800.0
_MICROSECONDS = 1_000_000
MOST_IN_BATCH = 100
"""Claims in a batch."""
MOST_PREFIXES, MOST_READ_AGAIN = 10_000, 1_000
"""Prefixes of queues, and batches in queues, that are kept in memory."""


_Index = Annotated[int, Field(ge=WHOLE_TASK)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1


class _Key(_Data):
    """Data of the record of a key, a rate or the key of a cache."""

    holders: list[tuple[str, _Index, Count, Moment]]
    contended: bool
    begun: list[tuple[str, Moment, Count]] = []
    """Attempts that began in the window of a rate."""
    window_sec: Seconds = 0.0
    value: tuple[Any, Moment] | None = None
    """Result that is stored under the key of a cache, and the time at which it expires."""
    stale: bool = False
    left: list[tuple[str, Count]] = []
    """Batches in the queue, and how many of the first claims of each have left it."""


class _Queued(_Data):
    """Data of the record of a batch of claims in the queue."""

    key: str
    task_id: str
    claims: list[tuple[bool, int, Moment, _Index, Count, Count, PositiveSeconds | None]] = Field(
        min_length=1
    )
    """For each claim: whether it is patient, its priority, the time of asking, the node, the number
    of the claim, its limit, and its time if it is one of a rate.
    """
    gone: list[Count] = []
    """Indexes of claims that have left the batch out of their order."""


class Batch(NamedTuple):
    """Claims of a task that came into the queue of a key together, in the order of places."""

    name: str
    """Key of the record."""
    claims: Sequence[Candidate]
    gone: Collection[int] = ()
    """Indexes of claims that have left the batch out of their order."""
    revision: str = ""

    @property
    def batch_id(self) -> str:
        """The name of the batch in the record of the key."""
        return self.name.rpartition("-")[2]


def queue_kind(kind: ClaimKind) -> str:
    """Return the kind of the records in the queues."""
    return f"{kind}_queue"


def key_record(
    kind: ClaimKind, key: str, state: KeyState, revision: str, due_at: float
) -> KeyedRecord:
    """Return the record of a key, in place of the one with this revision."""
    data: dict[str, Any] = {
        "v": 1,
        "holders": [(*one.claimant, one.since) for one in state.holders],
        "contended": state.contended,
    }
    if state.left:
        data["left"] = state.left
    if kind == "rate":
        data |= {"begun": state.begun, "window_sec": state.window_sec}
    elif kind == "cache":
        data |= {"value": state.value, "stale": state.stale}
    return KeyedRecord(kind, key, to_json(data), revision, due_at)


def key_change(
    key: str,
    state: KeyState,
    revision: str,
    *,
    op_id: str,
    due_at: float,
    kind: ClaimKind = "key",
) -> RecordChange:
    """Return the change that stores the state of a key. The record of a free one is deleted. That
    of a result is due when the result expires.
    """
    if state == FREE:
        return RecordChange(op_id, delete=[RecordDeletion(kind, key, revision)])
    if state.value is not None and not state.contended:
        due_at = state.value.until
    return RecordChange(op_id, [key_record(kind, key, state, revision, due_at)])


def key_state(record: KeyedRecord | None) -> KeyState:
    """Return the state of a key.

    Raises:
        CorruptRecord: the record cannot be decoded.
    """
    if record is None:
        return FREE
    if record.fault is not None:
        raise CorruptRecord(f"the record of {_name(record)} cannot be read: {record.fault}")
    try:
        found = _Key.model_validate_json(record.data)
    except ValidationError as error:
        raise corrupt(f"the record of {_name(record)}", error) from None
    holders = (
        Holder(Claimant(task_id, node, number), since)
        for task_id, node, number, since in found.holders
    )
    begun = tuple(Begun(*one) for one in found.begun)
    value = None if found.value is None else Value(*found.value)
    return KeyState(
        tuple(holders),
        found.contended,
        begun,
        found.window_sec,
        value,
        found.stale,
        tuple(found.left),
    )


def _name(record: KeyedRecord) -> str:
    return f"{record.kind} {record.key!r}"


def candidate_of(task: Task, index: int, claim: KeyClaim, kind: ClaimKind = "key") -> Candidate:
    """Return the claim of a node or task in the order in which places are given. Those to the key
    of a cache by nodes that run in the place of a key are in the order of asking alone, so that
    each of them has its turn.
    """
    spec = task.spec
    own = 0 if index == WHOLE_TASK else spec.plan.nodes[index].priority
    key = spec.key_of(index) if kind == "key" else None
    cancels = isinstance(key, TaskConcurrency) and key.on_conflict == "cancel_running"
    claimant = Claimant(task.task_id, index, claim.number)
    if kind == "cache" and spec.in_place:
        return Candidate(False, 0, claim.asked_at, claimant, 1)
    rank = not cancels, -(spec.priority + own), claim.asked_at, claimant
    if kind == "rate":
        rate = spec.plan.nodes[index].rate_limit
        assert rate is not None
        return Candidate(*rank, rate.limit, per_sec=rate.per_sec)
    return Candidate(*rank, 1 if key is None else key.limit)


@lru_cache(maxsize=MOST_PREFIXES)
def queue_prefix(key: str) -> str:
    """Return the beginning of the keys of the records in the queue of a key."""
    return f"{blake2b(key.encode(), digest_size=16).hexdigest()}-"


def queue_key(key: str, one: Candidate) -> str:
    """Return the beginning of the keys of the records of batches with this first claim."""
    micros = int((one.asked_at + _EARLIEST) * _MICROSECONDS)
    first = "" if one.is_patient else "-"  # which is before all digits
    rank = f"{first}{one.minus_priority + _LOWEST:011d}-{micros:018d}"
    task_id, index, number = one.claimant
    return f"{queue_prefix(key)}{rank}-{task_id}-{index:010d}-{number:010d}-"


def new_batches(
    key: str, claims: Collection[Candidate], new_id: Callable[[], str]
) -> Iterator[Batch]:
    """Yield batches with these claims. Each has a new id as its name in the record of the key, so
    that a claim that comes into the queue again counts again.
    """
    by_task: dict[str, list[Candidate]] = {}
    for one in sorted(claims):
        by_task.setdefault(one.claimant.task_id, []).append(one)
    for of_task in by_task.values():
        for start in range(0, len(of_task), MOST_IN_BATCH):
            some = of_task[start : start + MOST_IN_BATCH]
            yield Batch(f"{queue_key(key, some[0])}{new_id()}", some)


def queue_record(kind: ClaimKind, key: str, batch: Batch) -> KeyedRecord:
    """Return the record of a batch in the queue."""
    task_id = batch.claims[0].claimant.task_id
    data: dict[str, Any] = {
        "v": 1,
        "key": key,
        "task_id": task_id,
        "claims": [
            (
                one.is_patient,
                -one.minus_priority,
                one.asked_at,
                one.claimant.node,
                one.claimant.number,
                one.limit,
                one.per_sec,
            )
            for one in batch.claims
        ],
    }
    if batch.gone:
        data["gone"] = sorted(batch.gone)
    return KeyedRecord(queue_kind(kind), batch.name, to_json(data), batch.revision, task_id=task_id)


def after_queue(record: KeyedRecord) -> str:
    """Return a text that is above the keys of all records in the queue of a record, and below those
    of the next queue.
    """
    return f"{record.key.partition('-')[0]}."


def queued_key(record: KeyedRecord) -> str | None:
    """Return the key in whose queue a record is; None if the record is damaged."""
    found = None if record.fault is not None else _queued(record.data)
    return None if found is None else found.key


def _queued(data: bytes) -> _Queued | None:
    try:
        return _Queued.model_validate_json(data)
    except ValidationError:
        return None


def queue_batch(record: KeyedRecord) -> Batch | None:
    """Return the batch of a record in the queue; None if the record is damaged."""
    found = None if record.fault is not None else _claims(record.data)
    return None if found is None else Batch(record.key, *found, record.revision)


@lru_cache(maxsize=MOST_READ_AGAIN)
def _claims(data: bytes) -> tuple[Sequence[Candidate], Collection[int]] | None:
    """Return the claims in these data, and the indexes of those that have left. Coordinators that
    share a key read the same batches at the front of its queue again and again.
    """
    if (found := _queued(data)) is None:
        return None
    claims = [
        Candidate(
            is_patient, -priority, asked_at, Claimant(found.task_id, index, number), limit, per_sec
        )
        for is_patient, priority, asked_at, index, number, limit, per_sec in found.claims
    ]
    return claims, frozenset(found.gone)


def claims_in_queue(task: Task, key: str, kind: ClaimKind) -> list[Candidate]:
    """Return the claims of a task that wait, or ask, for a place of a key."""
    claims = ((index, task.claim(index, kind)) for index in (WHOLE_TASK, *task.records))
    return [
        candidate_of(task, index, claim, kind)
        for index, claim in claims
        if claim is not None and claim.is_open and claim.key == key
    ]


def is_over(task: Task | None, claimant: Claimant, kind: ClaimKind = "key") -> bool:
    """Return whether a claim is over by the stored task, which is None if it was deleted. A copy of
    the task that is too old to know the claim proves nothing.
    """
    if task is None:
        return True
    if claimant.node >= len(task.marks):
        return False
    if claimant.node not in task.records and claimant.node != WHOLE_TASK:
        return task.marks[claimant.node] in ENDED
    claim = task.claim(claimant.node, kind)
    return claim is not None and claim.is_past(claimant.number)


def awaits_place(task: Task | None, claimant: Claimant, kind: ClaimKind = "key") -> bool:
    """Return whether the node or task of a claim does not know that it has a place."""
    claim = None if task is None else task.claim(claimant.node, kind)
    return claim is not None and claim.number == claimant.number and claim.is_open
