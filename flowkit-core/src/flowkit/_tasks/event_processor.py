"""The event processor: every event of a task goes through it, and every change is stored by it."""

import asyncio
import logging
import secrets
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count

import anyio

from flowkit._dead_letters.node_letters import NodeLetters
from flowkit._engine import (
    ChangesPublished,
    DeferrableEvent,
    Effect,
    EngineSettings,
    Event,
    FollowParent,
    RetryRequested,
    archived_claims,
    pending_effects,
    records_to_load,
)
from flowkit._records.queries import records_of
from flowkit._records.record_parts import RecordWriter
from flowkit._records.task_records import decode_task
from flowkit._runtime.retries import Backoff, Notices, notices_of, retry
from flowkit._tasks.cached_tasks import (
    CachedTask,
    SettledTasks,
    TaskCache,
    TaskEffects,
    TaskUpdate,
)
from flowkit._tasks.quarantine import Quarantine
from flowkit._tasks.reduced_reports import smaller_rounds
from flowkit._tasks.submission import Submission, submission
from flowkit._tasks.task_ends import TaskEnds
from flowkit._tasks.task_logs import log_status, log_timeouts
from flowkit._tasks.views import Observers
from flowkit._user_code.containment import undo_cancellation
from flowkit.errors import (
    CorruptRecord,
    FlowKitError,
    PayloadError,
    RecordRefused,
    RecordTooLarge,
    StoreError,
    StoreUnavailable,
)
from flowkit.measures import Measure
from flowkit.messages import ChildEnded
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Commit, Store, TaskRecord
from flowkit.task import DeadLetter, Task, TaskSpec, TaskStatus

logger = logging.getLogger(__name__)

LONGEST_PAUSE_SEC = 2.0

Events = dict[str, Sequence[Event]]
"""Events in order, by task."""


def _reads_children(events: Collection[Event], effects: Collection[Effect]) -> bool:
    """Return whether all these events have child tasks read from the store, whose state is then
    reported, so that an old copy of the parent is noticed then.
    """
    return bool(effects) and all(isinstance(event, ChildEnded) for event in events)


def log_store_error(log: logging.Logger, notices: Notices, error: Exception) -> None:
    """Warn that the store is unavailable, or that it refuses an operation."""
    if isinstance(error, StoreUnavailable):
        notices.trouble(log, "store", "The store is unavailable", error, action="store_unavailable")
    else:
        notices.trouble(
            log, "store refuses", "The store refuses an operation", error, action="store_refused"
        )


@dataclass(slots=True)
class Outcome:
    """The outcome of events that were applied."""

    effects: list[TaskEffects] = field(default_factory=list)
    """Effects to carry out, by task."""
    missing: list[str] = field(default_factory=list)
    """Tasks that are not stored, or whose records cannot be read."""
    quarantined: dict[str, BaseException] = field(default_factory=dict)
    """Tasks that could not be changed, with the errors."""
    unchanged: set[str] = field(default_factory=set)
    """Tasks that ignored their events."""


@dataclass(slots=True)
class _Call:
    """State of one call of :meth:`EventProcessor.apply` over its rounds."""

    restore: bool
    """Begin with the effects that the stored tasks still need."""
    whole: bool
    """Load the records of all nodes."""
    read: dict[str, TaskRecord] = field(default_factory=dict)
    """Records that the caller has read, by task. The first round needs not load them."""
    outcome: Outcome = field(default_factory=Outcome)
    operations: dict[str, str] = field(default_factory=dict)
    """Ids of commits whose outcome is unknown, by task."""
    uncommitted: dict[str, DeadLetter] = field(default_factory=dict)
    """Dead letters that were stored and not committed with their tasks, by id."""


@dataclass(slots=True)
class _Loaded:
    """The tasks of one round."""

    tasks: dict[str, CachedTask] = field(default_factory=dict)
    last_operations: dict[str, str] = field(default_factory=dict)
    """Ids of the last stored commits of the tasks that were loaded from the store."""


@dataclass(slots=True)
class _PendingCommit:
    """An update and the commit that stores it."""

    update: TaskUpdate
    commit: Commit
    status_before: TaskStatus
    deferred: int
    """Deferred events that the commit stores."""

    @property
    def task(self) -> Task:
        return self.update.cached.task

    @property
    def ends(self) -> bool:
        """Whether the task ends with the commit."""
        return self.task.terminal and not self.status_before.terminal


