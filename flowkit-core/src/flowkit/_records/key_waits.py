"""Descriptions of waits for concurrency keys."""

from collections.abc import Mapping

from flowkit._engine.key_places import KeyState
from flowkit._records.key_records import (
    KIND,
    QUEUE,
    candidate_of,
    key_state,
    queue_key,
    queue_prefix,
)
from flowkit._records.task_records import decode_task
from flowkit.errors import CorruptRecord
from flowkit.protocols import Store, utc
from flowkit.task import WHOLE_TASK, NodeRecord, Task

MOST_COUNTED = 1_000
MOST_NAMED = 3


async def key_wait(
    store: Store, task: Task, index: int, records: Mapping[int, NodeRecord]
) -> str | None:
    """Return for which key a node or its task waits, who holds it, and how many claims are ahead;
    None if the node waits for no key.
    """
    record = records.get(index)
    claim = None if record is None else record.key
    if task.key is not None and task.key.is_open:
        index, claim = WHOLE_TASK, task.key
    if claim is None or not claim.is_open:
        return None
    key, one = claim.key, candidate_of(task, index, claim)
    stored = (await store.records.get(KIND, [key])).get(key)
    try:
        held = await _held_by(store, key_state(stored))
    except CorruptRecord as error:
        held = f"{error}"
    before, ahead = queue_key(key, one), 0
    for queued in await store.records.scan(QUEUE, prefix=queue_prefix(key), limit=MOST_COUNTED):
        ahead += queued.key < before
    are = "1 is" if ahead == 1 else f"{ahead} are"
    if ahead == MOST_COUNTED:
        are = f"{MOST_COUNTED:,} or more are"
    return f"key {key!r} (limit {one.limit}), {held}; {are} ahead"


async def _held_by(store: Store, state: KeyState) -> str:
    """Return who holds a key."""
    named = state.holders[:MOST_NAMED]
    stored = await store.load(sorted({holder.claimant.task_id for holder in named}))
    texts = []
    for claimant, since in named:
        node = ""
        if claimant.task_id in stored and claimant.node != WHOLE_TASK:
            task = decode_task(stored[claimant.task_id], to_look_at=True)
            node = f"node {task.spec.plan.ids[claimant.node]!r} of "
        texts.append(f"{node}task {claimant.task_id!r} since {utc(since):%Y-%m-%d %H:%M:%S} UTC")
    more = len(state.holders) - len(named)
    if more:
        texts.append(f"{more} more")
    return f"held by {', '.join(texts)}" if texts else "which is free now"
