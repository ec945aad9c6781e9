"""Submitting and watching tasks."""

import logging
import os
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Self, TypeVar

import anyio

from flowkit._codecs.bus_codec import sealed
from flowkit._codecs.store_codec import encoded
from flowkit._dead_letters.letter_states import LetterState, letter_states
from flowkit._dead_letters.redrive import Redriven, Redriver
from flowkit._engine import (
    CancelRequested,
    EngineSettings,
    Event,
    PauseRequested,
    ResumeRequested,
    RetryRequested,
)
from flowkit._json.limits import LONGEST_SEC
from flowkit._records.artifact_scan import scan_artifacts
from flowkit._records.claims import withdraw
from flowkit._records.queries import artifact_meta, damaged_records, load_task, records_of
from flowkit._records.task_records import decode_log, decode_submission, decode_task, refuse_damaged
from flowkit._runtime.backoff import Backoff
from flowkit._runtime.bus_connection import BusConnection
from flowkit._runtime.call_batching import Gathered
from flowkit._runtime.outage_notices import notices_of
from flowkit._runtime.worker_sessions import is_served
from flowkit._tasks.event_processor import LONGEST_PAUSE_SEC, Applied, EventProcessor
from flowkit._tasks.explanations import explain_node, explain_put_aside, keeps_waiting
from flowkit._tasks.submission import Submission, checked, checked_reason, new_id, submission
from flowkit._tasks.views import event_view, full_view, task_view
from flowkit._user_code.containment import error_text, undo_cancellation
from flowkit.clock import StoreClock
from flowkit.config import CommonConfig, CoordinatorConfig
from flowkit.errors import (
    BusError,
    ConfigError,
    CorruptRecord,
    FlowKitError,
    MessageError,
    NotRunning,
    PayloadError,
    StoreUnavailable,
    TaskNotFound,
    TaskRefused,
)
from flowkit.messages import TaskTouched, encode, headers_of
from flowkit.plugins import Plugins
from flowkit.protocols import (
    LETTER_KINDS,
    Bus,
    Clock,
    DamagedRecord,
    DeadLetter,
    Message,
    Store,
    TaskQuery,
    TaskRecord,
    TopicSpec,
    utc,
)
from flowkit.task import (
    Artifact,
    LogEntry,
    Mark,
    NewTask,
    Page,
    Task,
    TaskEvent,
    TaskSpec,
    TaskStatus,
    TaskView,
)
from flowkit.tracing import TraceContext, current_trace

logger = logging.getLogger(__name__)

T = TypeVar("T")

PATIENCE_SEC = 10.0
"""How long a verb waits for an unavailable store before it raises."""
FIRST_CHECK_SEC = 30.0
LONGEST_CHECK_SEC = 600.0
"""``wait`` and ``watch`` check the record of an unchanged task for damage after pauses that double
up to this.
"""
PAGE = 500
_STATUSES = frozenset(status.value for status in TaskStatus)


