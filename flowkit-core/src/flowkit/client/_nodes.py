"""Nodes of tasks: one of them, and pages of them."""

import re
from dataclasses import dataclass

from flowkit._records.queries import records_of
from flowkit._records.task_records import decode_task
from flowkit._tasks.map_children import with_maps
from flowkit._tasks.views import node_view, shown_status
from flowkit.client._session import Session, index_of
from flowkit.graph._expanded_plan import has_children
from flowkit.protocols import TaskRecord
from flowkit.task import STATUS_OF_MARK, NodeRecord, NodeStatus, NodeView, Page, Task


@dataclass(frozen=True, slots=True)
class StoredNode:
    """A node of a task as it is stored."""

    stored: TaskRecord
    task: Task
    index: int
    record: NodeRecord

    @property
    def mark(self) -> int:
        return self.task.marks[self.index]

    @property
    def name(self) -> str:
        """The node and its task, for messages."""
        return f"node {self.task.spec.plan.ids[self.index]!r} of task {self.task.task_id!r}"


async def read_node(session: Session, task_id: str, node_id: str) -> StoredNode:
    """Return a node of a task.

    Raises:
        TaskNotFound: there is no such task, or it has no such node.
        CorruptRecord: the task is damaged.
    """
    stored = await session.record(task_id)
    task = decode_task(stored)
    index = index_of(task, node_id)
    record = (await records_of(session.store, task, [index])).get(index, NodeRecord())
    return StoredNode(stored, task, index, record)


async def get_node(session: Session, task_id: str, node_id: str) -> NodeView:
    """Return a node of a task as it is now."""
    task = decode_task(await session.record(task_id), to_look_at=True)
    index = index_of(task, node_id)
    records = await records_of(session.store, task, with_maps(task, [index]))
    return node_view(task, index, records=records)


async def list_nodes(
    session: Session,
    task_id: str,
    *,
    map_id: str | None,
    status: str | None,
    limit: int,
    after: str | None,
) -> Page[NodeView]:
    """Return a page of the nodes of a task, or of the children of one map."""
    if limit < 1:
        raise ValueError(f"limit is at least 1, not {limit}")
    wanted = None if status is None else NodeStatus(status)
    task = decode_task(await session.record(task_id), to_look_at=True)
    ranges = current_nodes(task) if map_id is None else _children(task, map_id)
    start = page_position(after)
    found: list[int] = []
    for nodes in ranges:
        if nodes.stop > start and len(found) <= limit:
            first = max(nodes.start, start)
            found += _matching(task, range(first, nodes.stop), wanted, limit + 1 - len(found))
    page, more = found[:limit], found[limit:]
    records = await records_of(session.store, task, with_maps(task, page))
    return Page(
        [node_view(task, index, records=records) for index in page], str(more[0]) if more else None
    )


def current_nodes(task: Task) -> list[range]:
    """Return all nodes of a task in their order, without children of earlier runs of maps."""
    places = [place for state in task.maps.values() for place in state.places()]
    return [range(task.spec.plan.size), *sorted(places, key=lambda place: place.start)]


def _children(task: Task, map_id: str) -> list[range]:
    """Return the children of a map, or the shards of a node; none if there are none yet.

    Raises:
        TaskNotFound: the task has no such node.
        ValueError: the node is neither a map nor sharded.
    """
    index = index_of(task, map_id)
    if not has_children(task.spec.plan, index):
        raise ValueError(f"node {map_id!r} is not a map, and has no shards")
    state = task.maps.get(index)
    return [] if state is None else state.places()


def page_position(after: str | None) -> int:
    """Return the position that the cursor of a page names.

    Raises:
        ValueError: it names none.
    """
    if after is None:
        return 0
    if not re.fullmatch("[0-9]{1,12}", after, re.ASCII):
        raise ValueError(f"invalid page cursor {after!r}; use the next of a page")
    return int(after)


def _matching(task: Task, nodes: range, wanted: NodeStatus | None, limit: int) -> list[int]:
    """Return the first of these nodes that have a status."""
    if wanted is None:
        return list(nodes[:limit])
    marks = bytes(
        mark for mark in STATUS_OF_MARK if shown_status(task, nodes.start, mark) is wanted
    )
    if not marks:
        return []
    found = []
    for match in re.finditer(b"[%b]" % re.escape(marks), task.marks[nodes.start : nodes.stop]):
        found.append(nodes.start + match.start())
        if len(found) == limit:
            break
    return found
