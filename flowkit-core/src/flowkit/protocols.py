"""Protocols of a message bus, a store, a clock and a source of triggers.

Each sentence in these docstrings is a promise. :mod:`flowkit_testing.conformance` tests those of
buses, stores and clocks; there is no suite for sources of triggers. The core relies on nothing
else, so it can run on any adapter that passes the suites. The values here are never changed after
their creation. Some of them are not frozen only because they are created by the thousand, and
creating a frozen one takes three times as long.

The **store** is the only source of truth. The **bus** carries hints: a message that it loses,
duplicates or delays costs time and never data. So a store must be strict, and a bus may be simple.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol, Self, runtime_checkable

# ---------------------------------------------------------------- clock


@runtime_checkable
class Clock(Protocol):
    """Source of the time. Tests replace the system's clock with a virtual one."""

    def now(self) -> float:
        """Return the wall-clock time in seconds since 1970-01-01 UTC. It may jump."""

    def now_dt(self) -> datetime:
        """Return :meth:`now` as an aware datetime in UTC."""

    def monotonic(self) -> float:
        """Return the seconds since an arbitrary point. They never decrease."""

    async def sleep(self, seconds: float) -> None:
        """Return when :meth:`monotonic` has advanced by ``seconds``.

        If ``seconds`` is not positive, return after one checkpoint.
        """


def utc(seconds: float) -> datetime:
    """Return an aware datetime for seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Line of ``flowkit doctor``: the check, whether it passed, and how to fix it if not."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""


# ---------------------------------------------------------------- bus


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that the installation needs.

    The members of a group share the messages of a topic. Subscribers without a group read
    ``broadcast`` topics. The bus keeps a bounded number of messages of a ``broadcast`` topic, or
    keeps them for a bounded time. A subscriber that falls further behind misses messages.
    """

    name: str
    broadcast: bool = False


@dataclass(slots=True)
class Message:
    """Message to publish. Messages with the same ``key`` belong together."""

    topic: str
    value: bytes
    key: str = ""
    headers: Mapping[str, bytes] = field(default_factory=dict)
    durable: bool = False
    """The message survives a power failure once it is published. Others may be lost in one, on a
    bus that is a file of one machine. A bus may ignore this and make each message durable.
    """


Place = tuple[int, int]
"""Partition of a message, and the message's position there."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A message as a subscriber receives it.

    ``partition`` and ``position`` are numbers from 0 to 2**63 - 1, which together identify a
    message within its topic. Positions increase within a partition. A position is used again only
    after the message that had it was lost. ``handle`` belongs to the bus. ``timestamp`` is the time
    of the message in seconds since 1970, if the bus knows it.
    """

    message: Message
    partition: int
    position: int
    handle: Any = None
    timestamp: float | None = None


class Subscription(Protocol):
    """The messages of some topics, for one subscriber.

    One task at a time calls :meth:`receive`. Any task may call the other methods, also while a
    :meth:`receive` waits.
    """

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        """Wait for messages and return between 1 and ``max_messages`` of them.

        Every message of the topics is delivered to the group at least once. A message that was not
        acknowledged is delivered again when its member leaves, crashes or loses the partition. If a
        connection breaks, messages in transit are delivered again. A live member keeps its
        messages, however long it takes to acknowledge them, unless members join or leave the group.
        The messages of one partition are delivered for the first time in order. A cancelled
        ``receive`` loses no message. While ``max_unacked`` messages are neither acknowledged nor
        released, no more are delivered. A member takes a bounded number of messages from the server
        before its caller receives them. Without ``key_affinity``, such messages go to other members
        soon if the caller does not receive them.

        Raises:
            BusUnavailable: the bus was unavailable for longer than the adapter waits; the next
                call continues.
        """

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        """Acknowledge messages, so that they are not delivered to the group again.

        After a crash, a rebalance or an outage, messages that were acknowledged a few seconds
        before may be delivered again. Messages may be acknowledged in any order. A message that was
        not acknowledged is delivered again after its member is gone, even if a later one was
        acknowledged. Acknowledging a message twice does nothing. Acknowledging a message that has
        gone to another member does nothing.

        Raises:
            BusUnavailable: some of the messages were not acknowledged; the caller may try
                again.
        """

    async def release(self, deliveries: Collection[Delivery]) -> None:
        """Give messages back, so that they are delivered again soon, to this member or another.

        Raises:
            BusUnavailable: some of the messages were not released; the caller may try again.
        """

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        """Store messages in the dead-letter topic with the ``reason``, and acknowledge them.

        A dead letter has the value and key of the message and the headers ``flowkit-reason``,
        ``flowkit-topic``, ``flowkit-partition`` and ``flowkit-position``. A message is acknowledged
        only after its dead letter was stored.

        Raises:
            BusError: a dead letter was not stored, and its message was not acknowledged.
        """


