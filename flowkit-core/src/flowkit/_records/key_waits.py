"""Descriptions of waits for concurrency keys, rates and results that other nodes compute."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from math import ceil
from typing import NamedTuple

from flowkit._engine.key_places import Candidate, Claimant, KeyState
from flowkit._records.key_queues import read_queue
from flowkit._records.key_records import candidate_of, key_state
from flowkit._records.task_records import decode_task
from flowkit.errors import CorruptRecord
from flowkit.protocols import Store, utc
from flowkit.task import WHOLE_TASK, ClaimKind, NodeRecord, Task

MOST_COUNTED = 1_000
MOST_NAMED = 3


class PlaceWait(NamedTuple):
    """Wait of a node or its task for a place."""

    kind: ClaimKind
    text: str
    """The key or rate, and how many claims are ahead, or the node that computes the result."""
    holders: tuple[Claimant, ...] = ()
    """Holders of the places."""
    is_damaged: bool = False
    """The record of the places cannot be read, so no claim gets an answer."""


async def place_wait(
    store: Store, task: Task, index: int, records: Mapping[int, NodeRecord], now: float
) -> PlaceWait | None:
    """Return for which key, rate or result a node or its task waits; None if for none."""
    record = records.get(index)
    kind: ClaimKind = "key" if record is None else record.asks_for or "key"
    claim = None if record is None else record.claim(kind)
    if task.key is not None and task.key.is_open:
        index, kind, claim = WHOLE_TASK, "key", task.key
    if claim is None or not claim.is_open:
        return None
    key, one = claim.key, candidate_of(task, index, claim, kind)
    stored = (await store.records.get(kind, [key])).get(key)
    name = _name(key, one, kind)
    try:
        state = key_state(stored)
    except CorruptRecord as error:
        text = f"{name}: {error}; restore it from a backup, or delete it"
        return PlaceWait(kind, text, is_damaged=True)
    holders = tuple(holder.claimant for holder in state.holders)
    if kind == "cache":
        return PlaceWait(kind, await _result_of(store, name, holders), holders)
    queue = await read_queue(store.records, kind, key, state.left, most=MOST_COUNTED)
    ahead = [claim for claim in queue.front(MOST_COUNTED) if claim < one]
    are = "1 is" if len(ahead) == 1 else f"{len(ahead)} are"
    if len(ahead) == MOST_COUNTED:
        are = f"{MOST_COUNTED:,} or more are"
    if one.per_sec is not None:
        left = timedelta(seconds=ceil(rate_wait_sec(state, [*ahead, one], now)))
        return PlaceWait(kind, f"{name}; {are} ahead, about {left} is left", holders)
    return PlaceWait(kind, f"{name}, {await _held_by(store, state)}; {are} ahead", holders)


def _name(key: str, one: Candidate, kind: ClaimKind) -> str:
    """Return the key or the rate with its limit, or the result, for which a claim asks."""
    if kind == "cache":
        return "the result for its cache key"
    limit = f"limit {one.limit}" if one.per_sec is None else f"{one.limit} in {one.per_sec:g} s"
    return f"{kind} {key!r} ({limit})"


async def _result_of(store: Store, name: str, holders: Sequence[Claimant]) -> str:
    """Return which node computes the result for the key of a cache."""
    if not holders:
        return f"{name}, which no node computes now"
    holder = (await _names(store, holders[:1]))[0]
    return f"the result of {holder}, which has the same cache key"


def rate_wait_sec(state: KeyState, claims: Sequence[Candidate], now: float) -> float:
    """Return about how long the last of these claims waits for its rate. The others are before it,
    in this order, and each has a limit of its own. Attempts that are about to begin count as if
    they began now.
    """
    begun = sorted(one.at for one in state.begun for _ in range(one.attempts))
    begun += [now] * len(state.holders)
    at = now
    for one in claims:
        if len(begun) >= one.limit:
            at = max(at, begun[-one.limit] + (one.per_sec or 0.0))
        begun.append(at)
    return at - now


async def _held_by(store: Store, state: KeyState) -> str:
    """Return who holds a key."""
    named = state.holders[:MOST_NAMED]
    names = await _names(store, [holder.claimant for holder in named])
    texts = [
        f"{name} since {utc(holder.since):%Y-%m-%d %H:%M:%S} UTC"
        for name, holder in zip(names, named, strict=True)
    ]
    more = len(state.holders) - len(named)
    if more:
        texts.append(f"{more} more")
    return f"held by {', '.join(texts)}" if texts else "which is free now"


async def _names(store: Store, claimants: Sequence[Claimant]) -> list[str]:
    """Return the nodes of claims, with their tasks."""
    stored = await store.load(sorted({claimant.task_id for claimant in claimants}))
    names = []
    for claimant in claimants:
        node = ""
        if claimant.task_id in stored and claimant.node != WHOLE_TASK:
            task = decode_task(stored[claimant.task_id], to_look_at=True)
            node = f"node {task.spec.plan.ids[claimant.node]!r} of "
        names.append(f"{node}task {claimant.task_id!r}")
    return names
