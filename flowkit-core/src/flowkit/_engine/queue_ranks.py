"""Ranks of nodes in the queue of ready nodes."""

from flowkit.graph import Plan
from flowkit.task import NodeRecord


def queue_rank(plan: Plan, index: int, record: NodeRecord | None) -> int:
    """Return the rank of a ready node or a map in the queue: its priority. Of undos, the one whose
    node finished last is first.
    """
    if plan.ends is None or record is None:
        return plan.nodes[index].priority
    return record.after or plan.nodes[index].priority
