"""Schedules, as keyed records of the store.

A schedule has two records under its id: its state, which changes with each nominal time, and its
definition with the graph. The state contains the hash of the definition.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Self

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json

from flowkit._records.record_parts import damage_of
from flowkit._schedules import Rules, Schedule, ScheduleState, timetable_of
from flowkit.errors import CorruptRecord
from flowkit.protocols import KeyedRecord

KIND = "schedule"
DEFINITION_KIND = "schedule_definition"
_VERSION = b'{"v":1,'
_ELSEWHERE = "stored"
"""Mark of a graph that is not in the fields of the schedule."""
_STATE: TypeAdapter[ScheduleState] = TypeAdapter(ScheduleState)


@dataclass(frozen=True, slots=True)
class Definition:
    """Definition of a schedule, as it is stored."""

    schedule: Schedule
    """The schedule. Its graph is replaced by a mark."""
    graph: bytes
    """JSON of the graph; empty if the schedule names a flow."""
    rules: Rules
    digest: str
    """Hash of the id and the definition."""

    @classmethod
    def of(cls, schedule: Schedule, graph: bytes) -> Self:
        """Return the definition of a schedule with this graph."""
        return cls.decode(schedule.id, _encoded(schedule, graph))

    @classmethod
    def decode(cls, schedule_id: str, data: bytes) -> Self:
        """Return the definition in these bytes.

        Raises:
            CorruptRecord: they are none.
        """
        head, _, graph = data.partition(b"\n")
        try:
            fields: dict[str, Any] = from_json(_fields_of(head))
            mark = {"graph": _ELSEWHERE} if graph else {}
            schedule = Schedule(**fields, **mark, id=schedule_id)
        except (ValueError, TypeError) as error:
            raise _corrupt(schedule_id, damage_of(error)) from None
        # Two schedules may differ in their ids alone.
        digest = sha256(schedule_id.encode() + b"\n" + data).hexdigest()[:32]
        return cls(schedule, graph, Rules.of(schedule), digest)

    @property
    def data(self) -> bytes:
        """The bytes that are stored."""
        return _encoded(self.schedule, self.graph)

    @property
    def whole(self) -> Schedule:
        """The schedule with its graph, if it has one, as a dict."""
        if not self.graph:
            return self.schedule
        return self.schedule.model_copy(update={"graph": from_json(self.graph)})


def _encoded(schedule: Schedule, graph: bytes) -> bytes:
    fields = schedule.model_dump(mode="json", exclude={"id", "graph"}, exclude_unset=True)
    return to_json({"v": 1, **fields}) + b"\n" + graph


def _fields_of(data: bytes) -> bytes:
    """Return a JSON object without its version.

    Raises:
        ValueError: it has another version, or none.
    """
    if not data:
        raise ValueError("it is empty")
    if not data.startswith(_VERSION):
        raise ValueError(f"it does not begin with {_VERSION.decode()}")
    return b"{" + data[len(_VERSION) :]


def definition_record(definition: Definition, revision: str) -> KeyedRecord:
    """Return the record of a definition, in place of the one with this revision."""
    return KeyedRecord(DEFINITION_KIND, definition.schedule.id, definition.data, revision)


def state_record(
    schedule_id: str, state: ScheduleState, revision: str, due_at: float | None
) -> KeyedRecord:
    """Return the record of a state, in place of the one with this revision."""
    data = _VERSION + _STATE.dump_json(state, exclude_defaults=True)[1:]
    return KeyedRecord(KIND, schedule_id, data, revision, due_at)


def decode_state(record: KeyedRecord) -> ScheduleState:
    """Return the state in a record.

    Raises:
        CorruptRecord: it cannot be decoded.
    """
    if record.fault is not None:
        raise _corrupt(record.key, record.fault)
    try:
        state = _STATE.validate_json(_fields_of(record.data), strict=True)
        for one in state.earlier:
            timetable_of(one.timing)
        return state
    except ValueError as error:
        raise _corrupt(record.key, damage_of(error)) from None


def decode_definition(record: KeyedRecord) -> Definition:
    """Return the definition in a record.

    Raises:
        CorruptRecord: it cannot be decoded.
    """
    if record.fault is not None:
        raise _corrupt(record.key, record.fault)
    return Definition.decode(record.key, record.data)


def _corrupt(schedule_id: str, why: str) -> CorruptRecord:
    return CorruptRecord(
        f"the record of schedule {schedule_id!r} is damaged: {why}; delete the schedule and put it"
        " again"
    )