class Bus(Protocol):
    """A message bus.

    Entering it connects; leaving it sends buffered messages and closes what was opened. Several
    tasks may use it at the same time. Names of topics and groups are compared exactly. Where these
    docstrings say "soon", the conformance suite allows its ``patience``, which is 30 seconds unless
    the adapter's author sets it.
    """

    max_message_bytes: int
    """Length of the largest value that :meth:`publish` accepts."""

    places: bool
    """Whether :meth:`publish` returns places and :meth:`outstanding` returns positions.

    Without it, coordinators send a command again when no worker has started it for a while. They
    send the same token, so that the worker which has the command ignores the copy.
    """

    key_affinity: bool
    """Whether the messages of a topic with one key go to one member of a group, in order, until
    members join or leave.

    This is an optimisation: coordinators keep the tasks of their partitions in memory. Without it,
    a cluster was 20 % slower.
    """

    replay_for_new_groups: bool
    """Whether a new group receives the messages that were published before it existed.

    Without it, coordinators send a command again, at most a minute apart, until a worker of its
    role has started it.
    """

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def ensure_topics(self, topics: Sequence[TopicSpec]) -> None:
        """Create the topics that do not exist, if that is allowed. Existing ones are not changed.

        Raises:
            BusError: a topic does not exist and may not be created; the message names it.
            BusUnavailable: the bus is unavailable.
        """

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        """Send messages. When the call returns, all of them are durable and will be delivered.

        Return the place of each message: the partition and position that its deliveries have. A
        place is None if the bus does not know it. With ``key_affinity``, messages with the same
        topic and key are delivered in the order given, also over several calls. A topic that does
        not exist is created, or ``publish`` raises a BusError.

        Raises:
            MessageTooLarge: a value is larger than ``max_message_bytes``; nothing was sent.
            BusUnavailable: not all messages were confirmed, and any of them may have been sent.
                The error is a TopicUnavailable if the bus knows that only a topic of these
                messages is unavailable.
        """

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
        """Return the first unacknowledged position of a group, and the end, by partition.

        A message published before the call whose position is below the first, or at or above the
        end, or whose partition is not in the answer, was acknowledged or is lost: it is not
        delivered any more, unless the group is set back. A message in between may still be
        delivered. The first may be a few seconds behind the acknowledgements. For a group that does
        not exist, the first is the position that it would start with. A topic that does not exist
        has no partitions. The answer is None if the bus does not know the progress, and always on a
        bus without ``places``.

        Raises:
            BusUnavailable: the bus is unavailable. The error is a TopicUnavailable if only this
                topic is unavailable.
        """

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AbstractAsyncContextManager[Subscription]:
        """Receive the messages of topics while the context is open.

        With a ``group``, each message goes to one member of the group. A group that is new to a
        topic starts with the oldest message kept, or, without ``replay_for_new_groups``, with the
        first one published after its first member had entered. Messages are kept for a group while
        it has no members. A message that a group has not acknowledged is removed neither because
        there are many messages nor because other groups acknowledge it. Members may subscribe to
        different topics. Leaving gives unacknowledged messages back to the group at once. With
        ``group=None``, the subscriber receives every message that is published after it was
        entered, also after its connection broke. Such a subscriber has nothing to acknowledge, and
        nothing is kept for it after it left. Subscribing to a topic that does not exist raises a
        BusError, or the subscriber receives the topic's messages once it exists.

        Raises:
            BusUnavailable: the bus is unavailable.
        """

    async def check(self, topics: Sequence[TopicSpec]) -> Sequence[CheckResult]:
        """Return the results for ``flowkit doctor``.

        It does not raise: the results name the problems.
        """


