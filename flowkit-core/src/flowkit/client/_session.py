"""The session of an open client or coordinator: what its verbs share."""

from collections.abc import Sequence
from typing import Protocol

from flowkit._engine import EngineSettings, Event, RetryRequested
from flowkit._records.record_parts import damaged
from flowkit._records.task_records import decode_task
from flowkit._runtime.backoff import Backoff, retry
from flowkit._runtime.bus_connection import BusConnection
from flowkit._runtime.call_batching import Gathered
from flowkit._runtime.lifecycle import Lifecycle
from flowkit._tasks.event_processor import LONGEST_PAUSE_SEC, EventProcessor, Outcome
from flowkit._tasks.submission import Submission
from flowkit._user_code.containment import error_text
from flowkit.config import CommonConfig, CoordinatorConfig
from flowkit.errors import CorruptRecord, FlowKitError, StoreUnavailable, TaskNotFound
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Store, TaskRecord
from flowkit.task import Task, TaskSpec

PATIENCE_SEC = 10.0
"""Longest wait of a verb for an unavailable store before it raises."""


class Dispatcher(Protocol):
    """Starts the work that follows from a submission or a change."""

    async def submitted(self, submissions: Sequence[Submission], stored: Sequence[str]) -> None:
        """Start new tasks. ``stored`` are their ids: that of an earlier task where a submission
        repeats it.
        """

    async def changed(self, task_id: str, outcome: Outcome) -> None:
        """Carry out the effects of an event that was applied to a task."""


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
        self._processor = processor
        self._dispatcher = dispatcher
        self._life = life
        self.create = Gathered(self._create_records)
        """Store a new task, together with those that are submitted at the same time, and return its
        id.
        """
        self.load = Gathered(self._load_records)
        """Load the record of a task, together with others; None if there is none."""

    @property
    def store(self) -> Store:
        """The store.

        Raises:
            NotRunning: the client or coordinator was stopped since the verb began.
        """
        self._life.check_open()
        return self._store

    def submission(self, spec: TaskSpec, graph: Graph, *, certainly_new: bool) -> Submission:
        """Return a new task after its first event."""
        return self._processor.submit(spec, graph, certainly_new=certainly_new)

    async def record(self, task_id: str) -> TaskRecord:
        """Return the record of a task.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: the record is damaged.
        """
        record = await self.load(task_id)
        if record is None:
            raise TaskNotFound(task_id)
        if record.fault is not None:
            raise damaged(record)
        return record

    async def change(self, task_id: str, event: Event) -> None:
        """Apply a request to a task, store the outcome and start what follows from it.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: the task cannot be read, or not be changed.
            RecordRefused, RecordTooLarge, PayloadError: the changed task cannot be stored.
        """
        await self._dispatcher.changed(task_id, await self._apply(task_id, event))

    async def _apply(self, task_id: str, event: Event) -> Outcome:
        outcome = await self._processor.apply(
            {task_id: [event]}, whole=isinstance(event, RetryRequested)
        )
        if task_id in outcome.missing:
            decode_task(await self.record(task_id))
            raise TaskNotFound(task_id)
        if (error := outcome.quarantined.get(task_id)) is not None:
            if isinstance(error, FlowKitError):
                raise error
            raise CorruptRecord(
                f"task {task_id!r} cannot be changed: {error_text(error, most=400)}"
            ) from error
        return outcome

    async def _create_records(self, submissions: list[Submission]) -> Sequence[str]:
        """Store tasks and start them. Wait for an unavailable store up to ``PATIENCE_SEC``:
        repeating the call is harmless.
        """
        stored = await retry(
            lambda: self._stored(submissions),
            on=lambda error: isinstance(error, StoreUnavailable),
            sleep=self.clock.sleep,
            backoff=Backoff(longest_sec=LONGEST_PAUSE_SEC),
            patience_sec=PATIENCE_SEC,
        )
        await self._dispatcher.submitted(submissions, stored)
        return stored

    async def _stored(self, submissions: list[Submission]) -> Sequence[str]:
        self._life.check_open()
        return await self._processor.create(submissions)

    async def _load_records(self, task_ids: list[str]) -> Sequence[TaskRecord | None]:
        found = await self.store.load(task_ids)
        return [found.get(task_id) for task_id in task_ids]


def new_lifecycle(owner: object) -> Lifecycle[Session]:
    """Return the life cycle of a client or coordinator."""
    return Lifecycle(
        f"the {type(owner).__name__}",
        remedy="enter it with 'async with', or await its start()",
        words=("not started", "stopped"),
    )


def engine_settings(cfg: CommonConfig) -> EngineSettings:
    """Return the engine's settings from a coordinator's configuration; the defaults for another
    configuration.
    """
    if not isinstance(cfg, CoordinatorConfig):
        return EngineSettings()
    return EngineSettings(
        max_in_flight=cfg.max_in_flight,
        lease_ttl_sec=cfg.lease_ttl_sec,
        worker_lost_sec=cfg.heartbeat_hard_sec,
        worker_suspect_sec=cfg.heartbeat_soft_sec,
        cancel_grace_sec=cfg.cancel_grace_sec,
    )


def index_of(task: Task, node_id: str) -> int:
    """Return the index of a node.

    Raises:
        TaskNotFound: the task has no such node.
    """
    index = task.spec.plan.index.get(node_id)
    if index is None:
        raise TaskNotFound(task.task_id, node_id=node_id)
    return index
