"""Suites for those who write a bus or a store: a test for each promise in :mod:`flowkit.protocols`.

Subclass :class:`BusConformance`, :class:`StoreConformance` or :class:`ArtifactStoreConformance` and supply one fixture. They are the tests
that FlowKit's own adapters pass; what passes them can carry FlowKit. With an :class:`Opener` the suites also run a store from several
processes, and kill them.
"""

import pytest

for _module in ("acknowledging", "base", "groups", "members", "outages", "outstanding", "publishing", "receiving"):
    pytest.register_assert_rewrite(f"{__name__}._bus_{_module}")
pytest.register_assert_rewrite(f"{__name__}._common")
for _module in (
    "_common",
    "_store_archiving",
    "_store_base",
    "_store_committing",
    "_store_creating",
    "_store_finding",
    "_store_keeping",
    "artifacts",
):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")
for _module in ("_artifact_processes", "_processes", "_store_cancelling", "_store_namespaces", "_store_processes"):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from ._processes import Opener  # noqa: E402
from .artifacts import ArtifactStoreConformance  # noqa: E402
from .bus import BusConformance, BusDeliveryConformance, BusFailureConformance  # noqa: E402
from .store import StoreConformance  # noqa: E402

__all__ = [
    "ArtifactStoreConformance",
    "BusConformance",
    "BusDeliveryConformance",
    "BusFailureConformance",
    "Opener",
    "StoreConformance",
]
