"""Retries of nodes that cannot run without a failed node above them."""

from collections.abc import Collection
from typing import NamedTuple

from flowkit._engine import blocked_nodes, records_to_load
from flowkit._records.queries import records_of
from flowkit.protocols import Store
from flowkit.task import Task


class Block(NamedTuple):
    """Reason why a node cannot run again."""

    above: int
    """The failed or cancelled node that it needs."""
    reason: str


async def blocked_retries(store: Store, task: Task, nodes: Collection[int]) -> dict[int, Block]:
    """Return those of these nodes that would not run if all of them were retried.

    The records that such a retry needs are added to the task.
    """
    task.records.update(await records_of(store, task, records_to_load(task, nodes)))
    ids = task.spec.plan.ids
    return {
        index: Block(
            above,
            f"node {ids[index]!r} cannot run without node {ids[above]!r}, which did not finish",
        )
        for index, above in blocked_nodes(task, nodes).items()
    }
