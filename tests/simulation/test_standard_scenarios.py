"""The standard scenarios with fresh seeds, and with seeds that once failed."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from flowkit_testing.simulation import Report, run_seed
from tests.simulation.pool import Chunk, run_seeds
from tests.simulation.scenarios import STANDARD, of_seed

ROOT = Path(__file__).parents[2]
FRESH_SEEDS = 800
WITHOUT_GIT = 1_000_000
REGRESSIONS = json.loads(Path(__file__).with_name("regressions.json").read_text())


def first_fresh_seed() -> int:
    """Return the first fresh seed: each commit has its own, and the same ones each time.

    ``FLOWKIT_TEST_SIM_FIRST`` overrides it.
    """
    chosen = os.environ.get("FLOWKIT_TEST_SIM_FIRST")
    if chosen is not None:
        return int(chosen)
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return WITHOUT_GIT
    return WITHOUT_GIT + int(asked.stdout[:6], 16) * FRESH_SEEDS


@pytest.mark.timeout(600)
def test_fresh_seeds_lose_nothing_and_end(record_property: Callable[[str, object], None]) -> None:
    first = first_fresh_seed()
    found = Chunk()
    for chunk in run_seeds(first, FRESH_SEEDS, processes=os.cpu_count() or 1):
        found.add(chunk)
    record_property("report", f"simulation from seed {first}: {found.report}")
    assert not found.failures, "\n\n".join(map(str, found.failures))
    assert len(found.report.seeds) == FRESH_SEEDS


@pytest.mark.parametrize(
    "regression",
    REGRESSIONS,
    ids=lambda regression: f"{regression['scenario']}-{regression['seed']}",
)
def test_seeds_that_once_found_something_find_it_no_more(regression: dict[str, str | int]) -> None:
    outcome = run_seed(
        STANDARD[str(regression["scenario"])].setup(regression["faults"]), int(regression["seed"])
    )
    assert outcome.error is None, "\n".join([str(outcome.error), *outcome.log[-100:]])


@pytest.mark.parametrize("name", [name for name, standard in STANDARD.items() if standard.once])
def test_without_faults_every_node_is_executed_once_and_no_command_is_sent_twice(name: str) -> None:
    found = Report()
    for seed in range(3):
        outcome = run_seed(STANDARD[name].setup("none"), seed)
        assert outcome.error is None, outcome.error
        found.add(outcome.report)
        executed = [line.split(" executes ")[1] for line in outcome.log if " executes " in line]
        commands = [
            line.split('"kind":"run_node"')[1][:120]
            for line in outcome.log
            if '"kind":"run_node"' in line and "flowkit.control" not in line  # handed over
        ]
        assert len(executed) == len(set(executed)), executed
        assert len(commands) == len(set(commands)), commands
        assert not [line for line in commands if '"attempt":1' not in line]
    assert not found.faults


def test_each_seed_has_its_scenario() -> None:
    assert {of_seed(seed).name for seed in range(300)} == set(STANDARD)
