"""The suites detect defects: each broken double fails at least one case."""

from collections import defaultdict
from pathlib import Path

import pytest

from flowkit_testing.conformance._store_base import StoreSuite
from tests.conformance import broken_doubles

# All doubles run in the setup of the first test, and some of them start processes.
pytestmark = pytest.mark.timeout(300)

ASSERTIONS = (AssertionError, pytest.fail.Exception)
DOUBLES = sorted(name for name in vars(broken_doubles) if name.startswith("Test"))


MOST_TRIES = 20
"""Tries for a case with a short time limit to pass without the defect on a busy machine."""


class Recorder:
    """Records failed cases, and skips the other cases of a double that has failed one.

    A double runs only through the test that its ``caught_by`` names. Cases that failed because an
    event did not come in time are then repeated without the defect.
    """

    def __init__(self) -> None:
        self.failed: defaultdict[str, list[str]] = defaultdict(list)
        self.kinds: dict[str, type[BaseException]] = {}
        self.timed: set[str] = set()
        """The cases that failed a double by a time limit."""
        self.controlled: set[str] = set()
        """The cases of ``timed`` that pass without the defect."""

    def pytest_pycollect_makeitem(
        self, collector: pytest.Collector, name: str
    ) -> list[pytest.Item] | None:
        aim = getattr(getattr(collector, "obj", None), "caught_by", name)
        return [] if name.startswith("test_") and name != aim else None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for item in session.items:
            if not _owner(item.nodeid).startswith("Control") and not self.failed.get(
                _owner(item.nodeid)
            ):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        for item in session.items:
            if _owner(item.nodeid).startswith("Control") and item.name in self.timed:
                for _ in range(MOST_TRIES):
                    if item.name not in self.controlled:
                        item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return True

    def pytest_exception_interact(self, node: pytest.Item, call: pytest.CallInfo[None]) -> None:
        double = _owner(node.nodeid)
        if call.when == "call" and call.excinfo is not None and not double.startswith("Control"):
            self.kinds.setdefault(double, call.excinfo.type)
            if getattr(broken_doubles, double).patience == broken_doubles.BRIEF:
                self.timed.add(node.name)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = _owner(report.nodeid)
        if report.failed and report.when != "call":
            self.failed["errors"].append(f"{report.nodeid}: {report.longreprtext}")
        elif name.startswith("Control"):
            if report.passed and report.when == "call":
                self.controlled.add(report.nodeid.split("::")[-1])
        elif report.failed:
            self.failed[name].append(report.nodeid)


def _owner(nodeid: str) -> str:
    return nodeid.split("::")[1]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """Return the outcome of all doubles, from one run of pytest within this one."""
    ini = tmp_path_factory.mktemp("broken") / "pytest.ini"
    ini.write_text("[pytest]\npython_classes = Test* Control*\n")
    recorder = Recorder()
    without = [
        option
        for name in ("cacheprovider", "terminal", "timeout", "pytest_cov", "asyncio")
        for option in ("-p", f"no:{name}")
    ]
    path = Path(broken_doubles.__file__)
    pytest.main(
        [
            "-c",
            str(ini),
            "--noconftest",
            "--import-mode=importlib",
            "--capture=no",
            *without,
            str(path),
        ],
        plugins=[recorder],
    )
    return recorder


def test_the_run_itself_succeeds(recorder: Recorder):
    assert recorder.failed.get("errors", []) == []


@pytest.mark.parametrize("name", DOUBLES)
def test_a_double_with_a_defect_fails_a_case_by_an_assertion(recorder: Recorder, name: str):
    assert recorder.failed.get(name), f"no case fails for {name}"
    double = getattr(broken_doubles, name)
    in_time = double.patience == StoreSuite.patience
    expected = getattr(double, "caught_as", ASSERTIONS if in_time else (*ASSERTIONS, TimeoutError))
    kind = recorder.kinds[name]
    assert issubclass(kind, expected), (
        f"{name} fails {recorder.failed[name][0]} by a {kind.__name__}, not by an assertion of the"
        " suite"
    )


def test_a_case_that_fails_a_double_by_time_passes_without_the_defect(recorder: Recorder):
    assert recorder.controlled == recorder.timed