# ---------------------------------------------------------------- sources of triggers


class EventStream(Protocol):
    """The events of a source, for one process that reads them.

    One task at a time calls its methods.
    """

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        """Wait for events and return between 1 and ``max_messages`` of them.

        Each event is delivered to the readers of its group at least once. Each time it has the same
        topic, partition, position and ``timestamp``, and no other event of the source has these
        four. A bounded number of events is taken from the server before the caller receives them. A
        cancelled ``receive`` loses no event.

        Raises:
            BusUnavailable: the source was unavailable for longer than the adapter waits.
        """

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        """Acknowledge events, so that they are not delivered to the group again.

        Events that are not acknowledged are delivered again when their reader is gone. After a
        crash or an outage, events that were acknowledged a few seconds before may be, too.
        """


class TriggerSource(Protocol):
    """A source of events for triggers, opened for one address.

    It connects when it is used. Several tasks may use it at the same time.
    """

    def subscribe(self, group: str, *, since: float) -> AbstractAsyncContextManager[EventStream]:
        """Read events while the context is open. The readers of a group share them.

        A new group begins with the first event at or after ``since``, in seconds since 1970, unless
        the address says otherwise. Leaving gives events that are not acknowledged to the other
        readers, or to the next one. A source that does not exist yet is waited for, and not
        created.
        """

    async def behind(self, group: str, *, since: float) -> int:
        """Return how many events are waiting for a group. ``since`` is that of its readers.

        Raises:
            BusUnavailable: the source is unavailable, or does not exist.
        """


# ---------------------------------------------------------------- metrics


METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of a page of metrics: the text format of Prometheus."""


class MetricsPage(Protocol):
    """The metrics of a process, in the format of :data:`METRICS_TYPE`.

    Several tasks may read it at the same time.
    """

    async def read(self) -> bytes:
        """Return the metrics as they are now.

        While the store is unavailable, the page has the metrics that do not come from it.
        """


# ---------------------------------------------------------------- store


@dataclass(slots=True)
class TaskHeader:
    """Part of a task's record that a store indexes. Times are seconds since 1970.

    The rest of the record is opaque to the store.
    """

    task_id: str
    status: str
    created_at: float
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    wake_at: float | None = None
    """Time to check the task even if no message arrives."""
    finished_at: float | None = None
    tags: frozenset[str] = frozenset()
    """At most 40 texts of at most 300 characters by which the task is found, each with its own
    meaning to FlowKit.
    """


@dataclass(slots=True)
class TaskRecord:
    """Stored form of a task.

    ``spec`` is the submission and never changes; it may be megabytes. ``parts`` are small named
    byte strings that change with every commit. Their names match ``[a-z][a-z0-9]*``; their values
    are JSON in UTF-8 unless a plugin encodes payloads. ``version`` starts at 1 and grows by one
    with each commit; ``op_id`` is that of the last commit.

    If a store has a record and cannot decode it, ``fault`` says why, and ``spec`` and ``parts`` are
    empty. The header then has the ``task_id`` and each field that could be decoded. The other
    fields have defaults: ``queued`` as the status, 0 as the time.
    """

    header: TaskHeader
    spec: bytes
    parts: Mapping[str, bytes]
    version: int = 1
    op_id: str = ""
    fault: str | None = None


@dataclass(slots=True)
class ArchivedPart:
    """Part that no longer changes, kept outside the record.

    Of two parts with one name, the store keeps the one with the higher ``rank``.
    """

    name: str
    rank: int
    data: bytes


@dataclass(slots=True)
class Commit:
    """Change of one task's record, applied only if its version still is ``expected_version``.

    A commit that is not ``durable`` is visible when it is confirmed, but may be lost in a power
    failure until the next durable write of the store is confirmed, which may concern any record. A
    store may ignore this and make each commit durable.

    ``status``, ``wake_at``, ``finished_at`` and ``tags`` replace those in the header, also where
    they are None or empty. Most commits change no tag.
    """

    task_id: str
    expected_version: int
    op_id: str
    status: str
    wake_at: float | None
    finished_at: float | None
    put: Mapping[str, bytes]
    drop: Collection[str] = ()
    archive: Sequence[ArchivedPart] = ()
    durable: bool = True
    tags: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Filter and page of a list of tasks.

    A task matches if it has one of the ``statuses`` (if any are given), the ``pipeline``, all the
    ``labels`` and all the ``tags``, and was created after ``created_after`` and before
    ``created_before``. Few tasks have the first of the ``tags``. ``after`` is the ``next`` of the
    previous page, whose query had the same ``oldest_first``.
    """

    statuses: Collection[str] = ()
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    limit: int = 50
    after: str | None = None
    tags: Sequence[str] = ()
    created_after: float | None = None
    created_before: float | None = None
    oldest_first: bool = False


