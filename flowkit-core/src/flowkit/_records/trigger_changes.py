"""Changes of triggers that concern other records: those of pipelines, and those of events."""

import logging
from dataclasses import replace
from secrets import token_hex

from flowkit._json.limits import LAST_MOMENT
from flowkit._records.record_pages import PAGE
from flowkit._records.trigger_records import (
    EVENT_KIND,
    KIND,
    MOST_OF_PIPELINE,
    MOST_READ,
    PIPELINE_KIND,
    StoredTrigger,
    pipeline_record,
    prefix_of,
    triggers_of,
)
from flowkit._triggers import pipeline_of
from flowkit.errors import CorruptRecord, TriggerRefused
from flowkit.protocols import KeyedRecord, RecordChange, RecordStore

logger = logging.getLogger(__name__)


async def changed_pipelines(
    records: RecordStore,
    trigger_id: str,
    now: StoredTrigger | None,
    before: StoredTrigger | None,
) -> list[KeyedRecord]:
    """Return the records of the pipelines whose triggers change with this trigger.

    Raises:
        TriggerRefused: its pipeline has the most triggers already.
    """
    old = None if before is None else pipeline_of(before.trigger.source)
    new = None if now is None else pipeline_of(now.trigger.source)
    changes: list[KeyedRecord] = []
    names = [name for name in dict.fromkeys((old, new)) if name is not None]
    found = await records.get(PIPELINE_KIND, names)
    for name in names:
        wanted = _known_triggers(found.get(name))
        wanted.pop(trigger_id, None)
        if now is not None and name == new:
            wanted[trigger_id] = now.token
        if len(wanted) > MOST_OF_PIPELINE:
            raise TriggerRefused(f"pipeline {name!r} has {MOST_OF_PIPELINE} triggers already")
        revision = found[name].revision if name in found else ""
        changes.append(pipeline_record(name, wanted, revision))
    return changes


async def check_number_read(
    records: RecordStore, now: StoredTrigger, before: StoredTrigger | None
) -> None:
    """Refuse one more trigger with a source of a plugin than the most.

    Raises:
        TriggerRefused: there are the most already.
    """
    if now.is_read and (before is None or not before.is_read):
        read = await records.due(KIND, before=LAST_MOMENT, limit=MOST_READ)
        if len(read) == MOST_READ:
            raise TriggerRefused(f"{MOST_READ} triggers have sources of plugins already")


def _known_triggers(record: KeyedRecord | None) -> dict[str, str]:
    """Return the triggers of a pipeline, with their tokens. A damaged record is replaced."""
    try:
        return {} if record is None else triggers_of(record)
    except CorruptRecord as error:
        log_damage(error)
        return {}


async def make_due(records: RecordStore, stored: StoredTrigger, at: float) -> None:
    """Let the events of a trigger that were put aside be due."""
    prefix, after = prefix_of(stored.trigger.id, stored.token), ""
    while page := await records.scan(EVENT_KIND, prefix=prefix, after=after, limit=PAGE):
        changes = [
            RecordChange(token_hex(8), [replace(record, due_at=at)])
            for record in page
            if record.due_at is None
        ]
        if not changes or all(await records.change(changes)):
            after = page[-1].key


def log_damage(error: CorruptRecord) -> None:
    """Log a damaged record of a trigger."""
    logger.error("%s", error, extra={"action": "trigger_damaged"})
