"""Conformance suites for adapters: a test for each promise in :mod:`flowkit.protocols`.

Subclass :class:`BusConformance`, :class:`StoreConformance` or :class:`ArtifactStoreConformance` and
provide one fixture. FlowKit's own adapters pass the same tests, so an adapter that passes them can
be used with FlowKit. With an :class:`Opener`, the suites also use a store from several processes,
and kill them.
"""

import pkgutil

import pytest

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    pytest.register_assert_rewrite(_module.name)

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
