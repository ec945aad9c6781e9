"""The session of an open client or coordinator: submission, and what all verbs share."""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import anyio.lowlevel

from flowkit._engine import EngineSettings, Event, RetryRequested
from flowkit._records.task_records import decode_submission, decode_task
from flowkit._runtime.bus_connection import BusConnection
from flowkit._runtime.concurrency import Gathered
from flowkit._runtime.lifecycle import Lifecycle, LifeState
from flowkit._runtime.retries import Backoff, retry
from flowkit._tasks.event_processor import LONGEST_PAUSE_SEC, EventProcessor, Outcome
from flowkit._tasks.flow_versions import fixed_versions
from flowkit._tasks.graph_checks import GraphChecks
from flowkit._tasks.map_children import no_such_node
from flowkit._tasks.registered_flows import RegisteredFlows
from flowkit._tasks.submission import Submission, checked, new_id, task_spec
from flowkit._tasks.task_measures import measures_of_new
from flowkit._tasks.views import task_view
from flowkit._user_code.containment import error_text, undo_cancellation
from flowkit.client._trigger_lags import TriggerLags
from flowkit.config import CommonConfig, CoordinatorConfig
from flowkit.errors import (
    CorruptRecord,
    Fault,
    FlowKitError,
    GraphError,
    StoreUnavailable,
    TaskNotFound,
    TaskRefused,
)
from flowkit.graph import Graph, NodeSpec
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Store, TaskRecord
from flowkit.task import NewTask, Task, TaskFlow, TaskSpec
from flowkit.tracing import use_trace

T = TypeVar("T")

PATIENCE_SEC = 10.0
"""Longest wait of a verb for an unavailable store before it raises."""


@dataclass(frozen=True, slots=True)
class Rerun:
    """Task whose submission is repeated."""

    task_id: str
    flow: TaskFlow | None
    """Registered flow that has its graph."""


class Dispatcher(Protocol):
    """Starts the work that follows from a submission or a change."""

    async def submitted(self, submissions: Mapping[str, Submission]) -> None:
        """Start new tasks, by id. It is the id of an earlier task if a submission repeats it."""

    async def changed(self, task_ids: Collection[str], outcome: Outcome) -> None:
        """Carry out the effects of an event that was applied to each of these tasks."""

    async def schedule_changed(self, schedule_id: str) -> None:
        """Read a schedule that was put or changed."""

    async def trigger_changed(self, trigger_id: str) -> None:
        """Read the events of a trigger that was put, resumed or deleted."""


