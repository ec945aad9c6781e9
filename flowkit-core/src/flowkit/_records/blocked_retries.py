"""Retries of nodes that cannot run without a failed node above them."""

from collections.abc import Collection
from typing import NamedTuple

from flowkit._engine import blocked_nodes, records_to_load
from flowkit._records.queries import records_of
from flowkit.protocols import Store
from flowkit.task import Mark, Task


class Block(NamedTuple):
    """Reason why a node cannot run again."""

    above: int
    """The node that it needs, and that does not run again."""
    reason: str


async def blocked_retries(store: Store, task: Task, nodes: Collection[int]) -> dict[int, Block]:
    """Return those of these nodes that would not run if all of them were retried.

    The records that such a retry needs are added to the task.
    """
    task.records.update(await records_of(store, task, records_to_load(task, nodes)))
    return {
        index: Block(above, _reason(task, index, above))
        for index, above in blocked_nodes(task, nodes).items()
    }


def _reason(task: Task, index: int, above: int) -> str:
    ids = task.spec.plan.ids
    if task.marks[above] == Mark.FINISHED:
        return f"node {ids[index]!r} is on a branch that node {ids[above]!r} did not take"
    why = "was skipped" if task.marks[above] == Mark.SKIPPED else "did not finish"
    return f"node {ids[index]!r} cannot run without node {ids[above]!r}, which {why}"
