"""Pytest fixtures for tests of flows.

Pytest loads this plugin in every environment in which flowkit-testing is installed.
"""

import argparse
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

# The fixtures import FlowKit on first use: pytest loads this module in every run, before coverage
# is measured.
if TYPE_CHECKING:
    from flowkit_testing._bus import InMemoryBus
    from flowkit_testing._clock import ManualClock
    from flowkit_testing._cluster import Cluster
    from flowkit_testing._store import InMemoryStore
    from flowkit_testing.simulation import Faults, SimCluster

pytest.register_assert_rewrite("flowkit_testing.conformance")


@pytest.fixture
async def flowkit_clock(anyio_backend: object) -> "AsyncIterator[ManualClock]":
    """Virtual clock that advances whenever nothing else can run."""
    from flowkit_testing._clock import ManualClock

    async with ManualClock().auto() as clock:
        yield clock


@pytest.fixture
async def flowkit_bus(anyio_backend: object) -> "AsyncIterator[InMemoryBus]":
    """In-memory bus for one test."""
    from flowkit_testing._bus import InMemoryBus

    async with InMemoryBus() as bus:
        yield bus


@pytest.fixture
async def flowkit_store(anyio_backend: object) -> "AsyncIterator[InMemoryStore]":
    """In-memory store for one test."""
    from flowkit_testing._store import InMemoryStore

    async with InMemoryStore() as store:
        yield store


@pytest.fixture
async def _flowkit_cluster(
    flowkit_clock: "ManualClock",
    flowkit_bus: "InMemoryBus",
    flowkit_store: "InMemoryStore",
    anyio_backend: object,
) -> "AsyncIterator[Cluster]":
    from flowkit_testing._cluster import Cluster

    async with Cluster(clock=flowkit_clock, bus=flowkit_bus, store=flowkit_store) as cluster:
        yield cluster


@pytest.fixture
def flowkit_cluster(
    request: pytest.FixtureRequest, anyio_backend: object
) -> "Cluster | SimCluster | None":
    """Coordinator and worker in memory, on virtual time: with ``flowkit_clock``, ``flowkit_bus``
    and ``flowkit_store``.

    In a test with the marker ``flowkit_sim``, it is the simulated cluster of each seed.
    """
    if request.node.get_closest_marker(MARKER) is not None:
        return None
    cluster: Cluster = request.getfixturevalue("_flowkit_cluster")
    return cluster


# ---------------------------------------------------------------- simulation

MARKER = "flowkit_sim"
_FAULTS = "flowkit_faults_"


def _fault_fixture(profile: str) -> Any:
    def faults() -> "Faults":
        from flowkit_testing.simulation import Faults

        return Faults.of(profile)

    faults.__doc__ = f"Fault profile {profile!r} for a test with the marker ``{MARKER}``."
    return pytest.fixture(name=f"{_FAULTS}{profile}")(faults)


