"""Runs of schedules: decisions are stored, tasks are made, and the outcomes are stored."""

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from secrets import token_hex

from flowkit._engine import CancelRequested
from flowkit._json.values import is_unicode
from flowkit._records.schedule_records import (
    DEFINITION_KIND,
    KIND,
    Definition,
    decode_definition,
    decode_state,
    state_record,
)
from flowkit._records.similar_names import similar_name
from flowkit._runtime.concurrency import Recent
from flowkit._schedules import (
    CLAIM_SEC,
    ScheduleState,
    Step,
    advance_schedule,
    started,
    task_id_of,
    wake_at,
)
from flowkit.client._schedule_tasks import Due, Made, ScheduleTasks
from flowkit.client._task_maker import Services
from flowkit.errors import CorruptRecord, ScheduleNotFound, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange
from flowkit.task import TaskStatus

logger = logging.getLogger(__name__)

TRIES = 20
MOST_DEFINITIONS = 20_000
CANCELLED = "the next time of its schedule has come"
_TERMINAL = frozenset(status.value for status in TaskStatus if status.terminal)


@dataclass(slots=True)
class StoredSchedule:
    """A schedule as it is stored."""

    record: KeyedRecord
    state: ScheduleState
    definition: Definition

    @property
    def schedule_id(self) -> str:
        return self.record.key


@dataclass(slots=True)
class _Run:
    """A schedule whose tasks are to be made, and its state as this process has stored it."""

    schedule_id: str
    definition: Definition
    step: Step
    revision: str

    def due(self) -> list[Due]:
        """Return the nominal times whose tasks are to be made."""
        filling = {at for one in self.step.state.backfills for at in one.open}
        waits = self.definition.rules.overlap in ("queue", "cancel_running")
        return [Due(self.definition, at, waits or at in filling) for at in self.step.start]