class Session:
    """Open client or coordinator: its store and bus, and the operations that its verbs share."""

    def __init__(
        self,
        *,
        cfg: CommonConfig,
        clock: Clock,
        plugins: Plugins,
        store: Store,
        connection: BusConnection,
        processor: EventProcessor,
        dispatcher: Dispatcher,
        life: "Lifecycle[Session]",
    ) -> None:
        self.cfg = cfg
        self.clock = clock
        self.plugins = plugins
        self.connection = connection
        self._store = store
        self.processor = processor
        self.dispatcher = dispatcher
        self._life = life
        self.checks = GraphChecks(cfg.limits, plugins.functions, cfg.command_topic)
        self.flows = RegisteredFlows(lambda: self.store.records)
        self.lags = TriggerLags(plugins=plugins, cfg=cfg, clock=clock)
        self._create = Gathered(self._create_records)
        """Store a new task, together with those that are submitted at the same time, and return its
        id.
        """
        self._load = Gathered(self._load_records)
        """Load the record of a task, together with others; None if there is none."""
        self._load_together = Gathered(self._load_records_together)
        """The same for those who follow a task, and wake up at the same time."""
        self._seen: tuple[TaskRecord | None, Task | None] = None, None
        """The last record that was read to be shown, and its task."""

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            NotRunning: the client or coordinator was stopped since the verb began.
        """
        if self._life.state is not LifeState.OPEN:
            self._life.check_open()
        return self._store

    # ------------------------------------------------------------ submission

    async def create_task(
        self,
        graph: Any,
        params: Mapping[str, Any] | None,
        *,
        flow: str | None,
        version: int | None,
        task_id: str | None,
        idempotency_key: str | None,
        rerun: Rerun | None = None,
        **options: Any,
    ) -> str:
        """Check a task, store it and return its id; the id of the first one if it repeats it."""
        plugins = self.plugins
        named, source = await self._asked(graph, flow, version)
        if graph is not None and rerun is not None:
            named = rerun.flow
        try:
            parsed, checked_params, chosen = await checked(
                source,
                params,
                checks=self.checks,
                task_id=task_id,
                idempotency_key=idempotency_key,
                **options,
            )
            versions = await fixed_versions(parsed, named, flows=self.flows, checks=self.checks)
        finally:
            await undo_cancellation()
        now, random, plan = self.clock.now(), os.urandom(26), parsed.plan
        own_id = task_id or new_id(now, random[:10])
        spec = task_spec(
            own_id,
            plan,
            checked_params,
            named,
            created_at=now,
            secret=random[10:],
            pipeline=chosen.pipeline,
            labels=chosen.labels,
            priority=chosen.priority,
            idempotency_key=idempotency_key,
            deadline_sec=chosen.deadline_sec,
            trace=plugins.submission_trace(own_id, chosen.pipeline),
            rerun_of=None if rerun is None else rerun.task_id,
            flow_versions=versions,
        )
        if plugins.checks_submissions:
            await ask_plugins(plugins, spec, parsed)
        may_repeat = task_id is not None or idempotency_key is not None
        new = self.processor.submit(
            spec,
            parsed.source,
            certainly_new=not may_repeat
            and not any(starts_later(plan.nodes[root]) for root in plan.roots),
        )
        stored = await self._create(new)
        if may_repeat and not await self._is_new(stored, spec, parsed.source):
            return stored
        if plugins.observes_tasks:
            with use_trace(spec.trace):
                plugins.notify("flowkit_task_changed", before=None, after=task_view(new.task))
        plugins.measure(*measures_of_new(spec))
        await undo_cancellation()
        return stored

    async def _asked(
        self, graph: Any, flow: str | None, version: int | None
    ) -> tuple[TaskFlow | None, Any]:
        """Return the registered flow that a submission asks for, if any, and the graph to run.

        Raises:
            GraphError: it asks for no graph, or for two.
            FlowNotFound, CorruptRecord: the flow does not exist, or cannot be read.
        """
        if (graph is None) == (flow is None):
            raise GraphError([Fault(None, "a task needs exactly one of graph and flow")])
        if flow is not None:
            return await self.flows.chosen(flow, version)
        if version is not None:
            raise GraphError([Fault(None, "version has no effect without flow; remove it")])
        return None, graph

    async def _is_new(self, stored: str, spec: TaskSpec, graph: bytes) -> bool:
        """Return whether the task that is stored under this id or key is the one submitted now.

        Raises:
            TaskRefused: it is an earlier one with another graph or flow, or other params.
        """
        record = await self._load(stored)
        if record is None:
            return False  # it was purged meanwhile
        first = decode_submission(record)
        if first.secret == spec.secret:
            return True
        if (difference := first.difference(graph, spec.flow, spec.given_params)) is not None:
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
        """Store tasks and start them. Wait for an unavailable store up to ``PATIENCE_SEC``:
        repeating the call is harmless.
        """
        stored = await self.patiently(partial(self._stored, submissions))
        await self.dispatcher.submitted(dict(zip(stored, submissions, strict=True)))
        return stored

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a call that is harmless to repeat. Wait for an unavailable store up
        to ``PATIENCE_SEC``.
        """
        return await retry(
            call,
            on=lambda error: isinstance(error, StoreUnavailable),
            sleep=self.clock.sleep,
            backoff=Backoff(longest_sec=LONGEST_PAUSE_SEC),
            patience_sec=PATIENCE_SEC,
            monotonic=self.clock.monotonic,
        )

    async def _stored(self, submissions: list[Submission]) -> Sequence[str]:
        if self._life.state is not LifeState.OPEN:
            self._life.check_open()
        return await self.processor.create(submissions)

    # ------------------------------------------------------------ records and changes

    async def record(self, task_id: str, *, together: bool = False) -> TaskRecord:
        """Return the record of a task. Decoding it raises an error if it is damaged. ``together``
        with others who ask in the same turn of the event loop, it is read once.

        Raises:
            TaskNotFound: there is no such task.
            ValueError: the id is no text.
        """
        check_is_text(task_id, "task")
        record = await (self._load_together if together else self._load)(task_id)
        if record is None:
            raise TaskNotFound(task_id)
        return record

    def seen(self, record: TaskRecord) -> Task:
        """Return the task of a record, which is only read. Those who got the same record share it.

        Raises:
            CorruptRecord: the record is damaged.
        """
        known, task = self._seen
        if task is None or known is not record:
            task = decode_task(record, to_look_at=True)
            self._seen = record, task
        return task

    async def change(self, task_id: str, event: Event, read: TaskRecord | None = None) -> bool:
        """Apply a request to a task, store the outcome and start what follows from it. Return
        whether the request changed the task. ``read`` is its record, if the caller has just read
        it.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: the task cannot be read, or not be changed.
            RecordRefused, RecordTooLarge, PayloadError: the changed task cannot be stored.
            ValueError: the id is no text.
        """
        check_is_text(task_id, "task")
        outcome = await self._apply([task_id], event, {} if read is None else {task_id: read})
        if task_id in outcome.missing:
            decode_task(await self.record(task_id))
            raise TaskNotFound(task_id)
        if (error := outcome.quarantined.get(task_id)) is not None:
            if isinstance(error, FlowKitError):
                raise error
            raise CorruptRecord(
                f"task {task_id!r} cannot be changed: {error_text(error, most=400)}"
            ) from error
        await self.dispatcher.changed([task_id], outcome)
        return task_id not in outcome.unchanged

    async def change_all(self, event: Event, read: Mapping[str, TaskRecord]) -> Outcome:
        """Apply a request to all tasks of these records, as :meth:`change` does to one. The outcome
        names the tasks that could not be changed.
        """
        outcome = await self._apply(read, event, read)
        await self.dispatcher.changed(read, outcome)
        return outcome

    async def _apply(
        self, task_ids: Collection[str], event: Event, read: Mapping[str, TaskRecord]
    ) -> Outcome:
        return await self.processor.apply(
            {task_id: [event] for task_id in task_ids},
            whole=isinstance(event, RetryRequested),
            read=read,
        )

    async def _load_records(self, task_ids: list[str]) -> Sequence[TaskRecord | None]:
        found = await self.store.load(list(dict.fromkeys(task_ids)))
        return list(map(found.get, task_ids))

    async def _load_records_together(self, task_ids: list[str]) -> Sequence[TaskRecord | None]:
        # A store may answer without a pause. In it, the others ask, and get one record.
        await anyio.lowlevel.checkpoint()
        return await self._load_records(task_ids)


