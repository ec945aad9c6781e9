"""What FlowKit asks of a message bus, a store and a clock.

Each sentence in these docstrings is a promise that :mod:`flowkit_testing.conformance` tests. An
adapter that passes those suites can carry FlowKit: the core relies on nothing else. The values here
are never changed once they are made; those that are made by the thousand are not frozen only
because making a frozen one takes three times as long.

The division of labour is simple. The **store** is the only truth. The **bus** carries hints:
whatever it loses, doubles or delays costs time and never data. So a store must be strict, and a bus
may be plain.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, Protocol, Self, get_args, runtime_checkable

# ---------------------------------------------------------------- clock


@runtime_checkable
class Clock(Protocol):
    """Where time comes from. Tests put a virtual one in the place of the system's."""

    def now(self) -> float:
        """The wall clock: seconds since 1970-01-01 UTC. May jump."""

    def now_dt(self) -> datetime:
        """:meth:`now` as an aware datetime in UTC."""

    def monotonic(self) -> float:
        """Seconds from an arbitrary point. Never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return when :meth:`monotonic` has advanced by ``seconds``; at once, after a checkpoint,
        if that is not positive.
        """


def utc(seconds: float) -> datetime:
    """An aware datetime for seconds since 1970."""
    return datetime.fromtimestamp(seconds, UTC)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One line of ``flowkit doctor``: what was looked at, whether it is well, and how to mend it if
    not.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


# ---------------------------------------------------------------- bus


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """A topic that the installation needs.

    Each group shares the messages of a topic out among its members. Listeners without a group read
    ``broadcast`` topics. Of a ``broadcast`` topic the bus keeps a bounded number of messages, or
    keeps them for a bounded time. A listener that is further behind misses messages.
    """

    name: str
    broadcast: bool = False


@dataclass(slots=True)
class Message:
    """What is published. ``key`` says which messages belong together."""

    topic: str
    value: bytes
    key: str = ""
    headers: Mapping[str, bytes] = field(default_factory=dict)


Place = tuple[int, int]
"""Where a message is: its partition, and its position there."""


@dataclass(slots=True, eq=False)
class Delivery:
    """A message as a subscriber receives it.

    ``partition`` and ``position`` are numbers from 0 to 2**63 - 1, which together identify a
    message within its topic. Positions grow along a partition. A position is used again only after
    the message that had it was lost. ``handle`` belongs to the bus.
    """

    message: Message
    partition: int
    position: int
    handle: Any = None


class Subscription(Protocol):
    """The messages of some topics, for one subscriber.

    One task at a time calls :meth:`receive`. Any task may call the other methods, also while a
    :meth:`receive` waits.
    """

    async def receive(self, *, max_messages: int) -> Sequence[Delivery]:
        """Wait for messages and return between 1 and ``max_messages`` of them.

        Every message of the topics is delivered to the group at least once. A message that was not
        acknowledged is delivered again when its member leaves, crashes or loses the partition. If a
        connection breaks, messages that were on their way are delivered again. A member that is
        alive keeps its messages, however long it takes to acknowledge them, unless members join or
        leave the group. Within one partition, messages are delivered in order for the first time. A
        cancelled ``receive`` loses no message. While ``max_unacked`` messages are neither
        acknowledged nor released, no more are delivered. A member takes a bounded number of
        messages from the server before its caller receives them. Without ``key_affinity``, such
        messages go to other members soon if the caller does not receive them.

        Raises:
            BusUnavailable: the bus was out of reach for longer than its patience; the next call
                continues.
        """

    async def ack(self, deliveries: Collection[Delivery]) -> None:
        """Acknowledge messages, so that they are not delivered to the group again.

        After a crash, a rebalance or an outage, messages that were acknowledged a few seconds
        before may be delivered again. Messages may be acknowledged in any order. A message that was
        not acknowledged is delivered again after its member is gone, also if a later one was
        acknowledged. To acknowledge a message twice does nothing. To acknowledge a message that has
        gone to another member does nothing.

        Raises:
            BusUnavailable: some of the messages were not acknowledged; the caller may try again.
        """

    async def release(self, deliveries: Collection[Delivery]) -> None:
        """Give messages back, so that they are delivered again soon, to this member or another.

        Raises:
            BusUnavailable: some of the messages were not released; the caller may try again.
        """

    async def reject(self, deliveries: Collection[Delivery], reason: str) -> None:
        """Store messages in the dead-letter topic, with their origin and ``reason`` in the headers,
        then acknowledge them.

        A dead letter has the value and key of the message and the headers ``flowkit-reason``,
        ``flowkit-topic``, ``flowkit-partition`` and ``flowkit-position``. A message is acknowledged
        only after its dead letter was stored.

        Raises:
            BusError: a dead letter was not stored, and its message was not acknowledged.
        """


