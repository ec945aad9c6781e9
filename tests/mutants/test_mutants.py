"""Each mutant is caught by the simulation or by a conformance suite."""

import os
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutants.first_runs import FIRST_RUNS
from tests.mutants.ground import prepare, run
from tests.mutants.hunt import FOUND
from tests.mutants.patches import MUTANTS
from tests.mutants.places import Mutant

SEEDS = 1000
HEALTHY_SEEDS = 40
LIMIT_SEC = 600

pytestmark = pytest.mark.timeout(LIMIT_SEC)

Hunted = dict[str, Future[tuple[int, str]]]


def slug(mutant: Mutant) -> str:
    return mutant.name.replace(" ", "-")


def hunt(mutant: Mutant | None, folder: Path, *, seeds: int = SEEDS) -> tuple[int, str]:
    """Run the search for a failure. Return its exit status and the end of its output."""
    environment = prepare(mutant, folder)
    if mutant is not None and mutant.suite is not None:
        command = ["pytest", mutant.suite, "-x", "-q", "-p", "no:cacheprovider", "-p", "no:cov"]
    else:
        first, scenarios = (
            (FIRST_RUNS.get(mutant.name, ""), mutant.scenarios) if mutant is not None else ("", ())
        )
        command = ["tests.mutants.hunt", str(seeds), first, *scenarios]
    done = run(command, environment, limit_sec=LIMIT_SEC)
    return done.returncode, (done.stdout + done.stderr)[-2000:]


@pytest.fixture(scope="module")
def hunted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hunted]:
    """Start the searches of all selected mutants, one for each processor at a time."""
    names = {item.name for item in request.session.items}
    wanted = [mutant for mutant in MUTANTS if any(slug(mutant) in name for name in names)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        yield {
            mutant.name: pool.submit(hunt, mutant, tmp_path_factory.mktemp("mutant"))
            for mutant in wanted
        }


def test_the_unchanged_code_passes(tmp_path: Path):
    assert hunt(None, tmp_path, seeds=HEALTHY_SEEDS) == (0, "")


@pytest.mark.parametrize("mutant", MUTANTS, ids=slug)
def test_it_is_found_out(mutant: Mutant, hunted: Hunted):
    status, said = hunted[mutant.name].result()
    assert status == (FOUND if mutant.suite is None else pytest.ExitCode.TESTS_FAILED), (
        f"it was not found out: {said}"
    )
    sys.stdout.write(said)
