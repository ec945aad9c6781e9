"""Fixtures of all tests."""

import gc
import os
import signal
from collections.abc import AsyncIterator, Generator
from types import FrameType

import coverage
import pytest
from hypothesis import HealthCheck, settings

from flowkit._runtime.signals import signals_received
from tests.servers.kafka_fixtures import kafka_address, own_kafka
from tests.servers.mongo_fixtures import (
    mongo_address,
    mongo_set_of_three,
    mongo_standalone,
    own_mongo,
)
from tests.servers.processes import keep_data_in_memory

__all__ = [
    "kafka_address",
    "mongo_address",
    "mongo_set_of_three",
    "mongo_standalone",
    "own_kafka",
    "own_mongo",
]


# Processes that tests start share the compiled modules. To compile them again takes each of them
# longer than most commands.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

keep_data_in_memory()

# The same examples in each run, and no clock: what fails is a change's doing.
# ``--hypothesis-profile=fresh`` looks for others.
settings.register_profile("fresh", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("fresh"), derandomize=True, database=None)
settings.load_profile("same")


@pytest.fixture
async def survived_signals() -> AsyncIterator[None]:
    """Keep the process of the tests alive where a signal ends a ``run()`` in it, however slow the
    machine is.
    """
    with signals_received(lambda number: None, patience_sec=3600, abort_sec=3600):
        yield
    with signals_received(lambda number: None, patience_sec=3600):
        pass  # a new use without a signal: the process is no longer expected to end


def pytest_configure(config: pytest.Config) -> None:
    """Begin groups in their order, and measure coverage once.

    With ``-n``, pytest-cov also starts a measurement of the controlling process in each worker, and
    never ends it.
    """
    # Let pytest-xdist begin the groups in their order, not the one with the most tests first.
    config.option.loadscopereorder = False
    stray = coverage.Coverage.current()
    if hasattr(config, "workerinput") and stray is not None:
        stray.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    call: pytest.CallInfo[None],
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Escape lone surrogates in captured logs: only valid Unicode can be sent between processes.

    Before the report of a failure, collect garbage. Tasks that failed and are found only while
    Python 3.11 parses the code to show are logged, which parses code too, and that is an error.
    """
    if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception):
        gc.collect()
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections
    ]
    return report


TIME_TO_END_SEC = 60
"""Time that a test has to end after its limit, before it is interrupted again."""


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_timeout_set_timer() -> Generator[None, bool, bool]:
    """End a test at its time limit also if a task of the event loop never ends.

    asyncio keeps the failure that pytest-timeout raises in the task that it interrupts, and the
    test goes on. It lets a ``SystemExit`` through, which pytest takes for a failure of the test.
    """
    is_set = yield
    fail = signal.getsignal(signal.SIGALRM)
    if callable(fail):

        def end(number: int, frame: FrameType | None) -> None:
            try:
                fail(number, frame)
            except pytest.fail.Exception as failed:
                raise SystemExit(str(failed)) from None

        signal.signal(signal.SIGALRM, end)
        remaining_sec, _ = signal.getitimer(signal.ITIMER_REAL)
        signal.setitimer(signal.ITIMER_REAL, remaining_sec, TIME_TO_END_SEC)
    return is_set


LONG_GROUPS = (
    *("with-both", "with-mongo", "campaigns", "with-kafka", "chaos"),
    *("sqlite", "docs", "cli", "conformance"),
)
"""Groups that take long; they begin first, so that no process is left alone with one of them.

Those with servers or other processes wait for most of their time, and leave the processors to
others.
"""

CAMPAIGNS = {"simulation", "mutants", "fuzz"}
"""Folders whose tests need no server and much processor time."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Do not search for garbage among the collected tests: they are many, and all of them stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None, None, None]:
    """Assign each test to a group, and put the long groups first.

    A group runs in one process and shares its servers. Tests without servers form a group for each
    folder, which fill the time that the long groups leave.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    yield  # xdist reads the groups, and pytest brings tests with the same parameters together
    items.sort(key=lambda item: _rank(_group(item)))


def _group(item: pytest.Item) -> str:
    folder = item.path.parent.name
    if item.get_closest_marker("services") is None:
        return "campaigns" if folder in CAMPAIGNS else folder
    if folder == "chaos":
        return folder
    servers = [name for name in ("mongo", "kafka") if name in (folder, item.path.stem[5:])]
    return f"with-{servers[0]}" if servers else "with-both"


def _rank(group: str) -> int:
    return LONG_GROUPS.index(group) if group in LONG_GROUPS else len(LONG_GROUPS)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have to tell though they passed: what was simulated, and how often something
    was killed.
    """
    for passed in terminalreporter.getreports("passed"):
        for name, text in passed.user_properties:
            if name == "report":
                terminalreporter.write_line(f"\n{text}")
