"""Tasks in memory: the updates that events make, and the cache."""

from collections import OrderedDict, deque
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast, get_args

from flowkit._dead_letters.letters import collect_letters
from flowkit._engine import (
    CallFunction,
    ClientEvent,
    CollectMap,
    ConditionDelayed,
    DeferrableEvent,
    Effect,
    EngineSettings,
    EvaluateCondition,
    EvaluateOutput,
    Event,
    OpenMap,
    OutputDelayed,
    PublishChanges,
    ReadArtifacts,
    advance,
    awaits_output,
    is_delayed,
)
from flowkit._records.record_parts import RecordWriter
from flowkit._runtime.concurrency import Recent
from flowkit._tasks.child_states import child_states
from flowkit._tasks.conditions import Allowance, evaluate_at_once
from flowkit._tasks.map_artifacts import new_items
from flowkit._tasks.maps import map_event_at_once
from flowkit._tasks.outputs import output_at_once
from flowkit._tasks.task_logs import NodeTimeout, timeouts_of
from flowkit._tasks.task_measures import measures_of
from flowkit._tasks.views import Notice, Observers
from flowkit.measures import Measure
from flowkit.messages import NodeSucceeded
from flowkit.protocols import Store
from flowkit.task import DeadLetter, Mark, Task, TaskStatus

CLIENT_EVENTS = frozenset(get_args(ClientEvent))
EVALUATIONS = (EvaluateCondition, EvaluateOutput)

MAX_REMEMBERED = 50_000
"""Evicted tasks of which events that are not stored are remembered."""


MAX_SETTLED_NODES = 10_000
"""Nodes of all settled tasks in memory together. A task of one node takes about 3 KB."""
CHILDREN_A_NODE = 50
"""Children of a map that take as much memory as one node of a graph."""
EarlyEffect = EvaluateCondition | EvaluateOutput | OpenMap | ReadArtifacts | CollectMap
"""Effects that are carried out before the commit, if they do not take long."""
_EARLY = frozenset(get_args(EarlyEffect))
_NEED_DURABLE = frozenset({CallFunction, PublishChanges})
"""Effects that other programs may see."""


@dataclass(slots=True)
class CachedTask:
    """A task in memory: its last commit, and the deferred events that were applied since then."""

    task: Task
    writer: RecordWriter
    deferred: list[DeferrableEvent] = field(default_factory=list)
    """Events that were applied and will be stored with the next commit."""
    restored: bool = False
    """No other process has left effects to be carried out, as far as this one knows."""
    size: int = field(init=False)
    """Number of nodes when the task was cached. Children of maps take little memory."""

    def __post_init__(self) -> None:
        size = self.task.spec.plan.size
        self.size = size + (len(self.task.marks) - size) // CHILDREN_A_NODE


class TaskEffects:
    """Effects of a task's events, to be carried out after the commit."""

    __slots__ = ("cached", "children", "effects", "has_triggers", "task")

    def __init__(
        self, cached: CachedTask, effects: Sequence[Effect], has_triggers: bool = False
    ) -> None:
        self.cached = cached
        self.effects = effects
        self.task = cached.task
        """The task as of the commit, or later."""
        self.children = child_states(self.task, effects) if self.task.spec.plan.nested else ()
        """Nodes whose child tasks are to follow, as of the commit."""
        self.has_triggers = has_triggers
        """Triggers are to handle the end of the task."""


