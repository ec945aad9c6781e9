"""Sessions of workers and coordinators, as keyed records of the store."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from flowkit._json.limits import Count, Moment
from flowkit._records.record_pages import pages_of
from flowkit.errors import StoreUnavailable
from flowkit.protocols import KeyedRecord, RecordChange, RecordDeletion, Store

KIND = "worker"
COORDINATOR = "coordinator"
TRIES = 5


@dataclass(frozen=True, slots=True)
class WorkerSession:
    """Session of a live worker or coordinator. ``beat`` grows with every renewal.

    A reader measures with its own clock how long ``beat`` has not grown. ``info`` identifies the
    process (``incarnation``, ``host``, ``pid``), and contains the interval of the renewals
    (``hb_interval_sec``) and the time of the last one (``renewed_at``). The session of a
    coordinator has no roles and the ``kind`` ``coordinator``; its ``worker_id`` is that of the
    coordinator.
    """

    worker_id: str
    roles: Sequence[str]
    beat: int
    started_at: float
    info: Mapping[str, str] = field(default_factory=dict)

    @property
    def age(self) -> tuple[float, str]:
        """Place in the order in which the workers with one id started. All of them see the same
        order.
        """
        return self.started_at, self.incarnation

    @property
    def is_coordinator(self) -> bool:
        return self.info.get("kind") == COORDINATOR

    @property
    def incarnation(self) -> str:
        """Name of the process."""
        return self.info.get("incarnation", "")

    @property
    def running(self) -> int:
        """Nodes that it ran at its last heartbeat."""
        return _number(self.info.get("running"))

    @property
    def waiting(self) -> int:
        """Nodes that it had begun and that had no slot, at its last heartbeat."""
        return _number(self.info.get("waiting"))

    @property
    def slots(self) -> int:
        """Nodes that it can run at the same time."""
        return _number(self.info.get("max_concurrency"))

    @property
    def pid(self) -> int:
        """Id of its process on its host; 0 if it is not known."""
        return _number(self.info.get("pid"))


def _number(text: str | None) -> int:
    """Return a number of a session; 0 if it has none, as one of a foreign program may."""
    return int(text) if text is not None and text.isdecimal() and text.isascii() else 0


class _Session(BaseModel):
    """Data of a session's record."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    v: Literal[1] = 1
    roles: list[str]
    beat: Count
    started_at: Moment
    info: dict[str, str]


async def sessions_of(store: Store) -> list[WorkerSession]:
    """Return all sessions. One that cannot be decoded is left out until its worker renews it."""
    return [
        session
        async for page in pages_of(store.records, KIND)
        for record in page
        if (session := decode_session(record)) is not None
    ]


async def session_of(store: Store, worker_id: str) -> WorkerSession | None:
    """Return the session of a worker, or None if there is none."""
    record = (await store.records.get(KIND, [worker_id])).get(worker_id)
    return None if record is None else decode_session(record)


async def end_session(store: Store, worker_id: str) -> None:
    """Delete the session of a worker; do nothing if there is none."""
    await store.records.change([_deletion(worker_id)])


class OwnSession:
    """The session of a worker or coordinator of this process. A renewal costs one write.

    The session need not survive a power failure: it is renewed soon.
    """

    def __init__(self, store: Store, worker_id: str) -> None:
        self._records = store.records
        self._worker_id = worker_id
        self._revision = ""

    async def renew(self, session: WorkerSession) -> WorkerSession | None:
        """Store the session, in place of one of a worker that started earlier.

        If a worker that started later has the id, change nothing and return its session.

        Raises:
            StoreUnavailable: the store is unavailable.
        """
        for _ in range(TRIES):
            if await self._store(session):
                return None
            record = (await self._records.get(KIND, [self._worker_id])).get(self._worker_id)
            other = None if record is None else decode_session(record)
            if other is not None and other.age > session.age:
                return other
            if record is not None and record.fault is not None:
                # Its revision may be damaged, too.
                await self._records.change([_deletion(self._worker_id)])
                record = None
            self._revision = "" if record is None else record.revision
        raise StoreUnavailable(f"the session of worker {self._worker_id!r} changes too often")

    async def _store(self, session: WorkerSession) -> bool:
        record = session_record(session, self._revision)
        op_id = f"{session.incarnation}-{session.beat}"
        (stored,) = await self._records.change([RecordChange(op_id, [record], durable=False)])
        if stored:
            self._revision = op_id
        return stored


def session_record(session: WorkerSession, revision: str) -> KeyedRecord:
    """Return the record of a session, in place of the one with this revision."""
    data = _Session(
        roles=list(session.roles),
        beat=session.beat,
        started_at=session.started_at,
        info=dict(session.info),
    )
    return KeyedRecord(KIND, session.worker_id, data.model_dump_json().encode(), revision)


def _deletion(worker_id: str) -> RecordChange:
    return RecordChange(token_hex(8), delete=[RecordDeletion(KIND, worker_id)], durable=False)


def decode_session(record: KeyedRecord) -> WorkerSession | None:
    """Return the session of a record, or None if it is damaged."""
    if record.fault is not None:
        return None
    try:
        found = _Session.model_validate_json(record.data)
    except ValidationError:
        return None
    return WorkerSession(record.key, tuple(found.roles), found.beat, found.started_at, found.info)
