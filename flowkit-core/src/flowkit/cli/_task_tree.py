"""A task with its child tasks."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

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


async def task_branches(client: Client, view: TaskView) -> list[TaskBranch]:
    """Return a task and its child tasks, each before its own child tasks.

    Of maps with many children, and of very many tasks, some are left out. A child task that is not
    created yet, or was deleted, is left out as well.
    """
    branches: list[TaskBranch] = []
    waiting = [view]
    while waiting:
        view = waiting.pop()
        nodes = [node for node in view.nodes.values() if node.child_task_id is not None]
        places = MOST_TASKS - len(branches) - len(waiting) - 1
        chosen = _some_of_each_map(nodes, view)[: max(places, 0)]
        branches.append(TaskBranch(view, len(nodes) - len(chosen)))
        children = []
        for node in chosen:
            try:
                child = await client.get_task(node.child_task_id or "")
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
        owner, _ = split_child_id(node.node_id)
        is_child = owner != node.node_id and owner in view.nodes
        found[owner] += is_child
        if not is_child or found[owner] <= MOST_OF_A_MAP:
            chosen.add(node.node_id)
    return [node for node in nodes if node.node_id in chosen]


def nodes_in_order(branches: Iterable[TaskBranch]) -> Iterator[tuple[int, NodeView]]:
    """Yield the nodes of a task with their levels. The nodes of a child task follow the node that
    runs it.
    """
    views = {branch.view.id: branch.view for branch in branches}
    stack = [(0, node) for node in reversed(next(iter(views.values())).nodes.values())]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        child = views.get(node.child_task_id or "")
        if child is not None:
            stack += [(depth + 1, below) for below in reversed(child.nodes.values())]
