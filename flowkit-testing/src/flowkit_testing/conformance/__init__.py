"""Conformance suites for adapters: a test for each promise in :mod:`flowkit.protocols`.

Subclass :class:`BusConformance`, :class:`StoreConformance` or :class:`ArtifactStoreConformance` and
provide one fixture. FlowKit's own adapters pass the same tests, so an adapter that passes them can
be used with FlowKit. With an :class:`Opener`, the suites also use a store from several processes,
and kill them.
"""

import pytest

_BUS = (
    "acknowledging",
    "base",
    "groups",
    "members",
    "outages",
    "outstanding",
    "publishing",
    "receiving",
)
_STORE = (
    "archiving",
    "base",
    "cancelling",
    "committing",
    "creating",
    "finding",
    "keeping",
    "namespaces",
    "processes",
)

for _module in (
    "_artifact_processes",
    *(f"_bus_{name}" for name in _BUS),
    "_common",
    "_processes",
    *(f"_store_{name}" for name in _STORE),
    "artifacts",
    "members",
):
    pytest.register_assert_rewrite(f"{__name__}.{_module}")

from flowkit_testing.conformance._artifact_suite import ArtifactStoreConformance  # noqa: E402
from flowkit_testing.conformance._bus_suite import (  # noqa: E402
    BusConformance,
    BusDeliveryConformance,
    BusFailureConformance,
)
from flowkit_testing.conformance._processes import Opener  # noqa: E402
from flowkit_testing.conformance._store_suite import StoreConformance  # noqa: E402

__all__ = [
    "ArtifactStoreConformance",
    "BusConformance",
    "BusDeliveryConformance",
    "BusFailureConformance",
    "Opener",
    "StoreConformance",
]
