"""Cache of the tasks that an event processor works on."""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from flowkit._engine import DeferrableEvent
from flowkit._records.record_parts import RecordWriter
from flowkit.task import Task

MAX_REMEMBERED = 50_000
"""Evicted tasks of which events that are not stored are remembered."""


@dataclass(slots=True)
class CachedTask:
    """A task in memory: its last commit, and the deferred events that were applied since then."""

    task: Task
    writer: RecordWriter
    deferred: list[DeferrableEvent] = field(default_factory=list)
    """Events that were applied and will be stored with the next commit."""


class TaskCache:
    """Tasks in memory, up to ``max_nodes`` nodes in all. The least recently used are evicted first.

    Deferred events of evicted tasks are remembered, so that they can be applied when the task is
    loaded again.
    """

    def __init__(self, max_nodes: int) -> None:
        self.max_nodes = max_nodes
        self._tasks: OrderedDict[str, CachedTask] = OrderedDict()
        self._nodes = 0
        self._deferred: OrderedDict[str, list[DeferrableEvent]] = OrderedDict()

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
        self._tasks[cached.task.task_id] = cached
        self._nodes += len(cached.task.marks)

    def evict(self, task_id: str) -> None:
        """Drop a task from memory."""
        cached = self._tasks.pop(task_id, None)
        if cached is None:
            return
        self._nodes -= len(cached.task.marks)
        if cached.deferred and not cached.task.terminal:
            self._deferred[task_id] = cached.deferred
            if len(self._deferred) > MAX_REMEMBERED:
                self._deferred.popitem(last=False)

    def evict_excess(self) -> None:
        """Evict least recently used tasks above the limit."""
        while self._nodes > self.max_nodes and self._tasks:
            self.evict(next(iter(self._tasks)))

    def pop_deferred(self, task_id: str) -> Sequence[DeferrableEvent]:
        """Return the deferred events that were remembered when a task was evicted, and forget
        them.
        """
        return self._deferred.pop(task_id, ())
