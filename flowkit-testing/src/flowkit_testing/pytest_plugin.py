"""Fixtures for tests of flows, found by pytest where flowkit-testing is installed."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

# FlowKit itself is imported by the fixtures that are used: this module is loaded with every pytest, also before coverage is measured.
if TYPE_CHECKING:
    from .bus import InMemoryBus
    from .clock import ManualClock
    from .harness import Cluster
    from .store import InMemoryStore

pytest.register_assert_rewrite("flowkit_testing.conformance")


@pytest.fixture
async def flowkit_clock(anyio_backend: object) -> "AsyncIterator[ManualClock]":
    """Virtual time that moves by itself, whenever nothing else can run."""
    from .clock import ManualClock

    async with ManualClock().auto() as clock:
        yield clock


@pytest.fixture
async def flowkit_bus(anyio_backend: object) -> "AsyncIterator[InMemoryBus]":
    """An in-memory bus of the test's own."""
    from .bus import InMemoryBus

    async with InMemoryBus() as bus:
        yield bus


@pytest.fixture
async def flowkit_store(anyio_backend: object) -> "AsyncIterator[InMemoryStore]":
    """An in-memory store of the test's own."""
    from .store import InMemoryStore

    async with InMemoryStore() as store:
        yield store


@pytest.fixture
async def flowkit_cluster(anyio_backend: object) -> "AsyncIterator[Cluster]":
    """A coordinator and a worker in memory, on virtual time."""
    from .harness import Cluster

    async with Cluster() as cluster:
        yield cluster


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what anyio would run on another backend: FlowKit's fixtures are made for asyncio."""
    foreign = [item for item in items if _runs_elsewhere(item)]
    if foreign:
        config.hook.pytest_deselected(items=foreign)
        items[:] = [item for item in items if item not in foreign]


def _runs_elsewhere(item: pytest.Item) -> bool:
    if not any(name.startswith("flowkit_") for name in getattr(item, "fixturenames", ())):
        return False
    callspec = getattr(item, "callspec", None)
    backend = callspec.params.get("anyio_backend", "asyncio") if callspec is not None else "asyncio"
    return (backend if isinstance(backend, str) else backend[0]) != "asyncio"
