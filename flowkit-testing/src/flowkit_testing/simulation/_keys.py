"""The rule of concurrency keys, over all stored tasks, written without the engine."""

from collections.abc import Mapping

from flowkit.task import ATTEMPTED, WHOLE_TASK, NodeRecord, Task

Node = tuple[str, int]


class KeyLedger:
    """The nodes and tasks with a place of their own, and the limits that they allow."""

    def __init__(self) -> None:
        self._holders: dict[str, dict[Node, int]] = {}

    def fault(self, task: Task, nodes: Mapping[int, NodeRecord]) -> str | None:
        """Describe a key that more nodes and tasks hold than the last of them allows; return None
        if there is none. ``nodes`` are the changed records of a task.
        """
        task_id, plan, marks = task.task_id, task.spec.plan, task.marks
        if task.key is not None and plan.key is not None:
            holders = self._holders.setdefault(task.key.key, {})
            holders.pop((task_id, WHOLE_TASK), None)
            if task.key.state == "held":
                holders[task_id, WHOLE_TASK] = plan.key.limit
        for index, node in nodes.items():
            if node.key is None:
                continue
            holders = self._holders.setdefault(node.key.key, {})
            holders.pop((task_id, index), None)
            spec = plan.nodes[index].key
            if spec is not None and node.key.state == "held" and marks[index] in ATTEMPTED:
                holders[task_id, index] = spec.limit
        for key, holders in self._holders.items():
            if len(holders) > max(holders.values(), default=0):
                return f"key {key!r} is held by {sorted(holders)}"
        return None
