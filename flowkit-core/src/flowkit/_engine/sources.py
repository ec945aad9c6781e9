"""Sources of nodes: the nodes whose artifacts a node reads, perhaps before they have ended."""

from typing import Protocol

from flowkit.graph import Plan
from flowkit.task import ENDED, IN_FLIGHT, TaskSpec


class Marks(Protocol):
    """Marks of a task, stored or in transition."""

    @property
    def spec(self) -> TaskSpec: ...
    def mark(self, index: int) -> int: ...


def sources_progress(state: Marks, index: int) -> bool:
    """Return whether all nodes that a node reads from have ended or are in flight, and so on for
    the nodes that these read from.
    """
    plan = state.spec.plan
    ahead, seen = [index], {index}
    while ahead:
        reader = ahead.pop()
        if not _reads(plan, reader):
            continue
        for source in plan.sources[reader]:
            mark = state.mark(source)
            if mark in ENDED or source in seen:
                continue
            if mark not in IN_FLIGHT:
                return False
            seen.add(source)
            ahead.append(source)
    return True


def _reads(plan: Plan, index: int) -> bool:
    """Return whether the graph lets a node read the artifacts of other nodes."""
    node = plan.nodes[index]
    return node.io.input_adapter is not None or (
        node.map is None and any(edge.streams for edge in plan.parents[index])
    )
