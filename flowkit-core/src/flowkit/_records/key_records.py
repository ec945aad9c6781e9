"""Concurrency keys, rates and the keys of caches, as keyed records of the store.

A key that is in use has a record, and each claim in its queue has one. The keys of the latter begin
with a hash of the key, and are in the order in which places are given.
"""

from functools import lru_cache
from hashlib import blake2b
from typing import Annotated, Any, Literal

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
MOST_READ_AGAIN = 10_000
"""Claims in queues, and prefixes of queues, that are kept in memory."""


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


class _Queued(_Data):
    """Data of the record of a claim in the queue."""

    key: str
    priority: int
    asked_at: Moment
    task_id: str
    index: _Index
    number: Count
    limit: Count
    is_patient: bool = True
    per_sec: PositiveSeconds | None = None


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
    return KeyState(tuple(holders), found.contended, begun, found.window_sec, value, found.stale)


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


@lru_cache(maxsize=MOST_READ_AGAIN)
def queue_prefix(key: str) -> str:
    """Return the beginning of the keys of the records in the queue of a key."""
    return f"{blake2b(key.encode(), digest_size=16).hexdigest()}-"


def queue_key(key: str, one: Candidate) -> str:
    """Return the key of the record of a claim in the queue."""
    micros = int((one.asked_at + _EARLIEST) * _MICROSECONDS)
    first = "" if one.is_patient else "-"  # which is before all digits
    rank = f"{first}{one.minus_priority + _LOWEST:011d}-{micros:018d}"
    task_id, index, number = one.claimant
    return f"{queue_prefix(key)}{rank}-{task_id}-{index:010d}-{number:010d}"


def queued_record(kind: ClaimKind, key: str, one: Candidate) -> KeyedRecord:
    """Return the new record of a claim in the queue."""
    task_id, index, number = one.claimant
    data: dict[str, Any] = {
        "v": 1,
        "key": key,
        "priority": -one.minus_priority,
        "asked_at": one.asked_at,
        "task_id": task_id,
        "index": index,
        "number": number,
        "limit": one.limit,
        "is_patient": one.is_patient,
    }
    if one.per_sec is not None:
        data["per_sec"] = one.per_sec
    return KeyedRecord(queue_kind(kind), queue_key(key, one), to_json(data), task_id=task_id)


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


def queued_claim(record: KeyedRecord) -> Candidate | None:
    """Return the claim of a record in the queue; None if the record is damaged."""
    return None if record.fault is not None else _queued_claim(record.data)


@lru_cache(maxsize=MOST_READ_AGAIN)
def _queued_claim(data: bytes) -> Candidate | None:
    """Return the claim of these data. Each step that gives a place reads the same claims that are
    at the front of the queue.
    """
    if (found := _queued(data)) is None:
        return None
    claimant = Claimant(found.task_id, found.index, found.number)
    rank = found.is_patient, -found.priority, found.asked_at, claimant
    return Candidate(*rank, found.limit, found.per_sec)


def claim_in_queue(task: Task, name: str, kind: ClaimKind) -> Candidate | None:
    """Return the claim whose record in the queue has the key ``name``; None if it does not wait."""
    for index in (WHOLE_TASK, *task.records):
        claim = task.claim(index, kind)
        if claim is not None and claim.is_open:
            one = candidate_of(task, index, claim, kind)
            if queue_key(claim.key, one) == name:
                return one
    return None


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