@dataclass(slots=True)
class TaskUpdate:
    """Events of one task on their way through the engine, and what follows from them.

    Every event of every task goes through :meth:`apply`.
    """

    cached: CachedTask
    now: float
    settings: EngineSettings
    observers: Observers | None = None
    """Plugins to notify after the commit; None if the update is not to be reported."""
    changed: bool = False
    """An event changed the task."""
    effects: list[Effect] = field(default_factory=list)
    evaluations: deque[EarlyEffect] = field(default_factory=deque)
    """Expressions to evaluate before the commit."""
    notices: list[Notice] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    parked: list[DeadLetter] = field(default_factory=list)
    """Dead letters to store before the commit."""
    dropped: list[str] = field(default_factory=list)
    """Ids of dead letters to drop after the commit."""
    timeouts: list[NodeTimeout] = field(default_factory=list)
    """Nodes that have exceeded a time limit, to be logged after the commit."""

    def add_effects(self, effects: Sequence[Effect]) -> None:
        """Add effects, and keep evaluations for :meth:`evaluate`."""
        for effect in effects:
            if effect.__class__ in _EARLY:
                self.evaluations.append(cast("EarlyEffect", effect))
            else:
                self.effects.append(effect)

    def apply(self, event: Event) -> None:
        """Advance the task by an event, and collect what follows from it."""
        cached = self.cached
        step = advance(cached.task, event, now=self.now, settings=self.settings)
        if step.effects:
            self.add_effects(step.effects)
        if step.ignored:
            return
        if self.observers is not None:
            self.notices += self.observers.notices(step)
            if self.observers.measuring:
                self.measures += measures_of(step)
        step.apply()
        self.timeouts += timeouts_of(step)
        if step.letters:
            collect_letters(step, self.parked, self.dropped)
        cached.writer.add(step)
        self.changed = True

    def must_be_durable(self, events: Collection[Event]) -> bool:
        """Return whether the commit must survive a power failure before anything follows from it.

        Commands need no durable commit: before a worker runs a handler, it claims the attempt by a
        durable write to the same store, which makes all earlier commits durable. A node of a
        segment has no claim, and the report that starts it is acknowledged after this commit.
        """
        return bool(
            self.cached.task.terminal
            or self.notices
            or self.parked
            or self.dropped
            or any(_needs_durable(event) for event in events)
            or any(effect.__class__ in _NEED_DURABLE for effect in self.effects)
        )

    async def evaluate(self, store: Store) -> None:
        """Evaluate the conditions, maps and the output that are due. Those that take long become
        effects.

        Raises:
            StoreError: the results that an expression reads could not be loaded.
        """
        allowance = Allowance()
        while self.evaluations:
            evaluation = self.evaluations.popleft()
            if isinstance(evaluation, EvaluateOutput):
                done = await self._evaluate_output(store, allowance)
            elif isinstance(evaluation, EvaluateCondition):
                done = await self._evaluate_condition(store, evaluation.index, allowance)
            elif isinstance(evaluation, ReadArtifacts):
                done = await self._read_artifacts(store, evaluation)
            else:
                done = await self._evaluate_map(store, evaluation, allowance)
            if not done:
                self.effects.append(evaluation)

    async def _evaluate_condition(self, store: Store, index: int, allowance: Allowance) -> bool:
        """Evaluate a condition; return False if it is delayed."""
        task = self.cached.task
        if is_delayed(task.records.get(index)):
            return False
        outcome = await evaluate_at_once(store, task, index, allowance)
        self.apply(outcome)
        return not isinstance(outcome, ConditionDelayed)

    async def _evaluate_map(
        self, store: Store, effect: OpenMap | CollectMap, allowance: Allowance
    ) -> bool:
        """Evaluate the items of a map or collect its results; return False if it takes long."""
        event = await map_event_at_once(store, self.cached.task, effect, allowance, self.settings)
        if event is not None:
            self.apply(event)
        return event is not None

    async def _read_artifacts(self, store: Store, effect: ReadArtifacts) -> bool:
        """Read new artifacts for a map; return False if there may be many."""
        if effect.later:
            return False
        event = await new_items(store, self.cached.task, effect, self.settings)
        if event is not None:
            self.apply(event)
        return True

    async def _evaluate_output(self, store: Store, allowance: Allowance) -> bool:
        """Evaluate the output if the task still waits for it; return False if it is delayed."""
        task = self.cached.task
        if not awaits_output(task):
            return True
        if task.output is not None:
            return False
        most = self.settings.max_result_bytes
        outcome = await output_at_once(store, task, allowance, max_bytes=most)
        self.apply(outcome)
        return not isinstance(outcome, OutputDelayed)


def _needs_durable(event: Event) -> bool:
    """Return whether another program relies on an event that is taken in."""
    if isinstance(event, NodeSucceeded):
        return event.next is not None
    return event.__class__ in CLIENT_EVENTS