def new_lifecycle(owner: object) -> Lifecycle[Session]:
    """Return the life cycle of a client or coordinator."""
    return Lifecycle(
        f"the {type(owner).__name__}",
        remedy="enter it with 'async with', or await its start()",
        words=("not started", "stopped"),
    )


def engine_settings(cfg: CommonConfig) -> EngineSettings:
    """Return the engine's settings of a client: from a coordinator's configuration; from another
    one, only the limits. What is published is left to the coordinators.
    """
    limits = cfg.limits
    if not isinstance(cfg, CoordinatorConfig):
        return EngineSettings(
            max_map_items=limits.max_map_items,
            max_result_bytes=limits.max_result_bytes,
            segments=True,
            publishes=None,
        )
    return EngineSettings(
        max_map_items=limits.max_map_items,
        max_result_bytes=limits.max_result_bytes,
        max_in_flight=cfg.max_in_flight,
        lease_ttl_sec=cfg.lease_ttl_sec,
        worker_lost_sec=cfg.heartbeat_hard_sec,
        worker_suspect_sec=cfg.heartbeat_soft_sec,
        cancel_grace_sec=cfg.cancel_grace_sec,
        segments=cfg.segments != "off",
        publishes=None,
    )


def starts_later(node: NodeSpec) -> bool:
    """Return whether a coordinator evaluates an expression before a node starts."""
    return node.when is not None or node.map is not None


def check_is_text(value: object, of: str) -> None:
    """Check that the id of a task or a node is a text.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(value, str):
        raise ValueError(f"the id of a {of} is a text, not {value!r}")


def index_of(task: Task, node_id: str) -> int:
    """Return the index of a node.

    Raises:
        TaskNotFound: the task has no such node.
        ValueError: the id is no text.
    """
    check_is_text(node_id, "node")
    index = task.spec.plan.index.get(node_id)
    if index is None:
        raise no_such_node(task, node_id)
    return index


async def ask_plugins(plugins: Plugins, spec: TaskSpec, graph: Graph) -> None:
    """Ask the plugins whether they refuse a task.

    Raises:
        TaskRefused: one of them refuses it, or failed.
    """
    task = NewTask(
        spec.task_id,
        graph.to_dict(),
        spec.params,
        spec.pipeline,
        spec.labels,
        spec.priority,
        None if spec.flow is None else spec.flow.name,
        None if spec.flow is None else spec.flow.version,
    )
    try:
        answer = plugins.first("flowkit_before_submit", check=_checked_reason, task=task)
    except TaskRefused:
        raise
    except FlowKitError as error:
        raise TaskRefused(str(error)) from error
    finally:
        await undo_cancellation()
    if answer is not None:
        raise TaskRefused(f"plugin {answer.plugin!r} refused the task: {answer.value}")


def _checked_reason(answer: Any) -> str:
    if not isinstance(answer, str):
        raise TypeError(f"the reason for a refusal is a string, not {type(answer).__name__}")
    return answer
