"""A task with its child tasks."""

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass

from flowkit.client import Client
from flowkit.errors import TaskNotFound
from flowkit.task import NodeView, TaskView


@dataclass(frozen=True, slots=True)
class TaskBranch:
    """Task in a tree of tasks, and its level."""

    depth: int
    view: TaskView


async def task_branches(client: Client, view: TaskView) -> AsyncIterator[TaskBranch]:
    """Yield a task and its child tasks, each before its own child tasks. A child task that is not
    created yet, or was deleted, is left out.
    """
    waiting = [TaskBranch(0, view)]
    while waiting:
        branch = waiting.pop()
        yield branch
        children = []
        for node in branch.view.nodes.values():
            if node.child_task_id is None:
                continue
            try:
                child = await client.get_task(node.child_task_id)
            except TaskNotFound:
                continue
            if child.parent == branch.view.id:
                children.append(TaskBranch(branch.depth + 1, child))
        waiting += reversed(children)


def nodes_in_order(branches: Sequence[TaskBranch]) -> Iterator[tuple[int, NodeView]]:
    """Yield the nodes of a task with their levels. The nodes of a child task follow the node that
    runs it.
    """
    views = {branch.view.id: branch for branch in branches}
    stack = [(0, node) for node in reversed(branches[0].view.nodes.values())]
    while stack:
        depth, node = stack.pop()
        yield depth, node
        child = views.get(node.child_task_id or "")
        if child is not None:
            stack += [(depth + 1, below) for below in reversed(child.view.nodes.values())]
