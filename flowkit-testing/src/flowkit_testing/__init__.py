"""Test your flows, handlers, plugins and adapters: real members of FlowKit's protocols in memory,
and time that you move.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowkit_testing._artifacts import InMemoryArtifactStore
    from flowkit_testing._bus import InMemoryBus
    from flowkit_testing._clock import ManualClock
    from flowkit_testing._cluster import Cluster
    from flowkit_testing._store import InMemoryStore

__all__ = ["Cluster", "InMemoryArtifactStore", "InMemoryBus", "InMemoryStore", "ManualClock"]

# Imported when they are first used: pytest loads this package with its plugins, before coverage is
# measured and for every project.
_HOMES = {
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