@dataclass(slots=True)
class KeyedRecord:
    """Record of what is not a task: bytes under a kind and a key.

    ``kind`` matches ``[a-z][a-z0-9_]*`` and has at most 40 characters, ``key`` has between 1 and
    2,000. ``data`` is opaque to the store.

    If a store has a record and cannot decode it, ``fault`` says why, and ``data`` is empty. The
    other fields are then those that could be decoded.
    """

    kind: str
    key: str
    data: bytes
    revision: str = ""
    """The ``op_id`` of the change that stored it. In a change: the ``revision`` that the stored
    record must have, or the empty text if there must be no record with this key.
    """
    due_at: float | None = None
    """Time from which :meth:`RecordStore.due` finds it."""
    task_id: str | None = None
    """Task with which the record is deleted."""
    fault: str | None = None


@dataclass(slots=True)
class RecordDeletion:
    """Deletion of a keyed record.

    ``revision`` is the one that the stored record must have. With None, it may have any.
    """

    kind: str
    key: str
    revision: str | None = None


@dataclass(slots=True)
class RecordChange:
    """Change of between 1 and 100 keyed records. Each of them occurs once in it.

    ``op_id`` is a text that no other change has. ``durable`` has the meaning that it has in a
    :class:`Commit`.
    """

    op_id: str
    put: Sequence[KeyedRecord] = ()
    delete: Sequence[RecordDeletion] = ()
    durable: bool = True


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """Record that a store cannot decode: its collection or table, its id there, and the fault."""

    place: str
    record_id: str
    fault: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """Artifacts of a node of a task, in one generation.

    A node that ``retry`` runs again begins another generation. In generations below 0 are records
    that are no artifacts: which worker claimed which attempt of the node, and the bounds of the
    windows in which it reads its parents' artifacts.
    """

    task_id: str
    node_id: str
    generation: int = 0


@dataclass(slots=True)
class ArtifactRecord:
    """Stored batch (``partial``) or complete artifact of a node.

    ``meta`` (JSON, None when the handler gave no artifact) and ``metrics`` (JSON) are opaque to the
    store, which sets ``position``.
    """

    stream: Stream
    uid: str
    partial: bool
    meta: bytes | None
    metrics: bytes
    created_at: float
    position: int = 0