class ScheduleRuns:
    """Advances schedules.

    Several processes may advance one schedule: the store accepts the decision of one of them, and
    the others do nothing. If that process dies, another one makes the same tasks.
    """

    def __init__(self, services: Services, *, check_sec: float) -> None:
        """``check_sec`` is the time after which the tasks for whose end a schedule waits are
        checked again.
        """
        self._store = services.store
        self._clock = services.clock
        self._processor = services.processor
        self._dispatcher = services.dispatcher
        self._check_sec = check_sec
        self._definitions: Recent[str, Definition] = Recent(MOST_DEFINITIONS)
        """Definitions by their hashes."""
        self._tasks = ScheduleTasks(services)

    # ------------------------------------------------------------ reading

    async def read(self, records: Sequence[KeyedRecord]) -> list[StoredSchedule]:
        """Return schedules with their definitions. Leave out damaged ones, which are logged, and
        those that are changed or deleted meanwhile.
        """
        states: list[tuple[KeyedRecord, ScheduleState]] = []
        for record in records:
            try:
                states.append((record, decode_state(record)))
            except CorruptRecord as error:
                _log_damage(error)
        missing = [one.key for one, state in states if state.definition not in self._definitions]
        if missing:
            for record in (await self._store.records.get(DEFINITION_KIND, missing)).values():
                try:
                    found = decode_definition(record)
                    self._definitions[found.digest] = found
                except CorruptRecord as error:
                    _log_damage(error)
        return [
            StoredSchedule(record, state, definition)
            for record, state in states
            if (definition := self._definitions.get(state.definition)) is not None
        ]

    async def get(self, schedule_id: str) -> StoredSchedule:
        """Return a schedule.

        Raises:
            ScheduleNotFound: there is none with this id.
            ValueError: this is no id.
            CorruptRecord: it is damaged.
        """
        check_id(schedule_id)
        for _ in range(TRIES):
            record = (await self._store.records.get(KIND, [schedule_id])).get(schedule_id)
            if record is None:
                near = await similar_name(self._store.records, KIND, schedule_id)
                raise ScheduleNotFound(schedule_id, near=near)
            decode_state(record)
            if found := await self.read([record]):
                return found[0]
        raise CorruptRecord(f"schedule {schedule_id!r} has no valid definition; delete it")

    # ------------------------------------------------------------ advancing

    async def advance(self, records: Sequence[KeyedRecord]) -> int:
        """Do all that is due for these schedules. Return how many were changed."""
        now = self._clock.now()
        loaded = [
            one
            for one in await self.read(records)
            if not (one.state.starting and (one.record.due_at or now) > now)
        ]
        running = await self._running(loaded)
        steps = [
            (one, advance_schedule(one.definition.rules, one.state, now, running)) for one in loaded
        ]
        runs = await self._store_steps(steps, now)
        await self._carry_out([run for run in runs if run.step.start or run.step.cancel])
        return len(runs)

    async def change(
        self, schedule_id: str, change: Callable[[StoredSchedule], ScheduleState]
    ) -> StoredSchedule:
        """Store a change of a schedule, and do what is due for it.

        Raises:
            ScheduleNotFound: there is none with this id.
        """
        for _ in range(TRIES):
            found = await self.get(schedule_id)
            state = change(found)
            if state == found.state:
                # A call whose outcome was unknown may be repeated.
                return await self._advance_one(schedule_id) if state.starting else found
            # This process advances the schedule. If it crashes before, a coordinator does.
            due_at = self._clock.now() + CLAIM_SEC
            record = state_record(schedule_id, state, found.record.revision, due_at)
            if (await self._put([record]))[0]:
                return await self._advance_one(schedule_id)
        raise StoreUnavailable(f"schedule {schedule_id!r} changes too often")

    async def _advance_one(self, schedule_id: str) -> StoredSchedule:
        """Advance a schedule until its tasks that are due are made."""
        found = await self.get(schedule_id)
        for _ in range(TRIES):
            await self.advance([replace(found.record, due_at=self._clock.now())])
            found = await self.get(schedule_id)
            if not found.state.starting:
                break
        return found

    async def running(self, states: Iterable[ScheduleState]) -> Collection[str]:
        """Return the tasks for whose end schedules wait and that have not ended."""
        return await self._not_ended({name for state in states for name in state.open})

    async def _running(self, loaded: Sequence[StoredSchedule]) -> Collection[str]:
        """Return those tasks of schedules and of their backfills that have not ended."""
        names = {
            name
            for one in loaded
            for name in (
                *one.state.open,
                *(
                    task_id_of(one.schedule_id, at)
                    for backfill in one.state.backfills
                    for at in backfill.open
                ),
            )
        }
        return await self._not_ended(names)

    async def _not_ended(self, names: Collection[str]) -> Collection[str]:
        if not names:
            return ()
        found = await self._store.load(names)
        return {name for name, one in found.items() if one.header.status not in _TERMINAL}

    async def _store_steps(
        self, steps: Sequence[tuple[StoredSchedule, Step]], now: float
    ) -> list[_Run]:
        """Store steps, and return those that were stored. Another process was faster with the
        others.
        """
        runs, changes = [], []
        for one, step in steps:
            due_at = wake_at(one.definition.rules, step.state, now, self._check_sec)
            if step.state == one.state and not step.start and due_at == one.record.due_at:
                continue
            run = _Run(one.schedule_id, one.definition, step, token_hex(8))
            record = state_record(one.schedule_id, step.state, one.record.revision, due_at)
            runs.append(run)
            changes.append(RecordChange(run.revision, [record]))
        stored = await self._store.records.change(changes) if changes else ()
        return [run for run, success in zip(runs, stored, strict=True) if success]

    async def _carry_out(self, runs: Sequence[_Run]) -> None:
        for run in runs:
            for task_id in run.step.cancel:
                outcome = await self._processor.apply({task_id: [CancelRequested(CANCELLED)]})
                await self._dispatcher.changed([task_id], outcome)
        due = {run.schedule_id: run.due() for run in runs if run.step.start}
        made = await self._tasks.make([one for some in due.values() for one in some])
        outcomes = {
            schedule_id: {one.at: made[one.task_id] for one in some}
            for schedule_id, some in due.items()
        }
        await self._store_outcomes([run for run in runs if run.step.start], outcomes)

    # ------------------------------------------------------------ outcomes

    async def _store_outcomes(
        self, runs: Sequence[_Run], outcomes: Mapping[str, Mapping[float, Made]]
    ) -> None:
        """Store what was made. A state that was changed meanwhile is read again."""
        stored = await self._put([self._after(run, outcomes[run.schedule_id]) for run in runs])
        late = [run.schedule_id for run, success in zip(runs, stored, strict=True) if not success]
        for _ in range(TRIES):
            if not late:
                return
            found = await self._store.records.get(KIND, late)
            again = [
                self._after(
                    _Run(one.schedule_id, one.definition, Step(one.state), one.record.revision),
                    outcomes[one.schedule_id],
                )
                for one in await self.read([found[name] for name in late if name in found])
            ]
            stored = await self._put(again)
            late = [one.key for one, success in zip(again, stored, strict=True) if not success]

    def _after(self, run: _Run, outcomes: Mapping[float, Made]) -> KeyedRecord:
        """Return the record of a schedule after its tasks were made."""
        now, rules = self._clock.now(), run.definition.rules
        entries = {at: made.entry for at, made in outcomes.items()}
        state = started(rules, run.step.state, entries)
        due_at = wake_at(rules, state, now, self._check_sec)
        if (state.waiting or state.backfills) and any(not one.is_new for one in outcomes.values()):
            due_at = now  # a task that existed may have ended
        return state_record(run.schedule_id, state, run.revision, due_at)

    async def _put(self, records: Sequence[KeyedRecord]) -> Sequence[bool]:
        changes = [RecordChange(token_hex(8), [record]) for record in records]
        return await self._store.records.change(changes) if changes else ()


def check_id(schedule_id: object) -> None:
    """Refuse what no schedule can have as its id.

    Raises:
        ScheduleNotFound: this is a text, but no schedule can have it.
        ValueError: this is no text.
    """
    if not isinstance(schedule_id, str):
        raise ValueError(f"the id of a schedule is a text, not {schedule_id!r}")
    if not is_unicode(schedule_id):
        raise ScheduleNotFound(schedule_id)


def _log_damage(error: CorruptRecord) -> None:
    logger.error("%s", error, extra={"action": "schedule_damaged"})
