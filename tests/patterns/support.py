"""Runs of the files in ``examples/patterns`` on virtual time, with scripted steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from examples.patterns.handlers import HANDLERS
from flowkit import NodeView, TaskView
from flowkit.cli._loader import LoadedFlow, load_flow
from flowkit.graph._expanded_plan import split_child_id
from flowkit.graph._nested_graphs import nodes_with_nested
from flowkit.plugins import Plugins
from flowkit.worker import RunContext, Worker, handler
from flowkit_testing import Cluster

FOLDER = Path(__file__).parents[2] / "examples" / "patterns"
HOUR = 3600.0
DAY = 24 * HOUR
Step = Callable[[Any, RunContext], Any]


def shows(name: str) -> pytest.MarkDecorator:
    """Run a test with the pattern of this name as its ``flow``."""
    (path,) = FOLDER.glob(f"{name}.*")
    return pytest.mark.parametrize("flow", [pytest.param(path, id=name)])


# ---------------------------------------------------------------- steps


def takes(seconds: float, result: Any = None) -> Step:
    """Return a step that takes some seconds, and returns its input or this result."""

    async def step(item: Any, ctx: RunContext) -> Any:
        await ctx.cancellable(ctx.clock.sleep(seconds))
        return item if result is None else result

    return step


def gives(result: Any) -> Step:
    """Return a step that returns this result at once."""
    return takes(0, result)


def fails(text: str = "no network", *, times: int = 1000) -> Step:
    """Return a step whose first attempts fail, and the later ones return their input."""

    async def step(item: Any, ctx: RunContext) -> Any:
        if ctx.attempt <= times:
            raise OSError(text)
        return item

    return step


def _handlers(flow: LoadedFlow, steps: Mapping[str, Step]) -> dict[str, Any]:
    """Return the handlers of a pattern. Roles with a scripted node follow the script."""
    nodes = (node for _, node in nodes_with_nested(flow.graph.plan.nodes))
    roles = {node.node_id: node.type for node in nodes}
    scripted_roles = {roles[split_child_id(node_id)[0]] for node_id in steps}

    async def scripted(item: Any, ctx: RunContext) -> Any:
        step = steps.get(ctx.node_id) or steps.get(split_child_id(ctx.node_id)[0])
        return item if step is None else await step(item, ctx)

    changed = {role: handler(role)(scripted) for role in scripted_roles}
    return {**HANDLERS, **flow.handlers, **changed}


# ---------------------------------------------------------------- runs


@dataclass(frozen=True, slots=True)
class Run:
    """A task of a pattern, on which a test acts from outside."""

    cluster: Cluster
    worker: Worker
    task_id: str

    async def after(self, seconds: float) -> None:
        """Let virtual time pass."""
        await self.cluster.clock.sleep(seconds)

    async def signal(self, name: str, payload: Any = None) -> None:
        await self.cluster.client.signal(self.task_id, name, payload)

    async def decide(self, node_id: str, choice: str, *, by: str, **values: Any) -> None:
        await self.cluster.client.decide(
            self.task_id, node_id, choice, by=by, values=values or None
        )

    async def prompts(self) -> list[str]:
        """Return the questions that wait for an answer."""
        return sorted(one.prompt for one in (await self.cluster.client.approvals()).items)

    async def view(self) -> TaskView:
        return await self.cluster.client.get_task(self.task_id)

    async def end(self) -> TaskView:
        view = await self.cluster.client.wait(self.task_id, timeout=60 * DAY)
        await self.cluster.stop_worker(self.worker)
        return view


async def start(
    cluster: Cluster, path: Path, params: Mapping[str, Any] | None = None, **steps: Step
) -> Run:
    """Submit a pattern, with scripted steps by node id."""
    flow = load_flow(str(path), Plugins())
    worker = await cluster.add_worker(_handlers(flow, steps))
    task_id = await cluster.client.create_task(graph=flow.graph, params=params)
    return Run(cluster, worker, task_id)


async def play(
    cluster: Cluster, path: Path, params: Mapping[str, Any] | None = None, **steps: Step
) -> TaskView:
    """Run a pattern to its end, with scripted steps by node id."""
    return await (await start(cluster, path, params, **steps)).end()


# ---------------------------------------------------------------- observations


def ends(view: TaskView) -> dict[str, str]:
    """Return the status of each node, by node id."""
    return {node_id: str(node.status) for node_id, node in view.nodes.items()}


def ran(view: TaskView) -> list[str]:
    """Return the nodes that started, in order."""
    nodes = [node for node in view.nodes.values() if node.started_at is not None]
    return [node.node_id for node in sorted(nodes, key=lambda node: node.started_at)]


def starts(view: TaskView) -> dict[str, float]:
    """Return the seconds from the submission to the start of the last attempt, by node id."""
    return {
        node_id: _seconds(view, node)
        for node_id, node in view.nodes.items()
        if node.started_at is not None
    }


def took(view: TaskView) -> float:
    """Return the seconds from the submission to the end of the task."""
    return round((view.finished_at - view.created_at).total_seconds(), 3)


def _seconds(view: TaskView, node: NodeView) -> float:
    return round((node.started_at - view.created_at).total_seconds(), 3)
