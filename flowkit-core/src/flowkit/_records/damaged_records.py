"""Search for keyed records that cannot be decoded, and for all damaged records of a store."""

from collections.abc import Callable, Mapping

from pydantic_core import from_json

from flowkit._records import (
    flow_records,
    letter_records,
    log_records,
    schedule_records,
    trigger_records,
    worker_sessions,
)
from flowkit._records.damaged_tasks import PAGE, SEARCH_SEC, Search, damaged_tasks
from flowkit._records.key_records import key_state, queue_batch, queue_kind
from flowkit._records.record_pages import pages_of
from flowkit._records.record_parts import corrupt
from flowkit.errors import CorruptRecord
from flowkit.protocols import DamagedRecord, KeyedRecord, RecordInspector, Store
from flowkit.task import CLAIM_KINDS

Decoder = Callable[[KeyedRecord], object]


def _graph(data: bytes, record: KeyedRecord) -> None:
    try:
        if data:
            from_json(data)
    except ValueError as error:
        raise corrupt(f"the graph of {record.kind} {record.key!r}", error) from None


def _definition(record: KeyedRecord) -> None:
    _graph(schedule_records.decode_definition(record).graph, record)


def _trigger(record: KeyedRecord) -> None:
    _graph(trigger_records.decode_trigger(record).graph, record)


def _letter(record: KeyedRecord) -> None:
    fault = letter_records.letter_of(record).fault
    if fault is not None:
        raise CorruptRecord(f"the record of letter {record.key!r} cannot be read: {fault}")


def _required(decode: Decoder) -> Decoder:
    def decoded(record: KeyedRecord) -> None:
        if record.fault is not None or decode(record) is None:
            fault = record.fault or "FlowKit did not write its data"
            raise CorruptRecord(
                f"the record of {record.kind} {record.key!r} cannot be read: {fault}"
            )

    return decoded


DECODERS: Mapping[str, Decoder] = {
    flow_records.HEADS: flow_records.decode_head,
    flow_records.VERSIONS: lambda record: flow_records.decode_version(record).document(),
    schedule_records.KIND: schedule_records.decode_state,
    schedule_records.DEFINITION_KIND: _definition,
    trigger_records.KIND: _trigger,
    trigger_records.PIPELINE_KIND: trigger_records.triggers_of,
    worker_sessions.KIND: _required(worker_sessions.decode_session),
    **dict.fromkeys(CLAIM_KINDS, key_state),
    **dict.fromkeys(map(queue_kind, CLAIM_KINDS), _required(queue_batch)),
    letter_records.KIND: _letter,
    trigger_records.EVENT_KIND: _required(trigger_records.event_of),
    log_records.KIND: log_records.decode_lines,
}
"""Decoders of keyed records by kind, in the order of a search. Each raises ``CorruptRecord``."""


async def damaged_keyed_records(
    store: Store,
    *,
    limit: int,
    monotonic: Callable[[], float],
    within_sec: float = SEARCH_SEC,
    known: frozenset[str] = frozenset(),
) -> Search:
    """Search for up to ``limit`` keyed records that cannot be decoded.

    Those that the store cannot decode because of a ``known`` fault are left out.
    """
    found: list[DamagedRecord] = []
    read = 0
    deadline = monotonic() + within_sec
    for kind, decode in DECODERS.items():
        async for page in pages_of(store.records, kind, size=PAGE):
            for record in page:
                read += 1
                try:
                    decode(record)
                except CorruptRecord as error:
                    if record.fault not in known:
                        found.append(DamagedRecord(kind, record.key, str(error), record.task_id))
                    if len(found) == limit:
                        return Search(found, read, in_time=True)
            if monotonic() >= deadline:
                return Search(found, read, in_time=False)
    return Search(found, read, in_time=True)


async def damaged_records(
    store: Store, *, limit: int, monotonic: Callable[[], float]
) -> list[DamagedRecord]:
    """Return up to ``limit`` damaged records: those that the store finds, if it can search for
    them, and the tasks and keyed records of which it finds none, but which cannot be decoded.
    """
    found: list[DamagedRecord] = []
    if isinstance(store, RecordInspector):
        found += await store.damaged_records(limit=limit)
    known = {record.task_id for record in found}
    faults = frozenset(record.fault for record in found)
    half_sec = SEARCH_SEC / 2
    tasks = await damaged_tasks(store, limit=limit, monotonic=monotonic, within_sec=half_sec)
    keyed = await damaged_keyed_records(
        store, limit=limit, monotonic=monotonic, within_sec=half_sec, known=faults
    )
    others = [task for task in tasks.records if task.task_id not in known]
    return [*found, *others, *keyed.records][:limit]