class TaskCache:
    """Tasks in memory, up to ``max_nodes`` nodes in all. The least recently used are evicted first.

    Deferred events of evicted tasks are remembered, so that they can be applied when the task is
    loaded again.
    """

    def __init__(self, max_nodes: int) -> None:
        self.max_nodes = max_nodes
        self._tasks: OrderedDict[str, CachedTask] = OrderedDict()
        self._nodes = 0
        self._deferred: Recent[str, list[DeferrableEvent]] = Recent(MAX_REMEMBERED)

    def all(self) -> Collection[CachedTask]:
        """Return all cached tasks."""
        return self._tasks.values()

    def find(self, task_ids: Iterable[str]) -> list[CachedTask]:
        """Return those of these tasks that are cached."""
        return [self._tasks[task_id] for task_id in task_ids if task_id in self._tasks]

    def get(self, task_id: str) -> CachedTask | None:
        """Return a task, None if it is not cached."""
        return self._tasks.get(task_id)

    def use(self, task_id: str) -> CachedTask | None:
        """Return a task as :meth:`get` does, and mark it as the most recently used one."""
        cached = self._tasks.get(task_id)
        if cached is not None:
            self._tasks.move_to_end(task_id)
        return cached

    def add(self, cached: CachedTask) -> None:
        """Cache a task that was loaded or created."""
        self._tasks[cached.task.spec.task_id] = cached
        self._nodes += cached.size

    def evict(self, *task_ids: str) -> None:
        """Drop tasks from memory."""
        for task_id in task_ids:
            cached = self._tasks.pop(task_id, None)
            if cached is None:
                continue
            self._nodes -= cached.size
            if cached.deferred and not cached.task.terminal:
                self._deferred[task_id] = cached.deferred

    def evict_excess(self) -> None:
        """Evict least recently used tasks above the limit."""
        while self._nodes > self.max_nodes and self._tasks:
            self.evict(next(iter(self._tasks)))

    def pop_deferred(self, task_id: str) -> Sequence[DeferrableEvent]:
        """Return the deferred events that were remembered when a task was evicted, and forget
        them.
        """
        return self._deferred.pop(task_id, ())


class SettledTasks:
    """Tasks that ended a moment ago and cannot run again, for callers in this process that wait
    for them: these need not read the records from the store.

    A failed or cancelled task can be retried, and a skipped batch can be redriven. Another process
    may do so without notice, so such tasks are not kept.
    """

    def __init__(self, *, keep_sec: float, max_nodes: int = MAX_SETTLED_NODES) -> None:
        """``keep_sec`` is the time since the end of a task, after which it may be purged."""
        self._keep_sec = keep_sec
        self._max_nodes = max_nodes
        self._tasks: OrderedDict[str, Task] = OrderedDict()
        self._nodes = 0

    def add(self, task: Task) -> None:
        """Keep a task that has ended, if it cannot run again."""
        if not self._keep_sec or not _is_settled(task):
            return
        self.forget(task.task_id)
        self._tasks[task.task_id] = task
        self._nodes += len(task.marks)
        while self._nodes > self._max_nodes:
            self.forget(next(iter(self._tasks)))

    def pop(self, task_id: str, now: float) -> Task | None:
        """Return a task that is kept, and forget it, so that the caller may change its values."""
        task = self.forget(task_id)
        if task is None or task.finished_at is None or now - task.finished_at >= self._keep_sec:
            return None
        return task

    def forget(self, task_id: str) -> Task | None:
        """Forget a task, and return it if it was kept."""
        task = self._tasks.pop(task_id, None)
        if task is not None:
            self._nodes -= len(task.marks)
        return task


def _is_settled(task: Task) -> bool:
    """Return whether a task cannot run again: all its nodes have finished and skipped no batch.
    Tasks with nodes in the archive are left out.
    """
    return (
        task.status is TaskStatus.FINISHED
        and len(task.records) == len(task.marks) == task.marks.count(Mark.FINISHED)
        and not any(record.skipped for record in task.records.values())
    )
