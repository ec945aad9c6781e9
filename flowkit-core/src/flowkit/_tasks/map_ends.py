"""Ends of the children of maps, in the order in which the children are undone."""

from array import array
from bisect import bisect_left
from itertools import islice

import anyio.lowlevel

from flowkit._engine import EndsRead, ReadEnds, undone_node
from flowkit._records.history import HistoryReader
from flowkit._records.queries import records_of
from flowkit.protocols import Store
from flowkit.task import Mark, NodeStatus, Task

ENDS_AT_ONCE = 100
"""Children whose undos are queued at a time. Each queued one has a record."""
CHANGES_A_TURN = 1_000
"""Changes of the history that are read before other coroutines run."""
_NUMBERS = 32
"""Bits of the number of a child in an entry of the order."""


async def ends_read(store: Store, task: Task, effect: ReadEnds) -> EndsRead | None:
    """Return which children finished last among those whose undo is not queued; None if the undo
    of their map has ended.

    Raises:
        CorruptRecord: the history is damaged.
        StoreError: the history could not be read.
    """
    index = effect.index
    if task.marks[index] != Mark.MAPPING:
        return None
    first = task.maps[index].blocks[0].first
    order = task.end_orders.get(first)
    if order is None:
        order = task.end_orders[first] = await _order_of_ends(store, task, index)
    known = bisect_left(order, (effect.before + 1) << _NUMBERS)
    waiting = (
        (number, entry >> _NUMBERS)
        for entry in reversed(order[:known])
        if task.marks[first + (number := entry & (1 << _NUMBERS) - 1)] == Mark.WAITING
    )
    children = list(islice(waiting, ENDS_AT_ONCE))
    # The undos see the results of the children, which are cached with one read.
    undone = {number: undone_node(task, first + number) for number, _ in children}
    places = [place for place in undone.values() if place is not None]
    records = await records_of(store, task, places)
    cached = {
        number
        for number, place in undone.items()
        if place is not None and place in records and records[place].cached
    }
    after = max(children[-1][1] - 1, 0) if children else 0
    return EndsRead(index, effect.attempt, effect.before, after, children, cached)


async def _order_of_ends(store: Store, task: Task, index: int) -> "array[int]":
    """Return the finished children of a map in the order of their ends: the number of the change
    with which each finished, followed by the number of the child. ``index`` is the undo of the map.
    """
    ends = task.spec.plan.ends
    assert ends is not None
    children = task.maps[ends.undone_by[index]].children()
    numbers = {
        child: number for number, child in enumerate(children) if task.marks[child] == Mark.FINISHED
    }
    last = dict.fromkeys(numbers, 0)
    record = (await store.load([task.task_id]))[task.task_id]
    async for seq, (_, child, kind, status, _) in HistoryReader(store).read(record, task.seq):
        if child in last and kind == "status" and status == NodeStatus.FINISHED:
            last[child] = seq
        if seq % CHANGES_A_TURN == 0:
            await anyio.lowlevel.checkpoint()
    return array("Q", sorted((seq << _NUMBERS) + numbers[child] for child, seq in last.items()))
