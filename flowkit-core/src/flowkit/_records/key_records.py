"""Concurrency keys, as keyed records of the store.

A key that is held has a record, and each claim in its queue has one. The keys of the latter begin
with a hash of the key, and are in the order in which places are given.
"""

from hashlib import blake2b
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flowkit._engine.key_places import FREE, Candidate, Claimant, Holder, KeyState
from flowkit._json.limits import Count, Moment
from flowkit._records.record_parts import corrupt
from flowkit.errors import CorruptRecord
from flowkit.graph import TaskConcurrency
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion
from flowkit.task import ENDED, WHOLE_TASK, KeyClaim, Task

KIND = "key"
QUEUE = "key_queue"
_LOWEST = 2**33
"""More than twice the highest priority of a task or node."""
_EARLIEST = 62_135_596_800.0
_MICROSECONDS = 1_000_000


_Index = Annotated[int, Field(ge=WHOLE_TASK)]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1


class _Key(_Data):
    """Data of the record of a key."""

    holders: list[tuple[str, _Index, Count, Moment]]
    contended: bool


class _Queued(_Data):
    """Data of the record of a claim in the queue."""

    key: str
    priority: int
    asked_at: Moment
    task_id: str
    index: _Index
    number: Count
    limit: Count
    cancels: bool = False


def key_record(key: str, state: KeyState, revision: str, due_at: float) -> KeyedRecord:
    """Return the record of a key, in place of the one with this revision."""
    holders = [(*one.claimant, one.since) for one in state.holders]
    data = _Key(holders=holders, contended=state.contended).model_dump_json().encode()
    return KeyedRecord(KIND, key, data, revision, due_at)


def key_change(
    key: str, state: KeyState, revision: str, *, op_id: str, due_at: float
) -> RecordChange:
    """Return the change that stores the state of a key. The record of a free key is deleted."""
    if state == FREE:
        return RecordChange(op_id, delete=[RecordDeletion(KIND, key, revision)])
    return RecordChange(op_id, [key_record(key, state, revision, due_at)])


def key_state(record: KeyedRecord | None) -> KeyState:
    """Return the state of a key.

    Raises:
        CorruptRecord: the record cannot be decoded.
    """
    if record is None:
        return FREE
    if record.fault is not None:
        raise CorruptRecord(f"the record of key {record.key!r} cannot be read: {record.fault}")
    try:
        found = _Key.model_validate_json(record.data)
    except ValidationError as error:
        raise corrupt(f"the record of key {record.key!r}", error) from None
    holders = (
        Holder(Claimant(task_id, node, number), since)
        for task_id, node, number, since in found.holders
    )
    return KeyState(tuple(holders), found.contended)


def candidate_of(task: Task, index: int, claim: KeyClaim) -> Candidate:
    """Return the claim of a node or task in the order in which places are given."""
    spec, key = task.spec, task.spec.key_of(index)
    own = 0 if index == WHOLE_TASK else spec.plan.nodes[index].priority
    return Candidate(
        -(spec.priority + own),
        claim.asked_at,
        Claimant(task.task_id, index, claim.number),
        1 if key is None else key.limit,
        isinstance(key, TaskConcurrency) and key.on_conflict == "cancel_running",
    )


def queue_prefix(key: str) -> str:
    """Return the beginning of the keys of the records in the queue of a key."""
    return f"{blake2b(key.encode(), digest_size=16).hexdigest()}-"


def queue_key(key: str, one: Candidate) -> str:
    """Return the key of the record of a claim in the queue."""
    micros = int((one.asked_at + _EARLIEST) * _MICROSECONDS)
    rank = f"{one.minus_priority + _LOWEST:011d}-{micros:018d}"
    task_id, index, number = one.claimant
    return f"{queue_prefix(key)}{rank}-{task_id}-{index}-{number}"


def queued_record(key: str, one: Candidate) -> KeyedRecord:
    """Return the new record of a claim in the queue."""
    task_id, index, number = one.claimant
    data = _Queued(
        key=key,
        priority=-one.minus_priority,
        asked_at=one.asked_at,
        task_id=task_id,
        index=index,
        number=number,
        limit=one.limit,
        cancels=one.cancels,
    )
    return KeyedRecord(QUEUE, queue_key(key, one), data.model_dump_json().encode(), task_id=task_id)


def queued_claim(record: KeyedRecord) -> Candidate | None:
    """Return the claim of a record in the queue; None if the record is damaged."""
    if record.fault is not None:
        return None
    try:
        found = _Queued.model_validate_json(record.data)
    except ValidationError:
        return None
    claimant = Claimant(found.task_id, found.index, found.number)
    return Candidate(-found.priority, found.asked_at, claimant, found.limit, found.cancels)


def is_over(task: Task | None, claimant: Claimant) -> bool:
    """Return whether a claim is over by the stored task, which is None if it was deleted. A copy of
    the task that is too old to know the claim proves nothing.
    """
    if task is None:
        return True
    if claimant.node >= len(task.marks):
        return False
    if claimant.node not in task.records and claimant.node != WHOLE_TASK:
        return task.marks[claimant.node] in ENDED
    claim = task.claim(claimant.node)
    return claim is not None and (
        claim.number > claimant.number or (claim.number == claimant.number and claim.is_over)
    )


def awaits_place(task: Task | None, claimant: Claimant) -> bool:
    """Return whether the node or task of a claim does not know that it has a place."""
    claim = None if task is None else task.claim(claimant.node)
    return claim is not None and claim.number == claimant.number and claim.is_open
