"""Checks of graphs against the configuration and the plugins of a client or coordinator."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from flowkit._tasks.check_threads import CheckThreads
from flowkit.config import GraphLimits
from flowkit.errors import ConfigError, Fault, GraphError
from flowkit.graph import Graph


@dataclass(frozen=True, slots=True)
class GraphChecks:
    """Checks of the graphs that are submitted or registered."""

    limits: GraphLimits
    functions: Collection[str]
    """Names of the coordinator functions."""
    command_topic: Callable[[str], str]
    """Returns the topic of a role, and raises a ConfigError if the role has no valid topic name."""
    threads: CheckThreads = field(default_factory=CheckThreads)
    """Threads for checks that take long."""

    async def parsed(self, source: Any) -> tuple[Graph | None, list[Fault]]:
        """Return a graph and its faults. It is None if it cannot be parsed."""
        try:
            graph = await Graph.parse_aside(
                source, limits=self.limits, functions=self.functions, in_thread=self.threads.run
            )
        except GraphError as error:
            return None, list(error.faults)
        return graph, list(self._roles_without_topic(graph))

    async def checked(self, source: Any) -> Graph:
        """Return a graph.

        Raises:
            GraphError: it has faults; all of them are listed.
        """
        graph, faults = await self.parsed(source)
        if graph is None or faults:
            raise GraphError(faults)
        return graph

    def _roles_without_topic(self, graph: Graph) -> Iterator[Fault]:
        """Yield a fault for the first node of each role that has no valid topic name."""
        for role, node_ids in graph.roles.items():
            try:
                self.command_topic(role)
            except ConfigError as error:
                yield Fault(node_ids[0], str(error))