class ArtifactStore(Protocol):
    """Store of the artifacts that nodes produce.

    Ids are compared exactly, as in a :class:`Store`.
    """

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        """Store records, and return for each whether it is new.

        A ``uid`` is stored once per stream: of several puts the first stays and the others return
        False, also when they happen at the same time. Positions in a stream are 1, 2, 3, … without
        a gap, in the order of the first puts, and the order within one call is kept: a reader that
        saw position n never finds a new record at or below n later.

        Raises:
            RecordTooLarge: a record is above the limit; no record of this call was stored.
            StoreUnavailable: not all records were confirmed; the caller may repeat the call.
        """

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        """Return up to ``limit`` records of a stream with positions above ``after``, in order.

        The newest records may be missing at the end, for example after a failover to another
        server; with ``latest``, which may take longer, no record is missing that was confirmed
        before the call.

        Raises:
            CorruptRecord: the first of these records cannot be decoded. If a later one cannot
                be decoded, the records before it are returned.
        """

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        """Return those of ``uids`` that the stream contains."""

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> Sequence[tuple[tuple[float, str], ArtifactRecord]]:
        """Return up to ``limit`` records of all streams of a task, ordered by ``created_at``.

        Each record comes with its cursor for ``after``.

        Raises:
            CorruptRecord: as :meth:`read`.
        """


class RecordStore(Protocol):
    """Store of keyed records, from which the core builds all that is not a task.

    Keys are ordered by their Unicode code points, and compared exactly, as in a :class:`Store`.
    Once a change of several records is visible in one of them, it is visible in all.
    """

    async def get(self, kind: str, keys: Collection[str]) -> Mapping[str, KeyedRecord]:
        """Return those records of a kind that exist, by key.

        A record whose creation was confirmed is never missing. For a moment after a failover to
        another server, a record may be older than the last confirmed change; a change on top of it
        is refused.
        """

    async def change(self, changes: Sequence[RecordChange]) -> Sequence[bool]:
        """Apply each change to all of its records or to none, and return whether it was applied.

        False means that one of the records is not stored with the ``revision`` that the change
        names, or that one to be deleted is missing. The records that a change has put have its
        ``op_id`` as their ``revision``. Each record occurs in at most one of the changes of a call,
        and the changes are independent.

        Raises:
            RecordTooLarge: the data of a record is above the store's limit, which is at least
                two million bytes; no change of this call was applied.
            StoreUnavailable: changes of this call may have been applied, each of them completely
                or not at all, now or later.
        """

    async def scan(
        self, kind: str, *, prefix: str = "", after: str = "", limit: int = 100, last: bool = False
    ) -> Sequence[KeyedRecord]:
        """Return up to ``limit`` records of a kind whose keys start with ``prefix``, by key.

        The keys are above ``after``. With ``last``, the order is the opposite, and the keys are
        below ``after``, if it is given.
        """

    async def due(self, kind: str, *, before: float, limit: int) -> Sequence[KeyedRecord]:
        """Return up to ``limit`` due records of a kind, the earliest first.

        A record is due if its ``due_at`` is at or before ``before``.
        """