class Client:
    """Submits tasks, and looks after them. It runs nothing itself: coordinators and workers do.

    ``db`` is an address (``"mongodb://host/name"``, ``"memory://"``) or a database object that a
    plugin knows; ``bus`` an address or a :class:`~flowkit.protocols.Bus`. A verb that changes a
    task is durable when it returns.

    Where the coordinators' ``max_in_flight`` or ``cancel_grace_sec`` are not the defaults, ``cfg``
    is best their configuration: the first nodes of a task are dispatched, and the grace of a
    cancelled one is set, by whoever submits or cancels it.
    """

    def __init__(
        self,
        *,
        db: Any = None,
        bus: Bus | str | None = None,
        cfg: CommonConfig | None = None,
        store: Store | None = None,
        clock: Clock | None = None,
        plugins: Collection[object] | Plugins | None = None,
    ) -> None:
        self.cfg = cfg if cfg is not None else CommonConfig()
        self.clock: Clock = clock or StoreClock()
        self.plugins = plugins if isinstance(plugins, Plugins) else Plugins(plugins or ())
        self._db = db if db is not None else self.cfg.db
        self._settings = self._engine_settings()
        self._hesitant_settings = replace(self._settings, sends=False)
        self._create = Gathered(self._create_records)
        self._load = Gathered(self._load_records)
        self._given_bus = bus
        self._given_store = store
        self._stack: AsyncExitStack | None = None
        self._is_running = False
        self._was_stopped = False

    # ------------------------------------------------------------ life

    async def start(self) -> None:
        """Connect to the store; the bus is connected by the first verb that sends something.
        Entering the client does the same.
        """
        if self._stack is None:
            await self._connect()
            self._is_running = True

    async def _connect(self) -> None:
        async with AsyncExitStack() as stack:
            if self._given_store is not None:
                store = self._given_store
            elif self._db is None:
                raise ConfigError(
                    "db is missing: give a database object, or an address such as"
                    " 'mongodb://localhost/flowkit' or 'memory://'"
                )
            else:
                store = await stack.enter_async_context(self.plugins.open_store(self._db, self.cfg))
            if isinstance(self.clock, StoreClock):
                await stack.enter_async_context(self.clock.following(store))
            self._connection = self._bus_connection()
            stack.push_async_callback(self._connection.stop)
            self._store = encoded(store, self.plugins)
            self._processor = self._new_applier()
            self._stack = stack.pop_all()

    def _bus_connection(self) -> BusConnection:
        bus, given = self._given_bus, True
        if bus is None or isinstance(bus, str):
            bus, given = (
                self.plugins.open_bus(bus or self.cfg.bus_address(self._db), self.cfg),
                False,
            )
        topics = [TopicSpec(self.cfg.events_topic)]
        return BusConnection(
            bus=bus,
            sealed=sealed(bus, self.cfg, self.plugins),
            enter=not given,
            topics=topics,
            clock=self.clock,
        )

    def _new_applier(self) -> EventProcessor:
        return EventProcessor(
            store=self._store,
            clock=self.clock,
            plugins=self.plugins,
            settings=self._settings,
            keep_nodes=0,
            patience_sec=PATIENCE_SEC,
        )

    @property
    def store(self) -> Store:
        """The store, while this runs.

        Raises:
            NotRunning: it is not started, or is stopped.
        """
        self._check_running()
        return self._store

    def _check_running(self) -> None:
        """Refuse a verb that is called before the start or after the stop.

        Raises:
            NotRunning: it is.
        """
        if not self._is_running:
            state = "is stopped" if self._was_stopped else "is not started"
            raise NotRunning(
                f"the {type(self).__name__} {state}: enter it with 'async with', or await its"
                " start()"
            )

    def _engine_settings(self) -> EngineSettings:
        """What the engine takes from the configuration: the defaults, if it is not one of a
        coordinator.
        """
        cfg = self.cfg
        if not isinstance(cfg, CoordinatorConfig):
            return EngineSettings()
        return EngineSettings(
            max_in_flight=cfg.max_in_flight,
            lease_ttl_sec=cfg.lease_ttl_sec,
            worker_lost_sec=cfg.heartbeat_hard_sec,
            worker_suspect_sec=cfg.heartbeat_soft_sec,
            cancel_grace_sec=cfg.cancel_grace_sec,
        )

    async def stop(self) -> None:
        """Close what was opened."""
        stack, self._stack = self._stack, None
        self._is_running = False
        if stack is not None:
            self._was_stopped = True
            await stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    # ------------------------------------------------------------ submitting

    async def create_task(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        graph: Any,
        pipeline: str | None = None,
        task_id: str | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        deadline_sec: float | None = None,
    ) -> str:
        """Submit a task and return its id. It is durable when this returns.

        A second submission with the same ``idempotency_key``, or ``task_id``, returns the id of the
        first and changes nothing. Its graph, as it was written, and its ``params`` have to be those
        of the first. ``deadline_sec`` counts from now; the task fails when it passes. The graph's
        own ``deadline_sec`` is the default. Of the tasks that wait, nodes of a higher ``priority``
        (a whole number of 32 bits) begin first. ``pipeline``, ``task_id`` and ``idempotency_key``
        have 1 to 200 printable characters; ``labels`` are texts by name, of at most 1,000
        characters each.

        Raises:
            GraphError: the graph or the submission has faults; all of them are listed, nothing is
                stored.
            TaskRefused: a plugin refused it, or its id or key belongs to a task with another graph
                or other params.
            NotRunning: this is not started, or is stopped.
            RecordTooLarge, StoreUnavailable: it could not be stored.
        """
        self._check_running()
        try:
            parsed, plain, options = checked(
                graph,
                params,
                limits=self.cfg.limits,
                functions=self.plugins.functions,
                command_topic=self.cfg.command_topic,
                task_id=task_id,
                idempotency_key=idempotency_key,
                pipeline=pipeline,
                labels=labels,
                priority=priority,
                deadline_sec=deadline_sec,
            )
        finally:
            await undo_cancellation()
        now = self.clock.now()
        random = os.urandom(26)
        identity = task_id or new_id(now, random[:10])
        if self.plugins.checks_submissions:
            await self._ask(
                NewTask(identity, parsed.to_dict(), plain, pipeline, options.labels, priority)
            )
        spec = TaskSpec(
            task_id=identity,
            plan=parsed.plan,
            created_at=now,
            secret=random[10:],
            params=plain,
            pipeline=pipeline,
            labels=options.labels,
            priority=priority,
            idempotency_key=idempotency_key,
            deadline_sec=parsed.plan.deadline_sec if deadline_sec is None else deadline_sec,
            trace=current_trace(),
        )
        decided = all(parsed.plan.nodes[root].when is None for root in parsed.plan.roots)
        certainly_new = decided and task_id is None and idempotency_key is None
        settings = self._settings if certainly_new else self._hesitant_settings
        new = submission(spec, parsed, certainly_new=certainly_new, settings=settings)
        stored = await self._create(new)
        if (task_id is not None or idempotency_key is not None) and not await self._is_ours(
            stored, new.task.spec, parsed.source
        ):
            return stored
        if self.plugins.observes_tasks:
            self.plugins.notify("flowkit_task_changed", before=None, after=task_view(new.task))
            await undo_cancellation()
        return stored

    async def _is_ours(self, stored: str, spec: TaskSpec, graph: bytes) -> bool:
        """Whether the task that is stored under an id or key is the one submitted now, and not an
        earlier one that is like it.

        Raises:
            TaskRefused: it is an earlier one with another graph or other params.
        """
        record = await self._load(stored)
        if record is None:
            return False  # it was purged meanwhile
        first = decode_submission(record)
        if first.secret == spec.secret:
            return True
        if (difference := first.difference(graph, spec.params)) is not None:
            name = (
                f"task_id {spec.task_id!r}"
                if stored == spec.task_id
                else f"idempotency_key {spec.idempotency_key!r}"
            )
            raise TaskRefused(
                f"{name} is taken: task {stored!r} was submitted with {difference}; use another one"
            )
        return False

    async def _create_records(self, submissions: list[Submission]) -> Sequence[str]:
        """Store tasks, and see to it that they begin. Repeating it is harmless, so an unavailable
        store is waited for a while.
        """
        records = [submission.record for submission in submissions]
        waited, backoff = 0.0, Backoff(longest_sec=LONGEST_PAUSE_SEC)
        while True:
            try:
                stored = await self.store.create(records)
                break
            except StoreUnavailable:
                if waited >= PATIENCE_SEC:
                    raise
                pause = backoff.next_sec()
                await self.clock.sleep(pause)
                waited += pause
        await self._submitted(submissions, stored)
        return stored

    async def _submitted(self, submissions: Sequence[Submission], stored: Sequence[str]) -> None:
        """Tasks are stored: tell a coordinator."""
        await self._touch(
            {task_id: one.task.spec.trace for one, task_id in zip(submissions, stored, strict=True)}
        )

    async def _load_records(self, task_ids: list[str]) -> Sequence[TaskRecord | None]:
        found = await self.store.load(task_ids)
        return [found.get(task_id) for task_id in task_ids]

    async def _ask(self, task: NewTask) -> None:
        try:
            answer = self.plugins.first("flowkit_before_submit", check=_reason, task=task)
        except TaskRefused:
            raise
        except FlowKitError as error:
            raise TaskRefused(str(error)) from error
        finally:
            await undo_cancellation()
        if answer is not None:
            raise TaskRefused(f"plugin {answer.plugin!r} refused the task: {answer.value}")

    async def _touch(self, tasks: Mapping[str, TraceContext | None]) -> None:
        """Hint that tasks changed. A lost hint costs time, so a bus that is away, or refuses the
        message, stops no work.
        """
        topic = self.cfg.events_topic
        try:
            bus = await self._connection.connect()
            await bus.publish(
                [
                    Message(topic, encode(TaskTouched(task_id=task_id)), task_id, headers_of(trace))
                    for task_id, trace in tasks.items()
                ]
            )
        except (BusError, MessageError, PayloadError) as error:
            notices_of(self.clock).trouble(
                logger, "hints", "Hints about tasks cannot be sent", error, action="hint_lost"
            )
        else:
            notices_of(self.clock).over(logger, "hints")

    # ------------------------------------------------------------ looking

    async def get_task(self, task_id: str) -> TaskView:
        """The task as it is now.

        Raises:
            TaskNotFound: there is none.
        """
        return await self._view(decode_task(await self._record(task_id), to_look_at=True))

    async def _view(self, task: Task) -> TaskView:
        return full_view(task, await records_of(self.store, task, range(len(task.marks))))

    async def wait(self, task_id: str, timeout: float | None = None) -> TaskView:
        """Return the task when it has ended.

        Raises:
            TaskNotFound: there is none.
            CorruptRecord: its record is damaged, so that it never ends.
            TimeoutError: it has not ended after ``timeout`` seconds.
            ValueError: ``timeout`` is not a number of seconds.
        """
        timeout = _checked_timeout(timeout)
        pauses = _check_pauses()
        give_up_at = inf if timeout is None else self.clock.monotonic() + timeout
        while True:
            record = await self._record(task_id)
            task = _decode_awaited(record)
            if task.terminal:
                return await self._view(task)
            left = give_up_at - self.clock.monotonic()
            if left <= 0:
                raise TimeoutError(
                    f"task {task_id!r} is still {record.header.status} after {timeout:g} s"
                )
            await self._wait_for_change(
                task_id, 0, ended=True, at_most_sec=min(left, pauses.next_sec())
            )

    async def _record(self, task_id: str) -> TaskRecord:
        record = await self._load(task_id)
        if record is None:
            raise TaskNotFound(task_id)
        refuse_damaged(record)
        return record

    async def _wait_for_change(
        self, task_id: str, version: int, *, ended: bool = False, at_most_sec: float
    ) -> None:
        """Return when the stored version is above ``version``, and the task has ended if ``ended``,
        or after ``at_most_sec``.

        A store does not report damage as a change: the caller checks the record again when this
        returns.
        """
        failure = None
        async with anyio.create_task_group() as group:

            async def give_up() -> None:
                await self.clock.sleep(at_most_sec)
                group.cancel_scope.cancel()

            group.start_soon(give_up)
            try:
                await self.store.wait_for_change(task_id, version, ended=ended)
            except Exception as error:
                failure = error  # raised out of the group, which would wrap it
            group.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def watch(self, task_id: str) -> AsyncIterator[TaskEvent]:
        """Every change of a task in order, from its first, until it has ended.

        Raises:
            TaskNotFound: there is none.
            CorruptRecord: its record is damaged, so that it never ends.
        """
        seen, version, pauses = _Seen(), 0, _check_pauses()
        while True:
            record = await self._record(task_id)
            task = _decode_awaited(record, has_changed=0 < version < record.version)
            if record.version != version:
                version, pauses = record.version, _check_pauses()
            async for event in self._events(task, record, seen):
                yield event
            if task.terminal:
                return
            await self._wait_for_change(task_id, version, at_most_sec=pauses.next_sec())

    async def _events(
        self, task: Task, record: TaskRecord, seen: "_Seen"
    ) -> AsyncIterator[TaskEvent]:
        live = sorted(name for name in record.parts if name[0] == "e")
        if seen.seq < task.seq and (not live or int(live[0][1:]) > seen.seq + 1):
            while page := await self.store.scan_archive(
                task.task_id, prefix="e", after=seen.part, limit=PAGE
            ):
                for name, data in page:
                    for seq, entry in seen.new_in(name, data):
                        yield event_view(task, seq, entry)
                    seen.part = name
        for name in live:
            for seq, entry in seen.new_in(name, record.parts[name]):
                yield event_view(task, seq, entry)

    async def list_tasks(
        self,
        *,
        status: str | Collection[str] | None = None,
        pipeline: str | None = None,
        labels: Mapping[str, str] | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[TaskView]:
        """Tasks that match, newest first. ``after`` is the ``next`` of the page before."""
        if limit < 1:
            raise ValueError(f"limit is at least 1, not {limit}")
        statuses = (
            ()
            if status is None
            else [TaskStatus(status)]
            if isinstance(status, str)
            else [TaskStatus(name) for name in status]
        )
        query = TaskQuery(
            statuses=statuses, pipeline=pipeline, labels=labels or {}, limit=limit, after=after
        )
        records, following = await self.store.list_tasks(query)
        return Page([await self._view_of(record) for record in records], following)

    async def _view_of(self, record: TaskRecord) -> TaskView:
        """A task in a list: one that cannot be read does not hide the others."""
        try:
            return await self._view(decode_task(record, to_look_at=True))
        except (CorruptRecord, PayloadError) as error:
            header = record.header
            known = header.status in _STATUSES
            return TaskView(
                id=header.task_id,
                pipeline=header.pipeline,
                status=TaskStatus(header.status) if known else TaskStatus.QUEUED,
                labels=dict(header.labels),
                error=str(error),
                created_at=utc(header.created_at),
                finished_at=None if header.finished_at is None else utc(header.finished_at),
            )

    async def artifacts(self, task_id: str, node_id: str | None = None) -> AsyncIterator[Artifact]:
        """What the task's nodes, or one of them, produced, in order of production.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            NodeFailure: ``artifact_lost``; an artifact that was stored is missing. Those that are
                there were yielded before.
            CorruptRecord: an artifact is damaged.
        """
        task = await load_task(self.store, task_id)
        plan = task.spec.plan
        indexes = range(len(task.marks)) if node_id is None else [_index_of(task, node_id)]
        records = await records_of(self.store, task, indexes)
        found = scan_artifacts(
            self.store.artifacts,
            task_id,
            generations={
                plan.ids[index]: records[index].generation if index in records else 0
                for index in indexes
            },
            batches={
                plan.ids[index]: record.batches
                for index, record in records.items()
                if task.marks[index] == Mark.FINISHED
            },
        )
        async with aclosing(found) as items:
            async for item in items:
                if item.meta is not None:
                    yield Artifact(
                        task_id=task_id,
                        node_id=item.stream.node_id,
                        uid=item.uid,
                        partial=item.partial,
                        meta=artifact_meta(item),
                        created_at=utc(item.created_at),
                    )

    async def explain(self, task_id: str, node_id: str) -> str:
        """Why a node is not running, in a sentence.

        If it waits for a worker, this waits for the next heartbeat of a worker with its role, for
        at most 10 s. If the task was put aside, this says why and what to do, from the dead letter
        of the task.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            CorruptRecord: the task cannot be read.
        """
        record = await self._record(task_id)
        letters = await self.store.dead_letters(task_id=task_id, kind="task")
        letter = max(letters, key=lambda letter: letter.at, default=None)
        try:
            task = decode_task(record)
        except CorruptRecord:
            if letter is None:
                raise
            _index_of(decode_task(record, to_look_at=True), node_id)
            return explain_put_aside(letter, now=self.clock.now())
        index = _index_of(task, node_id)
        if letter is not None and keeps_waiting(task, index, record, letter):
            return explain_put_aside(letter, now=self.clock.now())
        records, now = await records_of(self.store, task, [index]), self.clock.now()
        served = task.marks[index] != Mark.ISSUED or await is_served(
            self.store, task.spec.plan.nodes[index].type, self.clock
        )
        return explain_node(task, index, records.get(index), now=now, served=served)

    # ------------------------------------------------------------ changing

    async def cancel(self, task_id: str, reason: str = "") -> None:
        """Stop a task. What runs is asked to end, and cut off after a grace. An ended task stays as
        it is.

        Raises:
            TaskNotFound: there is none.
            TaskRefused: the reason is not a text of at most 1,000 characters.
        """
        await self._change(task_id, CancelRequested(checked_reason(reason)))

    async def pause(self, task_id: str) -> None:
        """Begin no further node of a task; what runs goes on. An ended task stays as it is.

        Raises:
            TaskNotFound: there is none.
        """
        await self._change(task_id, PauseRequested())

    async def resume(self, task_id: str) -> None:
        """End a pause. A task that is not paused stays as it is.

        Raises:
            TaskNotFound: there is none.
        """
        await self._change(task_id, ResumeRequested())

    async def retry(self, task_id: str, *, from_nodes: Collection[str] | None = None) -> None:
        """Run a failed or cancelled task again, from its failed nodes, or from those named and all
        below them.

        What is finished is kept, the stored batches of a failed node too; a finished node that is
        named starts from nothing, and so does what is below it. So does a finished node that may
        get more data than it had because a parent runs again. Where nothing is left to run, the
        task ends as ``finished``.

        Raises:
            TaskNotFound: there is none.
            TaskRefused: it has neither failed nor been cancelled, a node that is named is not in
                it, or the nodes are not a list.
        """
        record = await self._record(task_id)
        task = decode_task(record)
        if task.status not in (TaskStatus.FAILED, TaskStatus.CANCELLED):
            raise TaskRefused(
                f"task {task_id!r} is {task.status}: only a failed or cancelled task is retried"
            )
        nodes = None
        if isinstance(from_nodes, str):
            raise TaskRefused(f"from_nodes is a list of node ids, not the string {from_nodes!r}")
        if from_nodes is not None:
            unknown = [node_id for node_id in from_nodes if node_id not in task.spec.plan.index]
            if unknown or not from_nodes:
                raise TaskRefused(
                    f"task {task_id!r} has no node {unknown[0]!r}"
                    if unknown
                    else "from_nodes is empty"
                )
            nodes = tuple(sorted(task.spec.plan.index[node_id] for node_id in from_nodes))
        await self._change(task_id, RetryRequested(nodes))

    # ------------------------------------------------------------ dead letters

    async def dead_letters(
        self,
        *,
        task_id: str | None = None,
        kind: str | None = None,
        letter_ids: Collection[str] | None = None,
        limit: int = 100,
        after: str = "",
    ) -> Page[DeadLetter]:
        """List dead letters by ``letter_id``: all, or those of one task, of one kind or with these
        ids.

        The kinds are ``batch``, ``node``, ``message`` and ``task``. The letter of a node whose
        failure is not recorded is left out, so that a page may hold fewer than ``limit``.
        """
        store = self.store
        if kind not in (None, *LETTER_KINDS):
            raise ValueError(
                f"a dead letter is of the kind batch, node, message or task, not {kind!r}"
            )
        if limit < 1:
            raise ValueError(f"limit is at least 1, not {limit}")
        letters = await store.dead_letters(
            task_id=task_id, kind=kind, letter_ids=letter_ids, after=after, limit=limit + 1
        )
        states = await letter_states(store, letters[:limit])
        found = [
            letter
            for letter, state in zip(letters, states, strict=False)
            if state is LetterState.COMMITTED
        ]
        return Page(found, letters[limit - 1].letter_id if len(letters) > limit else None)

    async def retry_dead_letters(self, letter_ids: Collection[str]) -> list[Redriven]:
        """Try again what was given up, and say for each letter what became of it.

        A message is sent again as it was. The node of a letter, or of a batch, runs again for what
        it has not stored, and all nodes below it; its task must have ended, and may have finished.
        A quarantined task is looked at again. A letter is dropped once this is confirmed.
        """
        redriver = Redriver(
            store=self.store,
            connection=self._connection,
            events_topic=self.cfg.events_topic,
            retry=self._change,
        )
        return await redriver.redrive(list(dict.fromkeys(letter_ids)))

    async def damaged_records(self, *, limit: int = 100) -> list[DamagedRecord]:
        """Up to ``limit`` records that the store cannot decode, where it can search for them. A
        search reads everything that is stored.
        """
        return list(await damaged_records(self.store, limit=limit))

    async def drop_dead_letters(self, letter_ids: Collection[str]) -> int:
        """Forget these letters, and say how many there were."""
        return await self.store.drop_dead_letters(letter_ids)

    async def _apply(self, task_id: str, event: Event) -> Applied:
        """Apply a request to a task and store the outcome.

        Raises:
            TaskNotFound: there is none.
            CorruptRecord: the task cannot be read, or not be changed.
            RecordRefused, RecordTooLarge, PayloadError: the changed task cannot be stored.
        """
        applied = await self._processor.apply(
            {task_id: [event]}, whole=isinstance(event, RetryRequested)
        )
        if task_id in applied.missing:
            decode_task(await self._record(task_id))
            raise TaskNotFound(task_id)
        if (error := applied.quarantined.get(task_id)) is not None:
            if isinstance(error, FlowKitError):
                raise error
            raise CorruptRecord(
                f"task {task_id!r} cannot be changed: {error_text(error, most=400)}"
            ) from error
        return applied

    async def _change(self, task_id: str, event: Event) -> None:
        self._check_running()
        applied = await self._apply(task_id, event)
        await withdraw(
            self.store.artifacts,
            ((held.task, effects) for held, effects in applied.effects),
            self.clock.now(),
        )
        await self._touch(
            {task_id: next((held.task.spec.trace for held, _ in applied.effects), None)}
        )


def _index_of(task: Task, node_id: str) -> int:
    index = task.spec.plan.index.get(node_id)
    if index is None:
        raise TaskNotFound(task.task_id, node_id=node_id)
    return index


def _decode_awaited(record: TaskRecord, *, has_changed: bool = False) -> Task:
    """Return a task that has ended, or that a coordinator can continue.

    The full check takes long for large graphs. It is left out for a task that ``has_changed`` since
    the last check: it makes progress.

    Raises:
        CorruptRecord: it is neither. Coordinators put such a task aside, so it never ends.
    """
    return decode_task(record, to_look_at=has_changed or record.header.finished_at is not None)


def _check_pauses() -> Backoff:
    """Return the pauses between checks of a task that does not change."""
    return Backoff(first_sec=FIRST_CHECK_SEC, longest_sec=LONGEST_CHECK_SEC)


def _checked_timeout(timeout: Any) -> float | None:
    """Return how many seconds to wait at most, None for no limit.

    Raises:
        ValueError: this is not a number of seconds.
    """
    if timeout is None:
        return None
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout != timeout:
        raise ValueError(f"timeout is a number of seconds or None, not {timeout!r}")
    return None if timeout > LONGEST_SEC else max(timeout, 0)


def _reason(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"the reason for a refusal is a string, not {type(answer).__name__}")
    return answer


@dataclass(slots=True)
class _Seen:
    """How far somebody has followed a task's history."""

    seq: int = 0
    part: str = ""
    """The last part of the archive that was read: what was read from the record since may lie
    behind it by now, under an earlier name.
    """

    def new_in(self, name: str, data: bytes) -> Iterator[tuple[int, LogEntry]]:
        for seq, entry in decode_log(name, data):
            if seq > self.seq:
                self.seq = seq
                yield seq, entry
