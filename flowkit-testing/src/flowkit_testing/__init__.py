"""Test tools for flows, handlers, plugins and adapters.

They implement FlowKit's protocols in memory and provide a clock that tests control.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_testing._artifacts import InMemoryArtifactStore
    from flowkit_testing._broker import Broker
    from flowkit_testing._bus import InMemoryBus
    from flowkit_testing._clock import ManualClock
    from flowkit_testing._cluster import Cluster
    from flowkit_testing._store import InMemoryStore

__all__ = [
    "Broker",
    "Cluster",
    "InMemoryArtifactStore",
    "InMemoryBus",
    "InMemoryStore",
    "ManualClock",
]

# Imported on first use: pytest loads this package with its plugins for every project, before
# coverage is measured.
_HOMES = {
    "Broker": "._broker",
    "Cluster": "._cluster",
    "InMemoryArtifactStore": "._artifacts",
    "InMemoryBus": "._bus",
    "InMemoryStore": "._store",
    "ManualClock": "._clock",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
