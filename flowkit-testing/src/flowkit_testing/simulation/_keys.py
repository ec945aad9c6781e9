"""The rule of concurrency keys, over all stored tasks, written without the engine."""

from collections.abc import Mapping

from flowkit.task import ATTEMPTED, WHOLE_TASK, NodeRecord, Task

Node = tuple[str, int]


class KeyLedger:
    """The nodes and tasks with a place of their own, and the limits that they allow."""

    def __init__(self) -> None:
        self._holders: dict[str, dict[Node, int]] = {}
        self._keys: dict[Node, str] = {}
        """Keys of the nodes and tasks that hold places."""

    def fault(self, task: Task, nodes: Mapping[int, NodeRecord]) -> str | None:
        """Describe a key that more nodes and tasks hold than the last of them allows; return None
        if there is none. ``nodes`` are the changed records of a task.
        """
        task_id, plan, marks = task.task_id, task.spec.plan, task.marks
        if task.key is not None and plan.key is not None:
            self._leave(task_id, WHOLE_TASK)
            if task.key.state == "held":
                self._hold(task_id, WHOLE_TASK, task.key.key, plan.key.limit)
        for index, node in nodes.items():
            if node.key is None:
                continue
            self._leave(task_id, index)
            spec = plan.nodes[index].key
            if spec is not None and node.key.state == "held" and marks[index] in ATTEMPTED:
                self._hold(task_id, index, node.key.key, spec.limit)
        for key, holders in self._holders.items():
            if len(holders) > max(holders.values(), default=0):
                return f"key {key!r} is held by {sorted(holders)}"
        return None

    def _hold(self, task_id: str, index: int, key: str, limit: int) -> None:
        self._holders.setdefault(key, {})[task_id, index] = limit
        self._keys[task_id, index] = key

    def _leave(self, task_id: str, index: int) -> None:
        """Note that a node or task has no place. Its next key may be another one, or unnamed."""
        if (before := self._keys.pop((task_id, index), None)) is not None:
            del self._holders[before][task_id, index]