class Bus(Protocol):
    """A message backplane. Entering it connects; leaving it sends what is buffered and closes what
    was opened.

    Several tasks may use it at the same time. Names of topics and groups are compared exactly.
    Where these docstrings say "soon", the conformance suite allows its ``patience``, which is 30
    seconds unless the adapter's author sets it.
    """

    max_message_bytes: int
    """The largest value that :meth:`publish` takes."""

    places: bool
    """Whether :meth:`publish` returns places and :meth:`outstanding` answers with positions.

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
        """Create the topics that do not exist, where that is allowed. Existing ones are left as
        they are.

        Raises:
            BusError: a topic does not exist and may not be created; the message names it.
            BusUnavailable: the bus is out of reach.
        """

    async def publish(self, messages: Sequence[Message]) -> Sequence[Place | None]:
        """Send messages. When it returns, all of them are durable and will be delivered.

        Returns the place of each: the partition and position that its deliveries have. A place is
        None where the bus does not know it. With ``key_affinity``, messages with the same topic and
        key are delivered in the order given, also over several calls. A topic that does not exist
        is created, or ``publish`` raises a BusError.

        Raises:
            MessageTooLarge: a value is larger than ``max_message_bytes``; nothing was sent.
            BusUnavailable: not all were confirmed; any of them may have been sent.
                TopicUnavailable, where the bus knows that
                only a topic of these messages is in trouble.
        """

    async def outstanding(self, topic: str, group: str) -> Mapping[int, tuple[int, int]] | None:
        """Return how far a group is: per partition the first position that was not acknowledged,
        and the end.

        A message published before the call whose position is below the first, or at or above the
        end, or whose partition is not there, was acknowledged or is lost: it is not delivered any
        more, unless the group is set back. A message in between may still be delivered. The first
        may be a few seconds behind the acknowledgements. For a group that does not exist, the first
        is the position that it would start with. A topic that does not exist has no partitions. The
        answer is None where the bus does not know, and always on a bus without ``places``.

        Raises:
            BusUnavailable: the bus is out of reach. TopicUnavailable, where only this topic is in
                trouble.
        """

    def subscribe(
        self, topics: Sequence[str], *, group: str | None, max_unacked: int = 1000
    ) -> AbstractAsyncContextManager[Subscription]:
        """Receive the messages of topics while the context is open.

        With a ``group``, each message goes to one member of the group. A group that is new to a
        topic starts with the oldest message kept, or, without ``replay_for_new_groups``, with the
        first one published after its first member had entered. Messages are kept for a group while
        it has no members. Neither a number of messages nor other groups' acknowledgements remove a
        message that a group has not acknowledged. Members may subscribe to different topics.
        Leaving gives unacknowledged messages back to the group at once. With ``group=None``, the
        subscriber receives every message that is published after it was entered, also after its
        connection broke. There is nothing to acknowledge then, and nothing is kept for a subscriber
        that left. To subscribe to a topic that does not exist raises a BusError, or the subscriber
        receives the topic's messages once it exists.

        Raises:
            BusUnavailable: the bus is out of reach.
        """

    async def check(self, topics: Sequence[TopicSpec]) -> Sequence[CheckResult]:
        """Return what ``flowkit doctor`` shows. It does not raise: the results say what is
        wrong.
        """


# ---------------------------------------------------------------- store


@dataclass(slots=True)
class TaskHeader:
    """The part of a task's record that a store indexes; the rest is opaque to it. Times are seconds
    since 1970.
    """

    task_id: str
    status: str
    created_at: float
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    idempotency_key: str | None = None
    wake_at: float | None = None
    """When somebody should look at the task even if no message arrives."""
    finished_at: float | None = None


@dataclass(slots=True)
class TaskRecord:
    """A task as it is stored.

    ``spec`` is what was submitted and never changes; it may be megabytes. ``parts`` are small named
    byte strings that change with every
    commit: names match ``[a-z][a-z0-9]*``, values are JSON in UTF-8 unless a plugin encodes
        payloads. ``version`` is 1 at first and grows by one with each commit; ``op_id`` is the last
        commit's. Where a store has a record and cannot decode it, ``fault`` says why, ``spec`` and
        ``parts`` are empty, and the header has the ``task_id``, each field that could be decoded,
        and else what is there by default: ``queued`` as the status, 0 as the time.
    """

    header: TaskHeader
    spec: bytes
    parts: Mapping[str, bytes]
    version: int = 1
    op_id: str = ""
    fault: str | None = None


@dataclass(slots=True)
class ArchivedPart:
    """A part that no longer changes, kept outside the record. Of two with one name the higher
    ``rank`` stays.
    """

    name: str
    rank: int
    data: bytes


@dataclass(slots=True)
class Commit:
    """A change of one task's record, given that its version still is ``expected_version``."""

    task_id: str
    expected_version: int
    op_id: str
    status: str
    wake_at: float | None
    finished_at: float | None
    put: Mapping[str, bytes]
    drop: Collection[str] = ()
    archive: Sequence[ArchivedPart] = ()


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Which tasks to list. ``labels`` must all be there; ``after`` is the ``next`` of the page
    before.
    """

    statuses: Collection[str] = ()
    pipeline: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    limit: int = 50
    after: str | None = None


@dataclass(frozen=True, slots=True)
class WorkerSession:
    """A living worker. ``beat`` grows with every renewal; how long it has not grown is measured by
    who looks.

    ``info`` says which process it is (``incarnation``, ``host``, ``pid``), and how often it renews
    the session (``hb_interval_sec``).
    """

    worker_id: str
    roles: Sequence[str]
    beat: int
    started_at: float
    info: Mapping[str, str] = field(default_factory=dict)


LetterKind = Literal["batch", "node", "message", "task"]
LETTER_KINDS: tuple[LetterKind, ...] = get_args(LetterKind)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Work that was given up: what it was, why, and what is needed to try it again.

    A ``batch`` or ``node`` that failed and has no retries left, a ``message`` that could not be
    used, or a quarantined ``task``.
    """

    letter_id: str
    at: float
    kind: LetterKind
    reason_code: str
    error: str
    task_id: str | None = None
    node_id: str | None = None
    uid: str | None = None
    data: bytes = b""
    """A batch's payload or a node's input as JSON, or a message's value."""
    size: int = 0
    """How long ``data`` was before it was cut."""
    generation: int = 0
    """Of the batch's stream."""
    attempt: int = 0
    """The attempt of the node that failed, or in which the batch failed."""
    topic: str | None = None
    """Where the message came from, as are the three that follow."""
    key: str = ""
    partition: int | None = None
    position: int | None = None
    headers: Mapping[str, bytes] = field(default_factory=dict)
    fault: str | None = None
    """Why a store that has this letter cannot decode it; the other fields then are those that could
    be decoded.
    """


