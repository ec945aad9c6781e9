"""Runs of triggers: their events are read, and the tasks of the events are made."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from secrets import token_hex
from typing import Any

from pydantic_core import from_json, to_json

from flowkit._dead_letters.letters import MAX_LETTER_BYTES
from flowkit._engine import error_of
from flowkit._expressions import Budget, BudgetExceeded
from flowkit._records.letter_records import letter_id, park_letters
from flowkit._records.queries import records_of
from flowkit._records.task_records import decode_task
from flowkit._records.trigger_changes import log_damage
from flowkit._records.trigger_records import (
    EVENT_KIND,
    KIND,
    EndEvent,
    StoredTrigger,
    decode_trigger,
    event_of,
    trigger_record,
)
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.views import result_of
from flowkit._triggers import (
    TriggerEvent,
    cause_of,
    event_of_delivery,
    params_for,
    pipeline_of,
    wants,
)
from flowkit._user_code.containment import undo_cancellation
from flowkit.client._task_maker import Planned, Services, TaskMaker
from flowkit.errors import CorruptRecord, NodeFailure, TaskRefused, TriggerNotFound
from flowkit.measures import Measure
from flowkit.protocols import Delivery, KeyedRecord, RecordChange, RecordDeletion
from flowkit.task import DeadLetter, Task, TriggerOrigin

logger = logging.getLogger(__name__)

LONGEST_CHAIN = 32
"""Ends of tasks, one after the other, that lead to a task."""
MOST_PAUSED = 99
"""Events of a trigger that are put aside in one change."""


@dataclass(frozen=True, slots=True)
class Happened:
    """Event of a trigger."""

    stored: StoredTrigger
    cause: str
    event: TriggerEvent
    chain: int
    fault: str | None = None
    """Why its value cannot be read."""

    @property
    def origin(self) -> TriggerOrigin:
        return TriggerOrigin(self.stored.trigger.id, self.cause)

    def planned(self) -> Planned:
        """Return the task of the event."""
        trigger, event = self.stored.trigger, self.event

        def params(budget: Budget, at_once: bool) -> dict[str, Any]:
            return params_for(trigger, event, budget, at_once=at_once)

        return Planned(
            self.origin.task_id(), trigger, self.stored.graph, params, self.origin, self.chain
        )

    def letter(self, error: str, at: float) -> DeadLetter:
        """Return the dead letter of the event, for which no task can be made."""
        data = to_json({"event": self.event, "chain": self.chain, "fault": self.fault})
        trigger = self.stored.trigger
        return DeadLetter(
            letter_id("trigger", to_json([trigger.id, self.cause])),
            at,
            "trigger",
            "refused",
            error,
            uid=self.cause,
            data=data if len(data) <= MAX_LETTER_BYTES else b"",
            size=len(data),
            topic=trigger.source,
            trigger=trigger.id,
        )


class TriggerRuns:
    """Makes the tasks of events. Making one again changes nothing, so that several processes may
    handle one event.
    """

    def __init__(self, services: Services) -> None:
        self._services = services
        self._records = services.store.records
        self._maker = TaskMaker(services)
        self._evaluations = Evaluations()

    # ------------------------------------------------------------ ends of tasks

    async def handle(self, records: Sequence[KeyedRecord]) -> int:
        """Make the tasks of ends of tasks, and delete the records of these events. Return how many
        are not due any more. Others wait for the commit in which their task ends.
        """
        events = {record.key: event for record in records if (event := event_of(record))}
        triggers = await self.triggers({event.trigger_id for event in events.values()})
        tasks = await self._tasks({event.task_id for event in events.values()})
        done = [record.key for record in records if record.key not in events]
        paused, happened = list[KeyedRecord](), dict[str, Happened]()
        for record in records:
            if (event := events.get(record.key)) is None:
                continue
            stored, task = triggers.get(event.trigger_id), tasks.get(event.task_id)
            decision = (
                decide(event, stored, task) if event.trigger_id in triggers else Decision.DROP
            )
            if decision is Decision.DROP:
                done.append(record.key)
            elif decision is Decision.PUT_ASIDE:
                paused.append(record)
            elif decision is Decision.MAKE and stored is not None and task is not None:
                happened[record.key] = await self._end(stored, event, task)
        await self.make(list(happened.values()))
        await self._delete([*done, *happened])
        return len(done) + len(happened) + await self._put_aside(paused, triggers)

    async def triggers(self, names: Collection[str]) -> dict[str, StoredTrigger | None]:
        """Return those of these triggers that exist; None for a damaged one, which is logged."""
        found: dict[str, StoredTrigger | None] = {}
        for name, record in (await self._records.get(KIND, names)).items():
            try:
                found[name] = decode_trigger(record)
            except CorruptRecord as error:
                log_damage(error)
                found[name] = None
        return found

    async def _tasks(self, names: Collection[str]) -> dict[str, Task]:
        """Return those of these tasks that exist and can be read."""
        found: dict[str, Task] = {}
        for name, record in (await self._services.store.load(names)).items():
            try:
                found[name] = decode_task(record, to_look_at=True)
            except CorruptRecord as error:
                log_damage(error)
        return found

    async def _end(self, stored: StoredTrigger, event: EndEvent, task: Task) -> Happened:
        leaves = [leaf for leaf in task.spec.plan.leaves if leaf not in task.records]
        records = await records_of(self._services.store, task, leaves)
        value = {
            "id": task.task_id,
            "status": task.status.value,
            "result": result_of(task, records),
            "error": error_of(task),
        }
        return Happened(stored, event.cause, TriggerEvent(value), task.spec.chain + 1)

    async def _delete(self, keys: Sequence[str]) -> None:
        if keys:
            await self._records.change(
                [
                    RecordChange(token_hex(8), delete=[RecordDeletion(EVENT_KIND, key)])
                    for key in keys
                ]
            )

    async def _put_aside(
        self, paused: Sequence[KeyedRecord], triggers: Mapping[str, StoredTrigger | None]
    ) -> int:
        """Let events of paused triggers not be due, and return how many these are.

        The record of the trigger is part of the change, so that it is refused if the trigger was
        resumed meanwhile.
        """
        groups: dict[str, list[KeyedRecord]] = {}
        for record in paused:
            groups.setdefault(record.key.partition("\n")[0], []).append(
                replace(record, due_at=None)
            )
        changes = [
            RecordChange(token_hex(8), [trigger_record(stored), *some[:MOST_PAUSED]])
            for name, some in groups.items()
            if (stored := triggers[name]) is not None
        ]
        applied = await self._records.change(changes) if changes else ()
        return sum(
            len(change.put) - 1 for change, success in zip(changes, applied, strict=True) if success
        )

    # ------------------------------------------------------------ events of other sources

    async def make_read(self, stored: StoredTrigger, deliveries: Sequence[Delivery]) -> None:
        """Make the tasks of events that were read from the source of a trigger."""
        happened = []
        for delivery in deliveries:
            event, fault = event_of_delivery(delivery)
            happened.append(Happened(stored, cause_of(delivery), event, chain=1, fault=fault))
        await self.make(happened)

    # ------------------------------------------------------------ tasks

    async def make(self, happened: Sequence[Happened]) -> None:
        """Make the tasks of events. Store a dead letter for an event that cannot be used."""
        planned, errors = dict[str, Happened](), list[tuple[Happened, str]]()
        for one in happened:
            try:
                if await self._wants(one):
                    planned[one.origin.task_id()] = one
            except NodeFailure as error:
                errors.append((one, str(error)))
        made = await self._maker.make([one.planned() for one in planned.values()])
        for task_id, outcome in made.items():
            if outcome.taken:
                errors.append((planned[task_id], f"id_taken: another task has the id {task_id!r}"))
            elif outcome.error is not None:
                errors.append((planned[task_id], outcome.error))
        now = self._services.clock.now()
        for one, text in errors:
            logger.warning(
                "Trigger %s makes no task for %s: %s",
                one.stored.trigger.id,
                one.cause,
                text,
                extra={"action": "event_refused"},
            )
        await park_letters(self._services.store, [one.letter(text, now) for one, text in errors])
        if errors:
            measure = Measure("dead_letters", len(errors), {"kind": "trigger"})
            self._services.plugins.measure(measure)
            await undo_cancellation()

    async def _wants(self, one: Happened) -> bool:
        """Return whether a task is to be made for an event.

        Raises:
            NodeFailure: the condition cannot be evaluated, the event cannot be read, or the chain
                is too long.
        """
        if one.fault is not None:
            raise NodeFailure(one.fault)
        if one.chain > LONGEST_CHAIN:
            raise NodeFailure(
                f"{LONGEST_CHAIN} tasks were made by triggers one after the other, each at the end"
                " of the one before; this would be one more"
            )
        trigger, event = one.stored.trigger, one.event
        try:
            return await self._evaluations.bounded(lambda budget, _: wants(trigger, event, budget))
        except BudgetExceeded as error:
            raise NodeFailure(str(error)) from None

    async def make_again(self, letter: DeadLetter) -> str:
        """Make the task of the event in a dead letter. Return what was done.

        Raises:
            TaskRefused: no task can be made.
            TriggerNotFound: the trigger was deleted.
        """
        if letter.trigger is None or letter.uid is None or len(letter.data) != letter.size:
            raise TaskRefused("the event was too large to be kept in full")
        stored = (await self.triggers([letter.trigger])).get(letter.trigger)
        if stored is None:
            raise TriggerNotFound(letter.trigger)
        kept = from_json(letter.data)
        one = Happened(
            stored, letter.uid, TriggerEvent(**kept["event"]), kept["chain"], kept["fault"]
        )
        try:
            if not await self._wants(one):
                return f"trigger {letter.trigger!r} makes no task for it: its when is false"
        except NodeFailure as error:
            raise TaskRefused(str(error)) from None
        ((task_id, made),) = (await self._maker.make([one.planned()])).items()
        if made.taken or made.error is not None:
            raise TaskRefused(made.error or f"id_taken: another task has the id {task_id!r}")
        return f"task {task_id!r} is made"


class Decision(Enum):
    """Decision about an event."""

    DROP = "drop"
    """The task did not end so, or was retried, or the trigger has another source or was deleted."""
    WAIT = "wait"
    """The commit in which the task ends is not stored yet, or a record cannot be read."""
    PUT_ASIDE = "put aside"
    """The trigger is paused."""
    MAKE = "make"


def decide(event: EndEvent, stored: StoredTrigger | None, task: Task | None) -> Decision:
    """Decide about an event. The trigger or the task is None if its record cannot be read."""
    if stored is None or task is None or task.seq < event.seq:
        return Decision.WAIT
    if task.seq > event.seq:
        return Decision.DROP
    if not task.terminal:
        return Decision.WAIT
    if pipeline_of(stored.trigger.source) != task.spec.pipeline or event.token != stored.token:
        return Decision.DROP
    return Decision.PUT_ASIDE if stored.paused else Decision.MAKE
