"""The rules that say which chains of nodes a worker may run as a segment."""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from typing import Protocol

from flowkit.graph import NodeSpec, Plan
from flowkit.graph._control_types import CONTROL_TYPES
from flowkit.graph._models import COORDINATOR_FUNCTION
from flowkit.graph._nodes_read import input_needed_at_once
from flowkit.graph._plan import Route
from flowkit.task import ATTEMPTED, ENDED, Mark, NodeRecord, Task, TaskSpec

MOST_NODES = 16
"""Nodes of a segment, with its first."""
SHORTEST_LIMIT_SEC = 5.0
"""A node with a shorter time limit could be issued again while a segment still goes on."""
MOST_SEARCHED = 1_000
"""Nodes below a node among which coordinator functions are searched."""

TASK_RULES: dict[str, Callable[[TaskSpec], bool]] = {
    "the graph has no max_parallel": lambda spec: spec.plan.max_parallel is None,
    "the task takes no place of a concurrency key": lambda spec: (
        spec.plan.key is None and not (spec.parent and spec.parent.exclusive)
    ),
}
"""Rules for the task of a segment."""

NODE_RULES: dict[str, Callable[[NodeSpec], bool]] = {
    "a worker runs it": lambda node: (
        node.type not in CONTROL_TYPES and node.type != COORDINATOR_FUNCTION
    ),
    "it is no map": lambda node: node.map is None,
    "it has no shards": lambda node: node.io.shards is None,
    "it has no concurrency key": lambda node: node.key is None,
    "it has no rate": lambda node: node.rate_limit is None,
    "it has no cache": lambda node: node.cache is None,
    "it has no undo": lambda node: node.undo is None,
    "it has no short time limit": lambda node: (
        min(node.timeouts.start_to_close_sec or inf, node.timeouts.heartbeat_sec or inf)
        >= SHORTEST_LIMIT_SEC
    ),
    "it cancels no parents": lambda node: node.on_satisfied == "leave",
}
"""Rules for each node of a segment."""

LINK_RULES: dict[str, Callable[[Plan, Sequence[int], int], bool]] = {
    "the node before has no other child": lambda plan, before, index: (
        len(plan.children[before[-1]]) == 1
    ),
    "it has no other parent": lambda plan, before, index: len(plan.parents[index]) == 1,
    "it has no condition": lambda plan, before, index: plan.nodes[index].when is None,
    "no route leads to it": lambda plan, before, index: (
        plan.parents[index][0].route is Route.ALWAYS
    ),
    "it does not stream": lambda plan, before, index: not plan.parents[index][0].streams,
    "no child streams from it": lambda plan, before, index: not plan.streamed[index],
    "no child cancels it": lambda plan, before, index: all(
        plan.nodes[edge.node].on_satisfied == "leave" for edge in plan.children[index]
    ),
    "it has the priority of the node before": lambda plan, before, index: (
        plan.nodes[index].priority == plan.nodes[before[-1]].priority
    ),
    "it pulls artifacts of no other node": lambda plan, before, index: (
        plan.sources[index] == (before[-1],)
    ),
    "its expressions read only earlier nodes of the segment": lambda plan, before, index: (
        {*nodes_read(plan, index)} <= {*before}
    ),
}
"""Rules for each node after the first, given the nodes before it."""

_ELSEWHERE = -1
"""Stands for nodes that are in no segment."""


def nodes_read(plan: Plan, index: int) -> Sequence[int]:
    """Return the nodes whose results the expressions of a node read."""
    if index not in plan.computed:
        return ()
    needed = input_needed_at_once(plan, index)
    if needed is None or needed.get("errors"):
        return (_ELSEWHERE,)
    return needed.get("results", ())


class TaskState(Protocol):
    """State of a task, stored or in transition."""

    paused: bool

    @property
    def spec(self) -> TaskSpec: ...
    def mark(self, index: int) -> int: ...
    def record(self, index: int) -> NodeRecord: ...


