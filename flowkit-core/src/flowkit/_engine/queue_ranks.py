"""Ranks of nodes in the queue of ready nodes."""

from collections.abc import Sequence
from heapq import heappop, heappush

from flowkit.graph import Plan
from flowkit.task import NodeRecord


def queue_rank(plan: Plan, index: int, record: NodeRecord | None) -> int:
    """Return the rank of a ready node or a map in the queue: its priority. Of undos, the one whose
    node finished last is first.
    """
    if plan.ends is None or record is None:
        return plan.nodes[index].priority
    return record.after or plan.nodes[index].priority


def first_of(heap: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """Return the first entries of a heap in their order, and leave the heap as it is. The time is
    proportional to their number, not to the size of the heap.
    """
    found: list[tuple[int, int]] = []
    front = [(heap[0], 0)] if heap else []
    while front and len(found) < count:
        entry, place = heappop(front)
        found.append(entry)
        for below in range(2 * place + 1, min(2 * place + 3, len(heap))):
            heappush(front, (heap[below], below))
    return found
