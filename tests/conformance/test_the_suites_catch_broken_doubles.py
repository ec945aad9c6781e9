"""A suite that nothing fails proves nothing: each double with a defect fails at least one case."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conformance import broken_doubles

# All doubles run in the set-up of the first test, and some of them start processes.
pytestmark = pytest.mark.timeout(900)

DOUBLES = sorted(name for name in vars(broken_doubles) if name.startswith("Test"))


class Recorder:
    """Notes which cases fail, and leaves out the other cases of a double that has failed one.

    A double that says by which test it is ``caught_by`` is run through that test alone.
    """

    def __init__(self) -> None:
        self.failed: defaultdict[str, list[str]] = defaultdict(list)

    def pytest_pycollect_makeitem(self, collector: pytest.Collector, name: str) -> list[pytest.Item] | None:
        aim = getattr(getattr(collector, "obj", None), "caught_by", name)
        return [] if name.startswith("test_") and name != aim else None

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for item in session.items:
            if not self.failed.get(item.nodeid.split("::")[1]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and report.when == "call":
            self.failed[report.nodeid.split("::")[1]].append(report.nodeid)
        elif report.failed:
            self.failed["errors"].append(f"{report.nodeid}: {report.longreprtext}")


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[str]]:
    """The failed cases by double, of one run of pytest within this one."""
    ini = tmp_path_factory.mktemp("broken") / "pytest.ini"
    ini.write_text("[pytest]\n")
    recorder = Recorder()
    without = [option for name in ("cacheprovider", "terminal", "timeout", "pytest_cov") for option in ("-p", f"no:{name}")]
    path = Path(broken_doubles.__file__)
    pytest.main(["-c", str(ini), "--noconftest", "--import-mode=importlib", "--capture=no", *without, str(path)], plugins=[recorder])
    return recorder.failed


def test_the_run_itself_is_well(failures: Mapping[str, list[str]]):
    assert failures.get("errors", []) == []


@pytest.mark.parametrize("double", DOUBLES)
def test_a_double_with_a_defect_fails_a_case(failures: Mapping[str, list[str]], double: str):
    assert failures.get(double), f"no case fails for {double}"
