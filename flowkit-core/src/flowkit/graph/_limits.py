"""Size limits of a graph."""

from dataclasses import dataclass
from typing import Protocol

from flowkit._json.limits import MAX_VALUE_LEVELS


class GraphLimits(Protocol):
    """Object with these limits, such as ``CoordinatorConfig.limits``."""

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
    """Size limits of a graph without a configuration."""

    max_nodes: int = 20_000
    max_edges: int = 100_000
    """Maximum number of entries in ``depends_on``, ``edges``, ``edges_ex`` and ``routing``."""
    max_bytes: int = 8 * 1024 * 1024
    """Maximum size of the graph as JSON."""
    max_depth: int = 32
    """Maximum nesting of lists and objects; the graph itself is the first level."""


DEFAULT_LIMITS = Limits()


def levels(limits: GraphLimits) -> int:
    """Return the maximum nesting, which never exceeds that of any other value."""
    return min(limits.max_depth, MAX_VALUE_LEVELS)
