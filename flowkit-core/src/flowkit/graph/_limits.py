"""How large a graph may be."""

from dataclasses import dataclass
from typing import Protocol

from flowkit._json.values import MAX_VALUE_LEVELS


class GraphLimits(Protocol):
    """Anything with these numbers, such as ``CoordinatorConfig.limits``."""

    @property
    def max_nodes(self) -> int: ...
    @property
    def max_edges(self) -> int: ...
    @property
    def max_bytes(self) -> int: ...
    @property
    def max_depth(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """How large a graph may be where no configuration says so."""

    max_nodes: int = 20_000
    max_edges: int = 100_000
    """In ``depends_on``, ``edges``, ``edges_ex`` and ``routing``, each as often as it is
    written.
    """
    max_bytes: int = 8 * 1024 * 1024
    """Of the graph as JSON."""
    max_depth: int = 32
    """How deep lists and objects may stand in each other; the graph itself is the first level."""


DEFAULT_LIMITS = Limits()


def levels(limits: GraphLimits) -> int:
    """Return how many levels of nesting are allowed, which is never more than of any other
    value.
    """
    return min(limits.max_depth, MAX_VALUE_LEVELS)
