"""Versions of the flows that a task and its child tasks run by name.

They are fixed when the root task is submitted, so that flows which change meanwhile do not change
the task. All graphs are checked at the same time.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flowkit._tasks.graph_checks import GraphChecks
from flowkit._tasks.registered_flows import RegisteredFlows
from flowkit.errors import CorruptRecord, Fault, FlowNotFound, GraphError
from flowkit.graph import FlowRef, FlowUse, Graph
from flowkit.graph._nested_graphs import fixed_params
from flowkit.task import TaskFlow


class _Use(NamedTuple):
    """Node that runs a flow, and its place below the root task."""

    node_id: str
    """Node of the root task's graph."""
    place: str
    """Path from that node; empty for that node itself."""
    use: FlowUse

    def fault(self, text: str) -> Fault:
        return Fault(self.node_id, f"{self.place}{text}")


async def fixed_versions(
    graph: Graph, flow: TaskFlow | None, *, flows: RegisteredFlows, checks: GraphChecks
) -> dict[str, int]:
    """Return the versions of the flows that a valid graph names without a version, and those that
    the graphs of these flows name, and so on. ``flow`` is the flow that has the graph: its name
    means this version.

    Raises:
        GraphError: a flow or version does not exist, its graph cannot run here, or its params have
            faults. All of them are listed.
    """
    resolution = _Resolution(flows, checks)
    if flow is not None:
        resolution.versions[flow.name] = flow.version
    uses = [_Use(use.outer.node_id, _inside(use), use) for use in graph.flow_uses]
    while uses:
        uses = [below for use in uses for below in await resolution.resolve(use)]
    if resolution.faults:
        raise GraphError(resolution.faults)
    return resolution.versions if graph.flow_uses else {}


class _Resolution:
    """Flows that were found so far, and their faults."""

    def __init__(self, flows: RegisteredFlows, checks: GraphChecks) -> None:
        self.versions: dict[str, int] = {}
        self.faults: list[Fault] = []
        self._flows = flows
        self._checks = checks
        self._graphs: dict[FlowRef, Graph | None] = {}
        """Checked graphs by flow and version; None for one with faults."""
        self._errors: dict[FlowRef, FlowNotFound | CorruptRecord] = {}
        """Flows that cannot be read."""

    async def resolve(self, use: _Use) -> Iterable[_Use]:
        """Fix the version of a flow, and check its graph and the params that it gets. Return the
        nodes of the graph that run flows, if it is checked for the first time.
        """
        if (unreadable := self._errors.get(use.use.flow)) is not None:
            self.faults.append(use.fault(f"io.flow: {unreadable}"))
            return ()
        try:
            version = await self._version(use.use.flow)
            found = FlowRef(use.use.flow.name, version)
            is_new = found not in self._graphs
            if is_new:
                await self._check(use, found)
        except (FlowNotFound, CorruptRecord) as error:
            self._errors[use.use.flow] = error
            return await self.resolve(use)
        graph = self._graphs[found]
        if graph is None:
            return ()
        await self._check_params(use, found, graph)
        return _below(use, found, graph) if is_new else ()

    async def _check_params(self, use: _Use, found: FlowRef, graph: Graph) -> None:
        params = fixed_params(use.use.node)
        if params is not None:
            _, texts = await self._checks.threads.params(graph.document.params, params)
            self.faults += [use.fault(f"io.{text}, by the schema of {found}") for text in texts]

    async def _version(self, flow: FlowRef) -> int:
        if flow.version is not None:
            return flow.version
        if flow.name not in self.versions:
            self.versions[flow.name] = await self._flows.latest(flow.name)
        return self.versions[flow.name]

    async def _check(self, use: _Use, found: FlowRef) -> None:
        assert found.version is not None
        stored = await self._flows.graph(found.name, found.version)
        graph, faults = await self._checks.parsed(stored.document)
        self._graphs[found] = None if faults else graph
        self.faults += [use.fault(f"io.flow: {found}: {fault}") for fault in faults]


def _below(use: _Use, found: FlowRef, graph: Graph) -> Iterator[_Use]:
    """Yield the nodes that run flows in the graph of a flow that a node runs."""
    for below in graph.flow_uses:
        place = f"{use.place}io.flow: {found}: node {below.outer.node_id!r}: {_inside(below)}"
        yield _Use(use.node_id, place, below)


def _inside(use: FlowUse) -> str:
    """Return the place of a node in a graph inside of a node."""
    return "" if use.node is use.outer else f"io.graph: node {use.node.node_id!r}: "