flowkit_faults_all = _fault_fixture("all")
flowkit_faults_none = _fault_fixture("none")
flowkit_faults_bus = _fault_fixture("bus")
flowkit_faults_store = _fault_fixture("store")
flowkit_faults_crashes = _fault_fixture("crashes")
flowkit_faults_pauses = _fault_fixture("pauses")
flowkit_faults_clocks = _fault_fixture("clocks")
flowkit_faults_staff = _fault_fixture("staff")
flowkit_faults_losses = _fault_fixture("losses")
flowkit_faults_damage = _fault_fixture("damage")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options that override the marker ``flowkit_sim``."""
    group = parser.getgroup("flowkit")
    group.addoption(
        "--flowkit-sim-seed", type=int, metavar="N", help="run simulations with this seed only"
    )
    group.addoption(
        "--flowkit-sim-seeds",
        type=_seed_count,
        metavar="N",
        help="run simulations with this many seeds",
    )


def _seed_count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1, not {text!r}")
    return int(text)


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker ``flowkit_sim``."""
    config.addinivalue_line(
        "markers",
        f'{MARKER}(seeds=200, faults="all", ...): run this async test, which takes flowkit_cluster,'
        " once for each seed on a simulated cluster; takes what"
        " flowkit_testing.simulation.simulate takes",
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """Replace a simulated test by a plain function that runs all its seeds."""
    marker = item.get_closest_marker(MARKER)
    if marker is None or not isinstance(item, pytest.Function):
        return
    body = item.obj
    if (
        marker.args
        or not inspect.iscoroutinefunction(body)
        or "flowkit_cluster" not in item.fixturenames
    ):
        item.obj = _misused
    else:
        item.obj = _all_seeds(item, body, dict(marker.kwargs))


def _misused(**fixtures: Any) -> None:
    pytest.fail(
        f"@pytest.mark.{MARKER} takes keyword arguments, and needs an async test with"
        " flowkit_cluster",
        pytrace=False,
    )


def _all_seeds(
    item: pytest.Function, body: Callable[..., Any], options: dict[str, Any]
) -> Callable[..., None]:
    @functools.wraps(body)
    def run(**fixtures: Any) -> None:
        from flowkit_testing.simulation import simulate

        profiles = [value for name, value in fixtures.items() if name.startswith(_FAULTS)]
        if profiles and "faults" not in options:
            options["faults"] = functools.reduce(lambda one, other: one.with_(other), profiles)
        seed, seeds = (
            item.config.getoption("--flowkit-sim-seed"),
            item.config.getoption("--flowkit-sim-seeds"),
        )
        if seed is not None:
            options["seed"] = seed
        if seeds is not None:
            options["seeds"] = seeds

        async def scenario(cluster: "SimCluster") -> None:
            await body(**{**fixtures, "flowkit_cluster": cluster})

        simulate(
            scenario,
            replay=lambda failed: f"pytest '{item.nodeid}' --flowkit-sim-seed={failed}",
            **options,
        )

    # Pytest and anyio look at the function that is called, which is not a coroutine function.
    del run.__wrapped__
    return run


# ---------------------------------------------------------------- runners


class _FlowTest(pytest.Function):
    """Test that anyio's plugin runs, even if pytest-asyncio is installed and would take it.

    The fixtures run on the event loop of anyio's plugin. On another loop, the test would wait for
    them forever.
    """

    def iter_markers_with_node(self, name: str | None = None) -> Iterator[tuple[Any, pytest.Mark]]:
        """Yield the markers, or those of one name. pytest-asyncio, which asks for its own marker,
        receives none.
        """
        return iter(()) if name == "asyncio" else super().iter_markers_with_node(name)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_pycollect_makeitem(
    collector: "pytest.Module | pytest.Class",
) -> Generator[None, Any, Any]:
    """Make tests with FlowKit's fixtures, and those of its suites, tests for anyio's plugin.

    As the outermost wrapper, it receives what pytest-asyncio has made of them.
    """
    made = yield
    if isinstance(made, Sequence):
        return [_taken(node) for node in made]
    return _taken(made)


def _taken(node: Any) -> Any:
    if not isinstance(node, pytest.Function) or not _needs_anyio(node):
        return node
    test = _FlowTest.from_parent(
        cast("Any", node.parent),
        name=node.name,
        callspec=getattr(node, "callspec", None),
        callobj=node.obj,
        fixtureinfo=node._fixtureinfo,  # noqa: SLF001 - pytest has no public way to copy a test
        keywords=node.keywords,
        originalname=node.originalname,
    )
    test.own_markers = node.own_markers
    return test


def _needs_anyio(test: pytest.Function) -> bool:
    return "anyio_backend" in test.fixturenames and (
        any(name.startswith("flowkit_") for name in test.fixturenames)
        or any(_is_of_suites(base) for base in getattr(test.cls, "__mro__", ()))
    )


def _is_of_suites(base: type) -> bool:
    return base.__module__.startswith("flowkit_testing.conformance")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: Any, request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    """Let anyio's plugin wrap the fixtures of these tests before another plugin takes them.

    anyio's own hook finds nothing more to do then.
    """
    if not isinstance(request._pyfuncitem, _FlowTest):  # noqa: SLF001 - `node` may be a module
        return (yield)
    from anyio import pytest_plugin as anyio_plugin

    setup: Any = anyio_plugin.pytest_fixture_setup
    return (yield from setup(fixturedef, request))


# ---------------------------------------------------------------- backends


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that anyio would run on another backend than asyncio.

    FlowKit's fixtures need asyncio.
    """
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
