"""A task with its child tasks."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from flowkit.client import Client
from flowkit.errors import TaskNotFound
from flowkit.graph._expanded_plan import split_child_id
from flowkit.task import NodeView, TaskView

MOST_OF_A_MAP = 20
"""Children of a map whose tasks are in a tree: first those that have not finished."""
MOST_TASKS = 500
"""Tasks in a tree."""


@dataclass(frozen=True, slots=True)
class TaskBranch:
    """Task in a tree of tasks."""

    view: TaskView
    omitted: int = 0
    """Number of its child tasks that the tree leaves out."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the view, and the number of child tasks that are left out."""
        return {**dict(self.view), "omitted_child_tasks": self.omitted}


async def task_branches(client: Client, view: TaskView) -> list[TaskBranch]:
    """Return a task and its child tasks, each before its own child tasks.

    Of maps with many children, loops with many rounds, and very many tasks, some are left out. A
    child task that is not created yet, or was deleted, is left out as well.
    """
    branches: list[TaskBranch] = []
    waiting = [view]
    while waiting:
        view = waiting.pop()
        nodes = [node for node in view.nodes.values() if node.child_task_id is not None]
        places = MOST_TASKS - len(branches) - len(waiting) - 1
        some = _some_of_each_map(nodes, view)
        chosen = [child_id for node in some for child_id in _child_ids(node)][: max(places, 0)]
        known = sum(max(node.rounds, default=0) + 1 for node in nodes)
        branches.append(TaskBranch(view, known - len(chosen)))
        children = []
        for child_id in chosen:
            try:
                child = await client.get_task(child_id)
            except TaskNotFound:
                continue
            if child.parent == view.id:
                children.append(child)
        waiting += reversed(children)
    return branches


def _some_of_each_map(nodes: Iterable[NodeView], view: TaskView) -> list[NodeView]:
    """Return those of these nodes of a task that are no children of maps, and some children of each
    map, in order.
    """
    found: Counter[str] = Counter()
    chosen = set[str]()
    for node in sorted(nodes, key=lambda node: node.status == "finished"):
        owner = _map_of(node, view)
        found[owner] += 1
        if owner == "" or found[owner] <= MOST_OF_A_MAP:
            chosen.add(node.node_id)
    return [node for node in nodes if node.node_id in chosen]


def _map_of(node: NodeView, view: TaskView) -> str:
    """Return the map of which a node of a task is a child, or an empty text."""
    owner, _ = split_child_id(node.node_id)
    return owner if owner != node.node_id and owner in view.nodes else ""


def _child_ids(node: NodeView) -> list[str]:
    """Return the child tasks of a node: in a loop, those of its last rounds."""
    if node.rounds:
        return list(node.rounds.values())
    return [] if node.child_task_id is None else [node.child_task_id]


def nodes_in_order(branches: Iterable[TaskBranch]) -> Iterator[tuple[str, NodeView]]:
    """Yield the nodes of a task with their names, indented by their levels. The children of a map
    follow the map, and the nodes of a child task the node that runs it, round by round in a loop.
    """
    views = {branch.view.id: branch.view for branch in branches}
    yield from _nodes_of(next(iter(views.values())), views, 0, "")


def _nodes_of(
    view: TaskView, views: Mapping[str, TaskView], depth: int, note: str
) -> Iterator[tuple[str, NodeView]]:
    below = defaultdict[str, list[NodeView]](list)
    for node in view.nodes.values():
        below[_map_of(node, view)].append(node)
    for node in below[""]:
        yield from _with_child_tasks(node, views, depth, note)
        for child in below[node.node_id]:
            yield from _with_child_tasks(child, views, depth + 1, note)


def _with_child_tasks(
    node: NodeView, views: Mapping[str, TaskView], depth: int, note: str
) -> Iterator[tuple[str, NodeView]]:
    yield f"{'  ' * depth}{node.node_id}{note}", node
    numbers = {child_id: number for number, child_id in node.rounds.items()}
    for child_id in _child_ids(node):
        if child_id in views:
            note = f" (round {numbers[child_id] + 1})" if child_id in numbers else ""
            yield from _nodes_of(views[child_id], views, depth + 1, note)