class Store(Protocol):
    """The durable state of tasks.

    Entering it connects and creates what is missing; leaving it closes what was opened. A confirmed
    write survives a crash of the process and of the store. Every method may raise
    :class:`~flowkit.errors.StoreUnavailable`; an interrupted write may or may not have been
    applied. Methods are called at the same time, by many tasks and processes. A cancelled call does
    not affect other calls; the write of a cancelled call may or may not have been applied. A store
    belongs to one namespace: it neither shows nor changes records of another one on the same
    server. Ids, keys and names are compared exactly: case, spaces, accents and Unicode normal forms
    count, and no character is a pattern.

    A stored record that cannot be decoded, because it is damaged or another program changed it,
    does not affect other records. Methods that read tasks or keyed records continue: they return
    such a record with a ``fault``. Methods that read the archive or the artifacts of one task raise
    :class:`~flowkit.errors.CorruptRecord`. A change that such a record makes impossible raises
    :class:`~flowkit.errors.RecordRefused`, never ``StoreUnavailable``. A damaged keyed record can
    be deleted. ``check`` names the damaged records that it finds.
    """

    artifacts: ArtifactStore
    records: RecordStore

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        """Store new tasks, and return the id of each.

        If a task with the same id or the same ``idempotency_key`` exists, it is not changed and its
        id is returned, else that of the new record. Two creates at the same time with one key store
        one task.

        Raises:
            RecordTooLarge: a record is above the store's limit; no part of it was written.
        """

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        """Return the records of those tasks that exist, each as of one version.

        A task whose creation was confirmed is never missing. For a moment after a failover to
        another server, a version may be older than the last confirmed commit; a commit on top of it
        is refused.
        """

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        """Apply each commit completely or not at all, and return for each whether it was applied.

        False means that the stored version was not ``expected_version``, or that the task is gone:
        no part of the commit is visible, except that its archived parts may be stored already. A
        commit that was applied added one to the version and set ``op_id``. Archived parts are
        durable before the record drops the parts that they replace. Of several commits of one task
        in a call, the first whose version fits is applied. The commits of different tasks are
        independent.

        Raises:
            RecordTooLarge: a part or an archived part is above the store's limit; its task is
                not changed, other commits may have been applied.
            RecordRefused: a record cannot be changed, now or later; it is not changed, other
                commits may have been applied.
        """

    async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
        """Return the archived parts of a task that exist, by name, each of the highest rank stored.

        A confirmed part is never missing.

        Raises:
            CorruptRecord: one of the parts cannot be decoded.
        """

    async def scan_archive(
        self, task_id: str, *, prefix: str, after: str = "", limit: int = 1000
    ) -> Sequence[tuple[str, bytes]]:
        """Return up to ``limit`` archived parts in order of name.

        Their names start with ``prefix`` and sort above ``after``.

        Raises:
            CorruptRecord: the first of these parts cannot be decoded. If a later one cannot be
                decoded, the parts before it are returned.
        """

    async def due(self, *, before: float, limit: int) -> Sequence[str]:
        """Return the ids of up to ``limit`` due tasks, the earliest first.

        A task is due if its ``wake_at`` is at or before ``before``.
        """

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        """Return matching records, newest first, and the next page's ``after`` (None at the end).

        With ``oldest_first``, the order is the opposite. Paging is stable: tasks created between
        two pages neither repeat nor hide others. Records with the same ``created_at`` are ordered
        by id.
        """

    async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
        """Return soon after the stored version is above ``version``.

        Return at once if it is above already, or if there is no such task.

        With ``ended``, only a version that has a ``finished_at`` counts. Commits of other processes
        count like those of this process. The wait ends when the task is purged.
        """

    async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
        """Delete up to ``limit`` tasks that ended before ``finished_before`` and have no
        ``wake_at``, and return how many.

        Their archives, their artifacts and the keyed records with their ``task_id`` are deleted
        too. A new task with the id or the key of a purged one inherits nothing from it. Other keyed
        records are kept. Coordinators call this for the retention that is configured: a store
        deletes no task by itself.
        """

    async def check(self) -> Sequence[CheckResult]:
        """Return the results for ``flowkit doctor``.

        It does not raise: the results name the problems.
        """


@runtime_checkable
class RecordInspector(Protocol):
    """Optional part of a store: a search for damaged records, which ``flowkit dlq ls`` shows."""

    async def damaged_records(self, *, limit: int = 100) -> Sequence[DamagedRecord]:
        """Return up to ``limit`` damaged records of all kinds.

        The search may read all stored records, and may end early.
        """


@runtime_checkable
class ServerClock(Protocol):
    """Optional part of a store: the clock of its server.

    All processes that use the store then take the time from that clock.
    """

    async def server_time(self) -> float:
        """Return the server's wall-clock time in seconds since 1970-01-01 UTC.

        All processes get the time of the same clock.

        Raises:
            StoreUnavailable: the server did not answer.
        """


__all__ = [
    "METRICS_TYPE",
    "ArchivedPart",
    "ArtifactRecord",
    "ArtifactStore",
    "Bus",
    "CheckResult",
    "Clock",
    "Commit",
    "DamagedRecord",
    "Delivery",
    "EventStream",
    "KeyedRecord",
    "Message",
    "MetricsPage",
    "Place",
    "RecordChange",
    "RecordDeletion",
    "RecordInspector",
    "RecordStore",
    "ServerClock",
    "Store",
    "Stream",
    "Subscription",
    "TaskHeader",
    "TaskQuery",
    "TaskRecord",
    "TopicSpec",
    "TriggerSource",
    "utc",
]