@dataclass(frozen=True, slots=True)
class DamagedRecord:
    """A record that a store holds and cannot decode: where (a collection, a table), its id there,
    and what is wrong with it.
    """

    place: str
    record_id: str
    fault: str
    task_id: str | None = None


@dataclass(frozen=True, slots=True, order=True)
class Stream:
    """Whose artifacts: a node of a task, in one generation (a node that is run anew by ``retry``
    begins another).

    Generation -1 holds which worker claimed which attempt of the node.
    """

    task_id: str
    node_id: str
    generation: int = 0


@dataclass(slots=True)
class ArtifactRecord:
    """One stored batch (``partial``) or a node's complete artifact.

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
    """Where workers put what nodes produce, beside the flow of control.

    Ids are compared exactly, as those of a :class:`Store`.
    """

    async def put(self, records: Sequence[ArtifactRecord]) -> Sequence[bool]:
        """Store these; for each, say whether it is new.

        A ``uid`` is stored once per stream: of several puts the first stays and the others answer
        False, also when they happen at the same time. Positions in a stream are 1, 2, 3, … without
        a gap, in the order of the first puts, and the order within one call is kept: a reader that
        saw position n never finds a new record at or below n later.

        Raises:
            RecordTooLarge: a record is above the limit; nothing of this call was stored.
            StoreUnavailable: not all were confirmed; putting again is harmless.
        """

    async def read(
        self, stream: Stream, *, after: int = 0, limit: int = 100, latest: bool = False
    ) -> Sequence[ArtifactRecord]:
        """Up to ``limit`` records of a stream with positions above ``after``, in order.

        What was stored just before may be missing at the end, as on a server that has taken over
        for another; with ``latest``, which may take longer, nothing is missing that was confirmed
        before the call.

        Raises:
            CorruptRecord: the first of these records cannot be decoded. Those before one that
                cannot be are returned without it.
        """

    async def known(self, stream: Stream, uids: Collection[str]) -> set[str]:
        """Those of ``uids`` that the stream holds."""

    async def scan(
        self, task_id: str, *, after: tuple[float, str] | None = None, limit: int = 100
    ) -> Sequence[tuple[tuple[float, str], ArtifactRecord]]:
        """Up to ``limit`` records of all streams of a task by ``created_at``, each with the cursor
        to go on ``after``.

        Raises:
            CorruptRecord: as :meth:`read`.
        """


class Store(Protocol):
    """The durable state of tasks. Entering it connects and prepares; leaving it closes what was
    opened.

    Everything that a method confirmed survives a crash of the process and of the store. Every
    method may raise :class:`~flowkit.errors.StoreUnavailable`; a write it interrupted may or may
    not have been applied. Methods are called at the same time, by many tasks and processes. A
    cancelled call does not affect other calls; the write of a cancelled call may or may not have
    been applied. A store belongs to one namespace: it neither shows nor changes what belongs to
    another one on the same server. Ids, keys and names are compared exactly: case, spaces, accents
    and Unicode normal forms count, and no character is a pattern.

    A stored record that cannot be decoded, because it is damaged or was changed by others, hinders
    no other record. What reads records of many tasks goes on: a task and a dead letter are returned
    with a ``fault``, a session is left out. What reads the archive or the artifacts of one task
    raises :class:`~flowkit.errors.CorruptRecord`. A change that such a record prevents for ever
    raises :class:`~flowkit.errors.RecordRefused`, never ``StoreUnavailable``. ``check`` names the
    damaged records that it finds.
    """

    artifacts: ArtifactStore

    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *exc: object) -> None: ...

    async def create(self, records: Sequence[TaskRecord]) -> Sequence[str]:
        """Store new tasks and return, for each, the id that now stands for it.

        That is the id of a task stored before with the same id or the same ``idempotency_key``, if
        there is one (which then is left as it is), else the record's own. Two creates at the same
        time with one key store one task.

        Raises:
            RecordTooLarge: a record is above the store's limit; nothing of it was written.
        """

    async def load(self, task_ids: Collection[str]) -> Mapping[str, TaskRecord]:
        """The records of those tasks that exist, each as of one version.

        A task whose creation was confirmed is never missing. A version may be older than the last
        confirmed commit for a moment, after a server has taken over for another; a commit on top of
        it is refused.
        """

    async def commit(self, commits: Sequence[Commit]) -> Sequence[bool]:
        """Apply each commit, or none of it; for each say whether it was applied.

        False means that the stored version was not ``expected_version`` (or the task is gone):
        nothing of the commit is visible, save that its archived parts may be stored already. A
        commit that was applied added one to the version and set ``op_id``. Archived parts are
        durable before the record drops what they replace. Of several commits of one task in a call
        the first that fits is applied. The commits of different tasks are independent.

        Raises:
            RecordTooLarge: a part or an archived part is above the store's limit; its task is as it
                was, others may have been applied.
            RecordRefused: a record cannot be changed, now or later; that one is as it was, others
                may have been applied.
        """

    async def read_archive(self, task_id: str, names: Collection[str]) -> Mapping[str, bytes]:
        """Those archived parts of a task that exist, by name, each of the highest rank stored. One
        that was confirmed is never missing.

        Raises:
            CorruptRecord: one of them cannot be decoded.
        """

    async def scan_archive(
        self, task_id: str, *, prefix: str, after: str = "", limit: int = 1000
    ) -> Sequence[tuple[str, bytes]]:
        """Up to ``limit`` archived parts whose names start with ``prefix`` and sort above
        ``after``, in order of name.

        Raises:
            CorruptRecord: the first of these parts cannot be decoded. Those before one that cannot
                be are returned without it.
        """

    async def due(self, *, before: float, limit: int) -> Sequence[str]:
        """Ids of up to ``limit`` tasks whose ``wake_at`` is at or before ``before``, the earliest
        first.
        """

    async def list_tasks(self, query: TaskQuery) -> tuple[Sequence[TaskRecord], str | None]:
        """Records that match, newest first, and what to ask ``after`` for the next page (None at
        the end).

        Paging is stable: tasks created between two pages neither repeat nor hide others. Records
        with the same ``created_at`` are ordered by id.
        """

    async def wait_for_change(self, task_id: str, version: int, *, ended: bool = False) -> None:
        """Return soon after the stored version is above ``version`` (at once if it is, or if there
        is no such task).

        With ``ended``, only a version that has a ``finished_at`` counts.
        Commits of other processes count like those of this process.
        A wait for a task that is purged ends.
        """

    async def renew_session(self, session: WorkerSession) -> WorkerSession | None:
        """Store a worker's session in the place of its last one.

        Returns the session that was replaced, or None if there was none. Of several renewals at the
        same time, each replaces another.
        """

    async def end_session(self, worker_id: str) -> None:
        """Forget a worker's session; nothing happens if there is none."""

    async def sessions(self) -> Sequence[WorkerSession]:
        """All sessions."""

    async def park(self, letters: Sequence[DeadLetter]) -> None:
        """Keep dead letters; one whose ``letter_id`` is there already is left as it is."""

    async def dead_letters(
        self,
        *,
        task_id: str | None = None,
        kind: str | None = None,
        letter_ids: Collection[str] | None = None,
        after: str = "",
        limit: int = 100,
    ) -> Sequence[DeadLetter]:
        """Up to ``limit`` dead letters by ``letter_id``, above ``after``.

        If ``task_id``, ``kind`` or ``letter_ids`` are given, only letters for which all of them
        hold.
        """

    async def drop_dead_letters(self, letter_ids: Collection[str]) -> int:
        """Forget these, and say how many there were."""

    async def purge(self, *, finished_before: float, limit: int = 1000) -> int:
        """Delete up to ``limit`` tasks that ended before then, with their archive and artifacts,
        and say how many.

        A new task with the id or the key of a purged one has nothing of it. Dead letters stay.
        Coordinators call this for the retention that they are configured with: a store deletes no
        task by itself.
        """

    async def check(self) -> Sequence[CheckResult]:
        """What ``flowkit doctor`` shows. Raises nothing: what is wrong is in the results."""


@runtime_checkable
class RecordInspector(Protocol):
    """What a store may offer besides: a search for damaged records. ``flowkit dlq ls`` shows what
    it finds.
    """

    async def damaged_records(self, *, limit: int = 100) -> Sequence[DamagedRecord]:
        """Up to ``limit`` damaged records of all kinds. The search may read everything that is
        stored, and may end early.
        """


@runtime_checkable
class ServerClock(Protocol):
    """What a store may offer besides: the clock of its server. All processes that use the store
    then count time by that clock.
    """

    async def server_time(self) -> float:
        """Return the server's wall clock: seconds since 1970-01-01 UTC. It is the same clock for
        all processes.

        Raises:
            StoreUnavailable: the server did not answer.
        """


__all__ = [
    "ArchivedPart",
    "ArtifactRecord",
    "ArtifactStore",
    "Bus",
    "CheckResult",
    "Clock",
    "Commit",
    "DamagedRecord",
    "DeadLetter",
    "Delivery",
    "Message",
    "Place",
    "RecordInspector",
    "ServerClock",
    "Store",
    "Stream",
    "Subscription",
    "TaskHeader",
    "TaskQuery",
    "TaskRecord",
    "TopicSpec",
    "WorkerSession",
    "utc",
]
