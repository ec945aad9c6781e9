"""Each mutant is caught by the simulation, by a conformance suite or by the test of its rule."""

import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.mutants.first_runs import FIRST_RUNS
from tests.mutants.ground import run
from tests.mutants.patches import MUTANTS
from tests.mutants.places import FOUND, Change, Mutant, mutated

SEEDS = 1000
HEALTHY_SEEDS = 8
LIMIT_SEC = 600

pytestmark = pytest.mark.timeout(LIMIT_SEC)

Hunted = dict[str, Future[tuple[int | None, str]]]


def slug(mutant: Mutant) -> str:
    return mutant.name.replace(" ", "-")


def search_for(mutant: Mutant) -> tuple[str, tuple[str, ...]]:
    """Return the program that searches for a failure, and its arguments."""
    if mutant.suite is not None:
        return "tests.mutants.suite", (mutant.suite,)
    first = FIRST_RUNS.get(mutant.name, "")
    return "tests.mutants.hunt", (str(SEEDS), first, *mutant.scenarios)


def said_by(
    program: str, arguments: Sequence[str], change: Change | None, folder: Path
) -> tuple[int | None, str]:
    """Run a search. Return its exit status and the end of its output."""
    output = folder / "output"
    status = run(program, arguments, change, output=output, limit_sec=LIMIT_SEC)
    return status, output.read_text(encoding="utf-8", errors="replace")[-2000:]


@pytest.fixture(scope="module")
def hunted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Hunted]:
    """Start the searches of all selected mutants, one for each processor at a time."""
    names = {item.name for item in request.session.items}
    wanted = [mutant for mutant in MUTANTS if any(slug(mutant) in name for name in names)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        # Python 3.11 fails now and then when two threads parse code at once: only this one does.
        yield {
            mutant.name: pool.submit(
                said_by, *search_for(mutant), mutated(mutant), tmp_path_factory.mktemp("mutant")
            )
            for mutant in wanted
        }


def test_the_unchanged_code_passes(tmp_path: Path):
    arguments = (str(HEALTHY_SEEDS), "")
    assert said_by("tests.mutants.hunt", arguments, None, tmp_path) == (0, "")


@pytest.mark.parametrize("mutant", MUTANTS, ids=slug)
def test_it_is_found_out(mutant: Mutant, hunted: Hunted):
    status, said = hunted[mutant.name].result()
    assert status == FOUND, f"it was not found out: {said}"
    sys.stdout.write(said)