class EventProcessor:
    """Applies events to tasks and stores the changes: load, advance, commit.

    All events go through :class:`~flowkit._tasks.cached_tasks.TaskUpdate`. The methods differ in
    when the change is stored: :meth:`apply` commits it, :meth:`create` stores a new task, and
    :meth:`apply_deferred` leaves it to the task's next commit.

    Tasks are cached between calls, up to ``keep_nodes`` nodes in all. If two processors have cached
    one task, the commit of the slower one is refused, and it loads the task again.
    """

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        plugins: Plugins,
        settings: EngineSettings,
        keep_nodes: int,
        keep_settled_sec: float,
        patience_sec: float | None,
    ) -> None:
        """``keep_settled_sec`` is the time for which :meth:`pop_settled` finds a task. It is not
        longer than the retention of ended tasks. ``patience_sec`` limits the wait for an
        unavailable store; None means no limit.
        """
        self._store = store
        self._clock = clock
        self._settings = settings
        self._sends_nothing = replace(settings, sends=False)
        self._patience_sec = patience_sec
        self._notices = notices_of(clock)
        self._cache = TaskCache(keep_nodes)
        self._settled = SettledTasks(keep_sec=keep_settled_sec)
        self._plugins = plugins
        self._observers = Observers(plugins)
        self._quarantine = Quarantine(store=store, clock=clock, plugins=plugins)
        self._node_letters = NodeLetters(store=store, clock=clock)
        self._ends = TaskEnds(store=store, clock=clock)
        self._lock = anyio.Lock(fast_acquire=True)
        self._name = secrets.token_hex(6)
        self._numbers = count()

    # ------------------------------------------------------------ cached tasks

    def cached(self) -> Collection[CachedTask]:
        """Return all cached tasks."""
        return self._cache.all()

    def find_cached(self, task_ids: Collection[str]) -> list[CachedTask]:
        """Return those of these tasks that are cached."""
        return self._cache.find(task_ids)

    def pop_settled(self, task_id: str) -> Task | None:
        """Return a task that this process has just stored as finished and that cannot run again;
        None if there is none. Only one caller gets it.
        """
        return self._settled.pop(task_id, self._clock.now())

    async def evict_changed(self, task_ids: Collection[str]) -> list[str]:
        """Evict those of these tasks that another process has changed, and return the others.

        Raises:
            StoreError: the store is unavailable, or refused the operation.
        """
        async with self._lock:
            records = await self._store.load(task_ids)
            unchanged = []
            for task_id in task_ids:
                cached, record = self._cache.get(task_id), records.get(task_id)
                if cached is None or record is None or cached.task.version != record.version:
                    self._cache.evict(task_id)
                else:
                    unchanged.append(task_id)
            return unchanged

    async def quarantine(self, task_id: str, error: BaseException) -> None:
        """Evict a task that cannot be processed, and store a dead letter with the error.

        Raises:
            StoreError: the dead letter was not stored.
        """
        self._cache.evict(task_id)
        await self._quarantine.add(task_id, error)

    # ------------------------------------------------------------ new tasks

    def submit(self, spec: TaskSpec, graph: bytes, *, certainly_new: bool) -> Submission:
        """Apply the first event of a task that is not stored yet. ``graph`` is its JSON.

        If the task is not ``certainly_new``, the process that loads it sends its first commands.
        """
        settings = self._settings if certainly_new else self._sends_nothing
        return submission(spec, graph, certainly_new=certainly_new, settings=settings)

    async def create(self, submissions: Sequence[Submission]) -> Sequence[str]:
        """Store new tasks, cache those that are certainly new, and return the ids of the stored
        tasks. An id differs from the submitted one if the idempotency key was used before.

        Raises:
            StoreError: the tasks were not stored, or the answer of the store is unknown. Repeating
                the call is harmless.
        """
        stored = await self._store.create([submission.record for submission in submissions])
        for new in submissions:
            self._settled.forget(new.task.task_id)  # that of an earlier task with this id
        if self._cache.max_nodes:
            for new in submissions:
                if new.certainly_new:
                    self._cache_submission(new)
        return stored

    def _cache_submission(self, new: Submission) -> CachedTask:
        """Cache a task that was stored as it was submitted."""
        new.cached.writer.committed(new.cached.task, new.commit)
        new.cached.restored = True
        self._cache.evict(new.task.task_id)
        self._cache.add(new.cached)
        return new.cached

    # ------------------------------------------------------------ events

    def apply_deferred(self, cached: CachedTask, event: DeferrableEvent) -> None:
        """Apply an event now, and leave its storage to the next commit of the task."""
        update = TaskUpdate(cached, self._clock.now(), self._settings)
        update.apply(event)
        if update.changed:
            cached.deferred.append(event)

    async def refresh(
        self, task_ids: Collection[str], *, submitted: Mapping[str, Submission] | None = None
    ) -> Outcome:
        """Load those of these tasks that another process has changed, and return the effects that
        they still need: also of a task that :meth:`apply` has loaded since that change. One that is
        stored as it was ``submitted`` is cached as it is in memory.

        Raises:
            StoreError: as in :meth:`apply`.
        """
        async with self._lock:
            records = await self._store.load(task_ids)
            missing = [task_id for task_id in task_ids if task_id not in records]
            call = _Call(restore=True, whole=False, outcome=Outcome(missing=missing))
            changed: Events = {}
            for task_id, record in records.items():
                cached = self._cache.get(task_id)
                new = None if submitted is None else submitted.get(task_id)
                if cached is not None and cached.task.version == record.version:
                    if cached.restored:
                        continue
                elif new is not None and new.is_stored_as(record):
                    cached = self._cache_submission(new)
                    if not new.evaluates:
                        call.outcome.effects.append(TaskEffects(cached, new.effects))
                        continue
                else:
                    cached = await self._cache_record(task_id, record)
                if cached is not None and cached.task.terminal:
                    self._cache.evict(task_id)
                    if effects := pending_effects(cached.task):
                        call.outcome.effects.append(TaskEffects(cached, effects))
                elif cached is not None:
                    changed[task_id] = self._first_events(cached.task)
            if changed:
                await self._apply(changed, call)
            self._cache.evict_excess()
            return call.outcome

    def _first_events(self, task: Task) -> Sequence[Event]:
        """Return the event with which a coordinator begins to publish the changes of a task that a
        client has made.
        """
        publication = task.publication
        undecided = publication is not None and not publication.is_decided
        return (ChangesPublished(0),) if undecided and self._settings.publishes else ()

    async def apply(
        self,
        events: Mapping[str, Sequence[Event]],
        *,
        whole: bool = False,
        read: Mapping[str, TaskRecord] | None = None,
    ) -> Outcome:
        """Apply each task's events in order, and commit the changes.

        ``whole`` loads the records of all nodes from the archive first, which a retry needs.
        ``read`` are records that the caller has just read; they are not loaded again.

        Raises:
            StoreError: the store was unavailable for longer than ``patience_sec``, or refused an
                operation. Some of the changes may be stored.
        """
        async with self._lock:
            call = _Call(restore=False, whole=whole, read=dict(read or {}))
            outcome = await self._apply(dict(events), call)
            self._cache.evict_excess()
            return outcome

    async def _apply(self, events: Events, call: _Call) -> Outcome:
        rounds = [events]

        async def run_rounds() -> None:
            while rounds:
                pending = rounds.pop()
                try:
                    rounds.extend(await self._round(pending, call))
                except BaseException:
                    # Their commits may be stored or not, so the copies in memory are useless.
                    rounds.append(pending)
                    self._cache.evict(*pending)
                    raise
                self._notices.over(logger, "store")

        retried = StoreError if self._patience_sec is None else StoreUnavailable
        await retry(
            run_rounds,
            on=lambda error: isinstance(error, retried),
            sleep=self._clock.sleep,
            backoff=Backoff(longest_sec=LONGEST_PAUSE_SEC),
            patience_sec=self._patience_sec,
            monotonic=self._clock.monotonic,
            on_retry=lambda error: log_store_error(logger, self._notices, error),
        )
        if call.uncommitted:
            await self._node_letters.drop_strays(list(call.uncommitted.values()))
        return call.outcome

    async def _round(self, pending: Events, call: _Call) -> list[Events]:
        """Load the tasks, advance them and commit once. Return the rounds that must follow, the
        last one first.
        """
        loaded = await self._load(pending, call.read)
        call.read.clear()
        if len(loaded.tasks) < len(pending):
            for task_id in [task_id for task_id in pending if task_id not in loaded.tasks]:
                call.outcome.missing.append(task_id)
                del pending[task_id]
        if call.whole:
            for task_id, cached in loaded.tasks.items():
                for event in pending[task_id]:
                    if isinstance(event, RetryRequested | FollowParent):
                        named = event.nodes if isinstance(event, RetryRequested) else None
                        indexes = records_to_load(cached.task, named or ())
                        records = await records_of(self._store, cached.task, indexes)
                        cached.task.records.update(records)
        for task_id, cached in loaded.tasks.items():
            if nodes := archived_claims(cached.task, pending[task_id]):
                with suppress(CorruptRecord):  # the place is given back when its key is checked
                    await records_of(self._store, cached.task, nodes)
        if call.operations:
            self._settle_unknown(pending, loaded, call)
        try:
            stale = await self._advance_and_commit(pending, loaded, call)
        except (RecordTooLarge, RecordRefused, PayloadError) as error:
            return await self._split_round(pending, error, call.outcome)
        self._cache.evict(*stale)
        call.outcome.unchanged.difference_update(stale)
        for task_id in stale:
            call.operations.pop(task_id, None)
        return [{task_id: pending[task_id] for task_id in stale}] if stale else []

    async def _load(self, task_ids: Collection[str], read: Mapping[str, TaskRecord]) -> _Loaded:
        """Return tasks from the cache, or else from the records that were ``read``, or else from
        the store. Tasks that are missing or damaged are left out.
        """
        loaded = _Loaded()
        records: dict[str, TaskRecord] = {}
        missing = []
        for task_id in task_ids:
            cached = self._cache.use(task_id)
            if cached is not None:
                loaded.tasks[task_id] = cached
            elif task_id in read:
                records[task_id] = read[task_id]
            else:
                missing.append(task_id)
        if missing:
            records.update(await self._store.load(missing))
        for task_id, record in records.items():
            loaded.last_operations[task_id] = record.op_id
            cached = await self._cache_record(task_id, record)
            if cached is not None:
                loaded.tasks[task_id] = cached
        return loaded

    async def _cache_record(self, task_id: str, record: TaskRecord) -> CachedTask | None:
        """Cache a task as it is stored, and apply its remembered events again. Quarantine a task
        that cannot be read, and return None.
        """
        self._cache.evict(task_id)
        try:
            task = decode_task(record)
        except FlowKitError as error:
            await self.quarantine(task_id, error)
            return None
        cached = CachedTask(task, RecordWriter(task, record.parts))
        self._cache.add(cached)
        for event in self._cache.pop_deferred(task_id):
            self.apply_deferred(cached, event)
        return cached

    def _settle_unknown(self, pending: Events, loaded: _Loaded, call: _Call) -> None:
        """Drop the events whose commit was stored although its outcome was unknown: the stored task
        has the id of that commit.
        """
        for task_id in [task_id for task_id in pending if task_id in call.operations]:
            if loaded.last_operations.get(task_id) == call.operations.pop(task_id):
                cached = loaded.tasks[task_id]
                call.outcome.effects.append(TaskEffects(cached, pending_effects(cached.task)))
                del pending[task_id]

    async def _split_round(
        self, pending: Events, error: FlowKitError, outcome: Outcome
    ) -> list[Events]:
        """Return the rounds that replace one which cannot be stored. Quarantine a task that cannot
        be stored even with a single event without payload.
        """
        self._cache.evict(*pending)
        rounds = smaller_rounds(pending, error)
        if not rounds:
            (task_id,) = pending
            outcome.quarantined[task_id] = error
            await self.quarantine(task_id, error)
        return rounds

    # ------------------------------------------------------------ one round

    async def _advance_and_commit(self, pending: Events, loaded: _Loaded, call: _Call) -> list[str]:
        """Advance the tasks, commit what changed, and return the tasks that are stale."""
        commits: dict[str, _PendingCommit] = {}
        unchanged: list[str] = []
        for task_id, events in pending.items():
            cached = loaded.tasks[task_id]
            status_before = cached.task.status
            try:
                update = await self._advance(cached, events, restore=call.restore)
                operation = f"{self._name}.{next(self._numbers)}" if update.changed else ""
                commit = (
                    cached.writer.commit(
                        cached.task, operation, durable=update.must_be_durable(events)
                    )
                    if update.changed
                    else None
                )
            except (StoreError, asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                call.outcome.quarantined[task_id] = error
                await self.quarantine(task_id, error)
                continue
            if commit is None:
                if update.effects or call.restore:
                    call.outcome.effects.append(TaskEffects(cached, update.effects))
                call.outcome.unchanged.add(task_id)
                if (
                    events
                    and task_id not in loaded.last_operations
                    and not _reads_children(events, update.effects)
                ):
                    unchanged.append(task_id)
                continue
            call.operations[task_id] = operation
            deferred = len(cached.deferred)
            commits[task_id] = _PendingCommit(update, commit, status_before, deferred)
        stale = await self._stale(unchanged, loaded) if unchanged else []
        if commits:
            stale += await self._commit(commits, call)
        return stale

    async def _advance(
        self, cached: CachedTask, events: Sequence[Event], *, restore: bool
    ) -> TaskUpdate:
        """Apply events to the cached task, and evaluate the expressions that are due."""
        observers = self._observers if self._observers.watching else None
        update = TaskUpdate(cached, self._clock.now(), self._settings, observers)
        if restore:
            update.add_effects(pending_effects(cached.task, claimed=False))
            cached.restored = True
        for event in events:
            update.apply(event)
        if update.evaluations:
            await update.evaluate(self._store)
        return update

    async def _stale(self, task_ids: Collection[str], loaded: _Loaded) -> list[str]:
        """Return those of these cached tasks that another process has changed: the stored task may
        react to an event that the copy in memory ignores.
        """
        records = await self._store.load(task_ids)
        return [
            task_id
            for task_id in task_ids
            if task_id not in records
            or records[task_id].version != loaded.tasks[task_id].task.version
        ]

    async def _commit(self, commits: Mapping[str, _PendingCommit], call: _Call) -> list[str]:
        """Store dead letters and the events of triggers, then the commits. Return the tasks whose
        commits were refused.
        """
        refused: list[str] = []
        dropped: list[str] = []
        before = self._clock.monotonic()
        triggering = await self._ends.park([one.task for one in commits.values() if one.ends])
        parked = [letter for one in commits.values() for letter in one.update.parked]
        if parked:
            call.uncommitted |= {letter.letter_id: letter for letter in parked}
            await self._node_letters.park(parked)
        stored = await self._store.commit([pending.commit for pending in commits.values()])
        if self._observers.measuring:
            self._measure(commits, stored, parked, self._clock.monotonic() - before)
        for (task_id, pending), success in zip(commits.items(), stored, strict=True):
            if not success:
                refused.append(task_id)
                continue
            call.operations.pop(task_id, None)
            update = pending.update
            for letter in update.parked:
                call.uncommitted.pop(letter.letter_id, None)
            dropped += update.dropped
            self._committed(task_id, pending)
            has_triggers = task_id in triggering
            call.outcome.effects.append(TaskEffects(update.cached, update.effects, has_triggers))
        await undo_cancellation()
        if dropped:
            await self._node_letters.drop(dropped)
        return refused

    def _measure(
        self,
        commits: Mapping[str, _PendingCommit],
        stored: Sequence[bool],
        parked: Sequence[DeadLetter],
        took_sec: float,
    ) -> None:
        refused = len(stored) - sum(stored)
        self._observers.measure(
            [
                Measure("commit_sec", took_sec, {}),
                Measure("commits", len(stored) - refused, {"outcome": "committed"}),
                Measure("commits", refused, {"outcome": "refused"}),
                *(Measure("dead_letters", 1, {"kind": letter.kind}) for letter in parked),
                *(
                    measure
                    for one, success in zip(commits.values(), stored, strict=True)
                    if success
                    for measure in one.update.measures
                ),
            ]
        )

    def _committed(self, task_id: str, pending: _PendingCommit) -> None:
        """Take over a stored commit, log it and notify observers."""
        cached = pending.update.cached
        cached.writer.committed(cached.task, pending.commit)
        del cached.deferred[: pending.deferred]
        if cached.task.status is not pending.status_before:
            log_status(self._plugins, cached.task, pending.status_before)
        if pending.update.timeouts:
            log_timeouts(cached.task, pending.update.timeouts)
        if cached.task.terminal:
            self._cache.evict(task_id)
            self._settled.add(cached.task)
        if pending.update.notices:
            self._observers.notify(pending.update.notices)
