"""Export of registered flows and schedules."""

from collections.abc import AsyncIterator, Callable, Sequence

from flowkit._exports.lines import FlowVersionLine, Line, ScheduleLine
from flowkit._records.flow_records import VERSIONS, decode_version
from flowkit._records.record_pages import pages_of
from flowkit._records.schedule_records import (
    DEFINITION_KIND,
    KIND,
    decode_definition,
    decode_state,
)
from flowkit.errors import CorruptRecord
from flowkit.protocols import KeyedRecord, RecordStore

LeaveOut = Callable[[str, object], None]
"""Called with what is not exported, and why."""


class DefinitionExport:
    """Yields the lines of the registered flows and schedules of a store.

    ``encoded`` says that a plugin has encoded the records. They are exported as they are: this
    process may not have the key.
    """

    def __init__(self, records: RecordStore, *, encoded: bool, leave_out: LeaveOut) -> None:
        self._records = records
        self._encoded = encoded
        self._leave_out = leave_out

    async def lines(self) -> AsyncIterator[Line]:
        """Yield the versions of flows, then the schedules, which may name them."""
        async for page in pages_of(self._records, VERSIONS):
            for record in page:
                if (version := self._version(record)) is not None:
                    yield version
        async for page in pages_of(self._records, KIND):
            for line in await self._schedules([record.key for record in page]):
                yield line

    def _version(self, record: KeyedRecord) -> FlowVersionLine | None:
        what = f"flow version {record.key!r}"
        try:
            return (
                FlowVersionLine.of(record) if self._is_sound(what, _check_version, record) else None
            )
        except CorruptRecord as error:
            self._leave_out(what, error)
            return None

    async def _schedules(self, keys: Sequence[str]) -> list[ScheduleLine]:
        """Return those of these schedules that can be exported, each as of one moment."""
        records = self._records
        before = await records.get(DEFINITION_KIND, keys)
        states = await records.get(KIND, keys)
        after = await records.get(DEFINITION_KIND, keys)
        lines = (self._line(key, before.get(key), states.get(key), after.get(key)) for key in keys)
        return [line for line in lines if line is not None]

    def _line(
        self,
        key: str,
        before: KeyedRecord | None,
        state: KeyedRecord | None,
        after: KeyedRecord | None,
    ) -> ScheduleLine | None:
        """Return a schedule whose state was read between two reads of its definition."""
        what = f"schedule {key!r}"
        if before is None or state is None or after is None:
            self._leave_out(what, "it was deleted meanwhile, or a record of it is missing")
        elif before.revision != after.revision:
            self._leave_out(what, "it was put again meanwhile")
        elif self._is_sound(what, decode_definition, after) and self._is_sound(
            what, decode_state, state
        ):
            return ScheduleLine.of(after, state)
        return None

    def _is_sound(
        self, what: str, decode: Callable[[KeyedRecord], object], record: KeyedRecord
    ) -> bool:
        fault = fault_of(record, decode, encoded=self._encoded)
        if fault is not None:
            self._leave_out(what, fault)
        return fault is None


def _check_version(record: KeyedRecord) -> None:
    decode_version(record).document()


def fault_of(
    record: KeyedRecord, decode: Callable[[KeyedRecord], object], *, encoded: bool
) -> object:
    """Return the fault of a record, or None. One that is encoded is not decoded."""
    if record.fault is None and not encoded:
        try:
            decode(record)
        except CorruptRecord as error:
            return error
    return record.fault
