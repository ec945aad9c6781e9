"""Verbs for schedules."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable
from datetime import datetime
from secrets import token_hex
from typing import Any

from flowkit._json.limits import FIRST_MOMENT, LAST_MOMENT, is_moment
from flowkit._records.record_pages import pages_of
from flowkit._records.schedule_records import (
    DEFINITION_KIND,
    KIND,
    Definition,
    decode_definition,
    decode_state,
    definition_record,
    state_record,
)
from flowkit._records.similar_names import similar_name
from flowkit._schedules import (
    Entry,
    Schedule,
    ScheduleState,
    ScheduleView,
    backfilled,
    new_state,
    paused,
    redefined,
    resumed,
    schedule_view,
    task_id_of,
    time_text,
    triggered,
    wake_at,
)
from flowkit.client._schedule_checks import checked_definition
from flowkit.client._schedule_runs import TRIES, ScheduleRuns, StoredSchedule, check_id
from flowkit.client._session import Session
from flowkit.client._task_filters import checked_limit
from flowkit.client._task_maker import services_of
from flowkit.client._valid_models import valid_model
from flowkit.errors import (
    CorruptRecord,
    FlowNotFound,
    GraphError,
    ScheduleNotFound,
    ScheduleRefused,
    StoreUnavailable,
    TaskRefused,
)
from flowkit.protocols import RecordChange, RecordDeletion

CHECK_SEC = 5.0
MOST_AT_ONCE = 1_000
"""Most tasks of a backfill at once."""


def _runs(session: Session) -> ScheduleRuns:
    return ScheduleRuns(services_of(session), check_sec=CHECK_SEC)


# ---------------------------------------------------------------- definitions


async def put_schedule(session: Session, schedule: Schedule) -> ScheduleView:
    """Check a schedule and store it."""
    schedule = valid_model(Schedule, schedule, ScheduleRefused)
    try:
        definition = await checked_definition(session, schedule)
    except (GraphError, FlowNotFound, CorruptRecord) as error:
        error.add_note(f"schedule {schedule.id!r}")
        raise
    return await session.patiently(lambda: _put(session, schedule, definition))


async def _put(session: Session, schedule: Schedule, definition: Definition) -> ScheduleView:
    records = session.store.records
    for _ in range(TRIES):
        now = session.clock.now()
        stored = (await records.get(KIND, [schedule.id])).get(schedule.id)
        known = (await records.get(DEFINITION_KIND, [schedule.id])).get(schedule.id)
        if stored is None:
            state = new_state(definition.digest, schedule, now)
        else:
            old = None if known is None else decode_definition(known)
            state = decode_state(stored)
            before = schedule if old is None else old.schedule
            state = redefined(state, definition.digest, before, schedule, now)
        due_at = wake_at(definition.rules, state, now, CHECK_SEC)
        revision = "" if stored is None else stored.revision
        put = [state_record(schedule.id, state, revision, due_at)]
        put.append(definition_record(definition, "" if known is None else known.revision))
        if (await records.change([RecordChange(token_hex(8), put)]))[0]:
            await session.dispatcher.schedule_changed(schedule.id)
            running = await _runs(session).running([state])
            return schedule_view(definition.whole, state, running)
    raise StoreUnavailable(f"schedule {schedule.id!r} changes too often")


# ---------------------------------------------------------------- reading


async def get_schedule(session: Session, schedule_id: str) -> ScheduleView:
    """Return a schedule."""
    runs = _runs(session)
    found = await runs.get(schedule_id)
    running = await runs.running([found.state])
    return schedule_view(found.definition.whole, found.state, running)


async def list_schedules(session: Session) -> list[ScheduleView]:
    """Return all schedules by id."""
    runs, views = _runs(session), list[ScheduleView]()
    async for page in pages_of(session.store.records, KIND):
        found = await runs.read(page)
        running = await runs.running([one.state for one in found])
        views += [schedule_view(one.definition.whole, one.state, running) for one in found]
    return views


# ---------------------------------------------------------------- changes


async def pause_schedule(session: Session, schedule_id: str) -> None:
    """Pause a schedule."""
    now = session.clock.now()
    await _change(session, schedule_id, lambda found: paused(found.state, now))


async def resume_schedule(session: Session, schedule_id: str) -> None:
    """End the pause of a schedule."""
    now = session.clock.now()
    await _change(session, schedule_id, lambda found: resumed(found.state, now))


async def trigger_schedule(session: Session, schedule_id: str) -> str:
    """Make a task of a schedule now, and return its id."""
    request, made = token_hex(8), 0.0

    def change(found: StoredSchedule) -> ScheduleState:
        nonlocal made
        state, made = triggered(found.definition.rules, found.state, request, session.clock.now())
        return state

    state = (await _change(session, schedule_id, change)).state
    for entry in reversed(state.history):
        if entry.first == made and entry.error is not None:
            raise TaskRefused(f"schedule {schedule_id!r}: {entry.error}")
    return task_id_of(schedule_id, made)


async def backfill(
    session: Session, schedule_id: str, start: datetime, end: datetime, limit: int
) -> list[str]:
    """Make the tasks of a span, and return their ids."""
    first, last = _seconds(start, "start"), _seconds(end, "end")
    if checked_limit(limit) > MOST_AT_ONCE:
        raise ValueError(f"limit is at most {MOST_AT_ONCE}, not {limit}")
    times: list[float] = []
    before: tuple[Entry, ...] | None = None

    def change(found: StoredSchedule) -> ScheduleState:
        nonlocal times, before
        before = found.state.history if before is None else before
        state, times = backfilled(
            found.definition.rules, found.state, first, last, limit, session.clock.now()
        )
        return state

    state = (await _change(session, schedule_id, change)).state
    _check_made(schedule_id, times, Counter(state.history) - Counter(before))
    return [task_id_of(schedule_id, at) for at in times]


def _check_made(schedule_id: str, times: Collection[float], new: Iterable[Entry]) -> None:
    """Check that no task of a backfill is among those that were refused meanwhile.

    Raises:
        TaskRefused: some are; the message says why.
    """
    spans = [one for one in new if one.error is not None or one.skipped == "id_taken"]
    refused = [(at, one) for at in times for one in spans if one.first <= at <= one.last]
    if refused:
        at, entry = refused[0]
        why = entry.error or "its id belongs to another task"
        raise TaskRefused(
            f"schedule {schedule_id!r}: {len(refused)} of the first tasks of the backfill refused,"
            f" the first of them {task_id_of(schedule_id, at)!r}: {why}; the backfill goes on with"
            " the others"
        )


async def delete_schedule(session: Session, schedule_id: str) -> None:
    """Delete a schedule."""
    check_id(schedule_id)
    deletions = [RecordDeletion(kind, schedule_id) for kind in (KIND, DEFINITION_KIND)]
    tried = False

    async def delete() -> None:
        nonlocal tried
        records = session.store.records
        if not await records.get(KIND, [schedule_id]):
            if tried:
                return
            near = await similar_name(records, KIND, schedule_id)
            raise ScheduleNotFound(schedule_id, near=near)
        tried = True
        if not (await records.change([RecordChange(token_hex(8), delete=deletions)]))[0]:
            # A damaged schedule may lack one of its records.
            await records.change([RecordChange(token_hex(8), delete=[one]) for one in deletions])

    await session.patiently(delete)


async def _change(
    session: Session, schedule_id: str, change: Callable[[StoredSchedule], ScheduleState]
) -> StoredSchedule:
    changed = await session.patiently(lambda: _runs(session).change(schedule_id, change))
    await session.dispatcher.schedule_changed(schedule_id)
    return changed


def _seconds(time: Any, name: str) -> float:
    if not isinstance(time, datetime) or time.tzinfo is None:
        raise ValueError(f"{name} is a datetime with a time zone, not {time!r}")
    if not is_moment(seconds := time.timestamp()):
        first, last = time_text(FIRST_MOMENT), time_text(LAST_MOMENT)
        raise ValueError(f"{name} is a time between {first} and {last}, not {time.isoformat()}")
    return seconds
