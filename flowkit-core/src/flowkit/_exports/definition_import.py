"""Import of registered flows and schedules."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from secrets import token_hex

from flowkit._exports.import_report import ImportReport
from flowkit._exports.lines import FlowVersionLine, ScheduleLine
from flowkit._records.flow_records import (
    StoredVersion,
    decode_version,
    head_of,
    read_versions,
    store_versions,
)
from flowkit._records.schedule_records import (
    DEFINITION_KIND,
    Definition,
    decode_definition,
    decode_state,
)
from flowkit.errors import CorruptRecord, RecordTooLarge, StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, RecordStore

MOST_AT_ONCE = 50
"""Versions of a flow that are stored in one change."""
TRIES = 5

Decode = Callable[[KeyedRecord], KeyedRecord]
Numbered = tuple[int, FlowVersionLine]
Given = dict[str, tuple[int, Definition, RecordChange]]
"""Schedules by their ids: the line, the definition, and the change that stores them."""


class Differs(Exception):
    """The store has something else under this name."""


class DefinitionImport:
    """Stores registered flows and schedules of an export.

    What the store has stays as it is. A flow with a version that differs gets no versions.
    """

    def __init__(self, records: RecordStore, report: ImportReport, *, decode: Decode) -> None:
        """``decode`` decodes a record if a plugin has encoded the export."""
        self._records = records
        self._report = report
        self._done = report.done
        self._decode = decode
        self._refused: set[str] = set()
        """Flows that differ from those in the store."""

    # ------------------------------------------------------------ flows

    async def add_versions(self, lines: Iterable[Numbered]) -> None:
        """Store versions of flows."""
        for name, group in groupby(lines, key=lambda item: item[1].name):
            given = list(group)
            for place in range(0, len(given), MOST_AT_ONCE):
                if name not in self._refused:
                    await self._add_some(name, given[place : place + MOST_AT_ONCE])

    async def _add_some(self, name: str, given: Sequence[Numbered]) -> None:
        try:
            versions = [decode_version(self._decode(line.record())) for _, line in given]
            new = await self._new_versions(name, versions)
        except (Differs, CorruptRecord, RecordTooLarge) as error:
            self._refused.add(name)
            self._report.refuse(f"flow {name!r}", error, line=given[0][0])
        else:
            self._done.flow_versions += new
            self._done.skipped += len(versions) - new

    async def _new_versions(self, name: str, versions: Sequence[StoredVersion]) -> int:
        """Store those versions that are new, and return how many."""
        for _ in range(TRIES):
            head, _ = await head_of(self._records, name)
            numbers = [one.version for one in versions]
            known = await read_versions(self._records, [(name, number) for number in numbers])
            for one in versions:
                stored = known.get((name, one.version))
                if stored is not None and not stored.has_graph(one.graph):
                    raise Differs(f"its version {one.version} has another graph in the store")
            new = [one for one in versions if (name, one.version) not in known]
            if not new or await store_versions(self._records, new, head):
                return len(new)
        raise StoreUnavailable(f"flow {name!r} changes too often; run this import again")

    # ------------------------------------------------------------ schedules

    async def add_schedules(self, lines: Iterable[tuple[int, ScheduleLine]]) -> None:
        """Store schedules with their states, so that they continue after the times that they have
        handled.
        """
        given: Given = {}
        for number, line in lines:
            definition, state = map(self._decode, line.records())
            try:
                decoded = _checked(definition, state)
            except CorruptRecord as error:
                self._refuse(number, line.schedule_id, error)
            else:
                change = RecordChange(token_hex(8), [definition, state])
                given[line.schedule_id] = number, decoded, change
        await self._store(given)

    async def _store(self, given: Given) -> None:
        changes = [change for _, _, change in given.values()]
        try:
            stored = await self._records.change(changes) if changes else ()
        except RecordTooLarge as error:
            for name, one in given.items():
                if len(given) > 1:
                    await self._store({name: one})
                else:
                    self._refuse(one[0], name, error)
        else:
            self._done.schedules += sum(stored)
            present = [name for name, is_new in zip(given, stored, strict=True) if not is_new]
            await self._compare({name: given[name] for name in present})

    async def _compare(self, given: Given) -> None:
        """Compare schedules with those that the store has under their ids."""
        known = await self._records.get(DEFINITION_KIND, list(given)) if given else {}
        for name, (number, definition, _) in given.items():
            try:
                stored = decode_definition(known[name]).digest if name in known else None
            except CorruptRecord as error:
                self._refuse(number, name, error)
                continue
            if stored == definition.digest:
                self._done.skipped += 1
            else:
                self._refuse(number, name, "another schedule with this id is in the store")

    def _refuse(self, number: int, schedule_id: str, why: object) -> None:
        self._report.refuse(f"schedule {schedule_id!r}", why, line=number)


def _checked(definition: KeyedRecord, state: KeyedRecord) -> Definition:
    """Return the definition of a schedule.

    Raises:
        CorruptRecord: it or the state is damaged, or they do not belong together.
    """
    decoded = decode_definition(definition)
    if decode_state(state).definition != decoded.digest:
        raise CorruptRecord("its state is that of another definition")
    return decoded
