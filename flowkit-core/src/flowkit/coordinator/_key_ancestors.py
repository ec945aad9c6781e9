"""Ancestors of tasks: the nodes that run a task, and the tasks above it."""

from collections.abc import Sequence

from flowkit._records.task_records import decode_task
from flowkit._runtime.concurrency import Recent
from flowkit.coordinator._key_work import Ask
from flowkit.errors import CorruptRecord
from flowkit.protocols import Store
from flowkit.task import WHOLE_TASK, ParentNode, Task

MOST_KNOWN = 10_000

Above = tuple[str, int] | None
"""Node that runs a task, or None."""


class Ancestors:
    """Finds the nodes above the tasks whose nodes ask for keys."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._parents: Recent[str, Above] = Recent(MOST_KNOWN)

    def note(self, task: Task) -> None:
        """Note the node that runs a task."""
        if task.task_id not in self._parents:
            self._parents[task.task_id] = _node(task.spec.parent)

    async def resolve(self, asks: Sequence[Ask]) -> None:
        """Set the ancestors of claims."""
        of_nodes: dict[str, list[tuple[str, int]]] = {}
        for ask in asks:
            if ask.ancestors:
                continue
            task_id, node, _ = ask.candidate.claimant
            if task_id not in of_nodes:
                of_nodes[task_id] = [(task_id, WHOLE_TASK), *await self._above(task_id)]
            ask.ancestors = of_nodes[task_id][1:] if node == WHOLE_TASK else of_nodes[task_id]

    async def _above(self, task_id: str) -> list[tuple[str, int]]:
        found: list[tuple[str, int]] = []
        above = await self._parent(task_id)
        while above is not None:
            found += [above, (above[0], WHOLE_TASK)]
            above = await self._parent(above[0])
        return found

    async def _parent(self, task_id: str) -> Above:
        if task_id not in self._parents:
            record = (await self._store.load([task_id])).get(task_id)
            try:
                task = None if record is None else decode_task(record, to_look_at=True)
            except CorruptRecord:
                task = None
            self._parents[task_id] = None if task is None else _node(task.spec.parent)
        return self._parents[task_id]


def _node(parent: ParentNode | None) -> Above:
    return None if parent is None else (parent.task_id, parent.index)