def nodes_after(task: TaskState, index: int) -> Sequence[int]:
    """Return the nodes that the command of a node may carry: all in their first attempt, and none
    of them begun. Only the first attempt of a node carries others, so that a chain that ends its
    worker then runs node by node.
    """
    plan, record = task.spec.plan, task.record(index)
    is_first = record.attempt == record.first_attempt == 1
    children = plan.children[index]
    if index >= plan.main or len(children) != 1 or not is_first:
        return []
    # The nodes of a wide graph end here, before their many other rules.
    if len(plan.parents[children[0].node]) != 1:
        return []
    if not _may_begin(plan.nodes[index]) or not all(
        rule(task.spec) for rule in TASK_RULES.values()
    ):
        return []
    chain = [index]
    while len(chain) < MOST_NODES and (children := plan.children[chain[-1]]):
        child = children[0].node
        if child >= plan.main or not _may_begin(plan.nodes[child]):
            break
        if not all(rule(plan, chain, child) for rule in LINK_RULES.values()):
            break
        if task.mark(child) != Mark.WAITING or task.record(child).attempt:
            break
        chain.append(child)
    return chain[1:] if len(chain) > 1 and not _vars_may_change(task, index) else []


def _may_begin(node: NodeSpec) -> bool:
    return all(rule(node) for rule in NODE_RULES.values())


def _vars_may_change(task: TaskState, index: int) -> bool:
    """Return whether a coordinator function that is not below this node may change the vars while
    the segment runs.
    """
    plan = task.spec.plan
    running = {one for one in plan.functions if task.mark(one) not in ENDED}
    if not running:
        return False
    ahead, seen = [index], {index}
    while ahead and len(seen) <= MOST_SEARCHED:
        for edge in plan.children[ahead.pop()]:
            if edge.node not in seen:
                seen.add(edge.node)
                ahead.append(edge.node)
    return not running <= seen


def promised_nodes(task: TaskState, index: int) -> Iterator[int]:
    """Yield the nodes that the worker of a node may begin after it, until one that has begun."""
    for _ in range(task.record(index).promised):
        children = task.spec.plan.children[index]
        if not children or task.mark(children[0].node) != Mark.WAITING:
            return
        index = children[0].node
        yield index


def carrier_of(task: TaskState, index: int) -> int | None:
    """Return the node whose worker may begin a waiting node after it; None if no worker may."""
    plan = task.spec.plan
    for distance in range(1, MOST_NODES):
        if index >= plan.main or len(plan.parents[index]) != 1:
            return None
        index = plan.parents[index][0].node
        if task.mark(index) in ATTEMPTED:
            return index if task.record(index).promised >= distance else None
        if task.mark(index) != Mark.WAITING:
            return None
    return None


def stray_after(task: TaskState, index: int) -> int | None:
    """Return the node that the worker of a resolved node has begun after it and that has not ended;
    None if there is none.
    """
    plan = task.spec.plan
    if index >= plan.main or task.mark(index) != Mark.CANCELLING or not plan.children[index]:
        return None
    child = plan.children[index][0].node
    is_stray = task.mark(child) == Mark.CANCELLING and task.record(child).in_segment
    return child if is_stray else None


def resolved_before(task: TaskState, index: int) -> int | None:
    """Return the resolved node that ends after this one, which its worker has begun although the
    result that it has read does not count; None if this is no such node.
    """
    plan = task.spec.plan
    while index < plan.main and task.mark(index) == Mark.CANCELLING:
        if not task.record(index).in_segment:
            return None
        index = plan.parents[index][0].node
        if task.mark(index) == Mark.CANCELLING and task.record(index).resolution is not None:
            return index
    return None


def is_called_back(task: TaskState, index: int) -> bool:
    """Return whether the worker of a node must not begin those that its command carries: the task
    is paused, or an operator has resolved one of them.
    """
    return task.record(index).promised > 0 and (
        task.paused
        or any(task.record(one).resolution is not None for one in promised_nodes(task, index))
    )


def has_segments(task: Task) -> bool:
    """Return whether a worker may begin nodes without commands."""
    return any(
        record.promised and task.marks[index] in ATTEMPTED for index, record in task.records.items()
    )
