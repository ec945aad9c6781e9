"""Suites for those who write a bus or a store: a test for each promise in :mod:`flowkit.protocols`.

Subclass :class:`BusConformance`, :class:`StoreConformance` or :class:`ArtifactStoreConformance` and supply one fixture. They are the tests
that FlowKit's own adapters pass; what passes them can carry FlowKit.
"""

import pytest

for _module in ("_bus_acknowledging", "_bus_base", "_bus_groups", "_bus_publishing", "_bus_receiving", "_common"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")
for _module in ("_store_archiving", "_store_base", "_store_committing", "_store_creating", "_store_finding", "_store_keeping", "artifacts"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from .artifacts import ArtifactStoreConformance  # noqa: E402
from .bus import BusConformance  # noqa: E402
from .store import StoreConformance  # noqa: E402

__all__ = ["ArtifactStoreConformance", "BusConformance", "StoreConformance"]
