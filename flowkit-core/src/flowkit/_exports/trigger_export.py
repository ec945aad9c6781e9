"""Export of triggers, and of the events that they have not handled yet."""

from collections.abc import AsyncIterator

from flowkit._exports.definition_export import LeaveOut, fault_of
from flowkit._exports.lines import Line, TriggerEventLine, TriggerLine
from flowkit._records.record_pages import PAGE, pages_of
from flowkit._records.trigger_records import (
    EVENT_KIND,
    KIND,
    decode_trigger,
    event_of,
    prefix_of,
)
from flowkit.protocols import KeyedRecord, RecordStore


class TriggerExport:
    """Yields the lines of the triggers of a store."""

    def __init__(self, records: RecordStore, *, encoded: bool, leave_out: LeaveOut) -> None:
        """``encoded`` says that a plugin has encoded the records."""
        self._records = records
        self._encoded = encoded
        self._leave_out = leave_out

    async def lines(self) -> AsyncIterator[Line]:
        """Yield each trigger after its events."""
        async for page in pages_of(self._records, KIND):
            for record in page:
                fault = fault_of(record, decode_trigger, encoded=self._encoded)
                if fault is not None:
                    self._leave_out(f"trigger {record.key!r}", fault)
                    continue
                async for event in self._events(record):
                    yield event
                yield TriggerLine.of(record)

    async def _events(self, trigger: KeyedRecord) -> AsyncIterator[Line]:
        # Those of a deleted trigger with this id have another token, and are not used.
        prefix, after = prefix_of(trigger.key), ""
        while page := await self._records.scan(EVENT_KIND, prefix=prefix, after=after, limit=PAGE):
            for record in page:
                if (event := event_of(record)) is None:
                    self._leave_out(f"event {record.key!r} of a trigger", "it has an unknown key")
                else:
                    yield TriggerEventLine.of(event)
            after = page[-1].key
