"""Import of triggers, and of the events that they have not handled yet."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from secrets import token_hex

from flowkit._exports.definition_import import TRIES, Decode, Differs
from flowkit._exports.import_report import ImportReport
from flowkit._exports.lines import TriggerEventLine, TriggerLine
from flowkit._records.trigger_changes import changed_pipelines, check_number_read, make_due
from flowkit._records.trigger_records import (
    KIND,
    StoredTrigger,
    decode_trigger,
    trigger_record,
)
from flowkit.errors import CorruptRecord, RecordTooLarge, StoreUnavailable, TriggerRefused
from flowkit.protocols import RecordChange, Store

TASKS_AT_ONCE = 20

Numbered = tuple[int, TriggerEventLine]


class TriggerImport:
    """Stores the triggers of an export with their events. What the store has stays as it is.

    The events of a new trigger are stored before it, and are due after it. So an import that was
    interrupted is completed by the next, and an event that was handled is not stored again.
    """

    def __init__(self, store: Store, report: ImportReport, *, decode: Decode) -> None:
        """``decode`` decodes a record if a plugin has encoded the export."""
        self._store = store
        self._records = store.records
        self._report = report
        self._done = report.done
        self._decode = decode

    # ------------------------------------------------------------ events

    async def add_events(self, lines: Sequence[Numbered]) -> None:
        """Store the events of triggers that are new."""
        if not lines:
            return
        known = await self._records.get(KIND, {line.trigger_id for _, line in lines})
        new = [(number, line) for number, line in lines if line.trigger_id not in known]
        for some in _parts(new):
            ended = await self._ended({line.task_id for _, line in some})
            for number, line in some:
                if line.task_id not in ended:
                    what = f"the end of task {line.task_id!r} for trigger {line.trigger_id!r}"
                    self._report.refuse(what, "the task is not in the store", line=number)
            changes = [
                RecordChange(token_hex(8), [replace(line.event().record(0), due_at=None)])
                for _, line in some
                if line.task_id in ended
            ]
            if changes:
                self._done.trigger_events += sum(await self._records.change(changes))

    async def _ended(self, names: Collection[str]) -> set[str]:
        found = await self._store.load(names)
        return {name for name, one in found.items() if one.header.finished_at is not None}

    # ------------------------------------------------------------ triggers

    async def add_triggers(self, lines: Iterable[tuple[int, TriggerLine]]) -> None:
        """Store triggers, whose events are stored."""
        for number, line in lines:
            try:
                given = decode_trigger(self._decode(line.record()))
                stored = await self._stored(given)
            except (CorruptRecord, Differs, RecordTooLarge, TriggerRefused) as error:
                self._report.refuse(f"trigger {line.trigger_id!r}", error, line=number)
                continue
            if stored.token == given.token and not stored.paused:
                await make_due(self._records, stored, stored.created_at)

    async def _stored(self, given: StoredTrigger) -> StoredTrigger:
        """Store a trigger if it is new, and return the stored one."""
        name = given.trigger.id
        for _ in range(TRIES):
            if (record := (await self._records.get(KIND, [name])).get(name)) is not None:
                stored = decode_trigger(record)
                if (stored.trigger, stored.graph) != (given.trigger, given.graph):
                    raise Differs("another trigger with this id is in the store")
                self._done.skipped += 1
                return stored
            await check_number_read(self._records, given, None)
            pipelines = await changed_pipelines(self._records, name, given, None)
            change = RecordChange(token_hex(8), [trigger_record(given), *pipelines])
            if (await self._records.change([change]))[0]:
                self._done.triggers += 1
                return given
        raise StoreUnavailable(f"trigger {name!r} changes too often; run this import again")


def _parts(lines: Sequence[Numbered]) -> Iterator[Sequence[Numbered]]:
    for place in range(0, len(lines), TASKS_AT_ONCE):
        yield lines[place : place + TASKS_AT_ONCE]
