"""Checks of the holders of keys, rates and the keys of caches, which find what a crash has left."""

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence

from flowkit._engine import Event, KeyGranted, return_of
from flowkit._engine.key_places import Claimant, KeyState
from flowkit._records.key_queues import read_queue
from flowkit._records.key_records import (
    after_queue,
    awaits_place,
    is_over,
    key_state,
    queue_kind,
    queued_key,
)
from flowkit._records.queries import tasks_to_look_at
from flowkit.coordinator._keys import FIRST_CHECK_SEC, Keys
from flowkit.errors import CorruptRecord
from flowkit.protocols import Clock, KeyedRecord, Store
from flowkit.task import Mark, Task

MOST_AT_ONCE = 100
LONGEST_PAUSE_SEC = 600.0


async def check_keys(
    store: Store,
    clock: Clock,
    keys: Keys,
    *,
    tick_sec: float,
    report: Callable[[Mapping[str, Sequence[Event]]], Awaitable[None]],
) -> None:
    """Check the keys of one kind that are due, now and after each tick.

    The first check includes those that are due later: the timers of their rates may have been those
    of a coordinator that has stopped, and the windows are counted from then.

    The place of a holder whose claim is over by its stored task is given back, with the result if
    the node has one for its cache. A holder whose node still waits is notified again that it has a
    place.

    The first check, and one every ten minutes, includes the queues of keys whose records do not say
    that claims wait: such a record was damaged, and an operator deleted it.
    """
    ahead_sec, queues_at = LONGEST_PAUSE_SEC, clock.monotonic()
    while True:
        before = clock.now() + ahead_sec
        due = await store.records.due(keys.kind, before=before, limit=MOST_AT_ONCE)
        await _check(store, clock, keys, due, report)
        ahead_sec = 0.0
        if clock.monotonic() >= queues_at:
            await _check_queues(store, keys)
            queues_at = clock.monotonic() + LONGEST_PAUSE_SEC
        await clock.sleep(tick_sec)


async def _check_queues(store: Store, keys: Keys) -> None:
    """Let the claims ask again that wait in the queues of keys that are not marked as contended."""
    scan, kind, after = store.records.scan, queue_kind(keys.kind), ""
    while found := await scan(kind, after=after, limit=1):
        after = after_queue(found[0])
        key = queued_key(found[0])
        if key is None:
            continue
        state = _readable((await store.records.get(keys.kind, [key])).get(key))
        if state is not None and not state.contended:
            queue = await read_queue(store.records, keys.kind, key, state.left, most=MOST_AT_ONCE)
            keys.ask_again(key, queue.front(MOST_AT_ONCE))


async def _check(
    store: Store,
    clock: Clock,
    keys: Keys,
    due: Sequence[KeyedRecord],
    report: Callable[[Mapping[str, Sequence[Event]]], Awaitable[None]],
) -> None:
    events: dict[str, list[Event]] = {}
    for states in _groups(due):
        tasks = await _tasks(store, states.values())
        for key, state in states.items():
            _check_key(keys, key, state, tasks, clock.now(), events)
    if events:
        await report(events)


def _check_key(
    keys: Keys,
    key: str,
    state: KeyState,
    tasks: Mapping[str, Task | None],
    now: float,
    events: dict[str, list[Event]],
) -> None:
    """Compare the holders of a key with their tasks, and collect the events of those that do not
    know that they have a place.
    """
    over = []
    for claimant, _ in state.holders:
        task = tasks.get(claimant.task_id)
        gone = claimant.task_id not in tasks
        if gone or (task is not None and is_over(task, claimant, keys.kind)):
            over.append(claimant)
            _give_back_result(keys, task, claimant)
        elif awaits_place(task, claimant, keys.kind):
            granted = KeyGranted(claimant.node, claimant.number, kind=keys.kind)
            events.setdefault(claimant.task_id, []).append(granted)
    keys.check(key, over, now + _pause(state, now))


def _groups(due: Sequence[KeyedRecord]) -> Iterator[dict[str, KeyState]]:
    """Yield the states of keys, as many at a time as have about ``MOST_AT_ONCE`` holders."""
    group: dict[str, KeyState] = {}
    holders = 0
    for record in due:
        if (state := _readable(record)) is None:
            continue
        group[record.key] = state
        holders += len(state.holders)
        if holders >= MOST_AT_ONCE:
            yield group
            group, holders = {}, 0
    if group:
        yield group


def _give_back_result(keys: Keys, task: Task | None, claimant: Claimant) -> None:
    """Give back the place of a node that has computed a result for its cache."""
    record = None if task is None else task.records.get(claimant.node)
    claim = None if record is None else record.cache
    if keys.kind != "cache" or task is None or record is None or claim is None:
        return
    if claim.number == claimant.number:
        finished = task.marks[claimant.node] == Mark.FINISHED
        keys.give_back(task, return_of(claimant.node, claim, "cache", record, finished=finished))


def _readable(record: KeyedRecord | None) -> KeyState | None:
    try:
        return key_state(record)
    except CorruptRecord:
        return None


async def _tasks(store: Store, states: Iterable[KeyState]) -> dict[str, Task | None]:
    """Return the stored tasks of the holders; None for those that cannot be read."""
    return await tasks_to_look_at(
        store, {holder.claimant.task_id for state in states for holder in state.holders}
    )


def _pause(state: KeyState, now: float) -> float:
    """Return the time until the next check: as long as nothing has changed."""
    begun = [one.at for one in state.begun]
    since = max([*begun, *(holder.since for holder in state.holders)], default=now)
    return min(max(now - since, FIRST_CHECK_SEC), LONGEST_PAUSE_SEC)
