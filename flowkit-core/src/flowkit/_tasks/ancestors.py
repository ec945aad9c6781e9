"""Ancestors of tasks: the nodes that run a task, and the tasks above it."""

from flowkit._records.task_records import decode_task
from flowkit._runtime.concurrency import Recent
from flowkit.errors import CorruptRecord
from flowkit.protocols import Store
from flowkit.task import WHOLE_TASK, ParentNode, Task

MOST_KNOWN = 10_000

Place = tuple[str, int]
"""Id of a task, and the index of a node or ``WHOLE_TASK``."""


class Ancestors:
    """Finds the nodes and tasks above tasks. The nodes of a task share the places of these."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parents: Recent[str, Place | None] = Recent(MOST_KNOWN)

    def note(self, task: Task) -> None:
        """Note the node that runs a task."""
        if task.task_id not in self._parents:
            self._parents[task.task_id] = _node(task.spec.parent)

    async def above(self, task_id: str) -> list[Place]:
        """Return the nodes that run a task or a task above it, and the tasks above it."""
        found: list[Place] = []
        above = await self._parent(task_id)
        while above is not None:
            found += [above, (above[0], WHOLE_TASK)]
            above = await self._parent(above[0])
        return found

    async def _parent(self, task_id: str) -> Place | None:
        if task_id not in self._parents:
            record = (await self._store.load([task_id])).get(task_id)
            try:
                task = None if record is None else decode_task(record, to_look_at=True)
            except CorruptRecord:
                task = None
            self._parents[task_id] = None if task is None else _node(task.spec.parent)
        return self._parents[task_id]


def _node(parent: ParentNode | None) -> Place | None:
    return None if parent is None else (parent.task_id, parent.index)
