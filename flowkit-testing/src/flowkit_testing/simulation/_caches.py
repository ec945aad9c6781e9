"""The rules of cached results, over all stored tasks, written without the engine."""

from collections.abc import Mapping
from typing import Any

from flowkit.task import ATTEMPTED, Mark, NodeRecord

Node = tuple[str, int]


class CacheLedger:
    """The nodes that compute results for cache keys, and the results that they had."""

    def __init__(self) -> None:
        self._computing: dict[str, set[Node]] = {}
        self._keys: dict[Node, str] = {}
        """Keys of the nodes that compute."""
        self._results: dict[str, list[Any]] = {}

    def fault(self, task_id: str, marks: str, nodes: Mapping[int, NodeRecord]) -> str | None:
        """Describe a result that several nodes compute at the same time, or that a node took
        although no node had it; return None if there is none. ``nodes`` are the changed records of
        a task.
        """
        for index, node in nodes.items():
            if (before := self._keys.pop((task_id, index), None)) is not None:
                self._computing[before].discard((task_id, index))
            if node.cache is None or not node.cache.key:
                continue
            key = node.cache.key
            mark, computing = ord(marks[index]), self._computing.setdefault(key, set())
            if node.cache.state == "held" and mark in ATTEMPTED:
                computing.add((task_id, index))
                self._keys[task_id, index] = key
                if len(computing) > 1:
                    return f"the result for {key!r} is computed by {sorted(computing)}"
            results = self._results.setdefault(key, [])
            if mark == Mark.FINISHED and not node.cached:
                results.append(node.result)
            elif mark == Mark.FINISHED and node.result not in results:
                return f"node {index} of {task_id!r} took {node.result!r}, which no node had"
        return None
