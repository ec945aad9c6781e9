"""The same seed gives the same run in every interpreter."""

import os
import subprocess
import sys

import pytest

from flowkit_testing.simulation import run_seed, simulate
from tests.simulation.scenarios import HANDLERS, of_seed

PROGRAM = """
import logging
import sys

logging.disable(logging.CRITICAL)
garbage = [object() for _ in range(int(sys.argv[1]))]
from flowkit_testing.simulation import run_seed
from tests.simulation.scenarios import of_seed

seeds = list(range(0, 130, 4))
if int(sys.argv[1]) % 2:
    seeds.reverse()
found = {seed: run_seed(of_seed(seed).setup("all"), seed).report.hashes[seed] for seed in seeds}
print(sorted(found.items()))
"""


def hashes(hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    command = [sys.executable, "-c", PROGRAM, str(hash_seed * 1001)]
    return subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True
    ).stdout


@pytest.mark.timeout(600)
def test_the_event_log_does_not_depend_on_the_interpreter_nor_on_what_ran_before() -> None:
    one, other = hashes(1), hashes(2)
    assert one == other
    assert len(one) > 500


def test_a_seed_gives_the_same_log_twice_and_another_one_another() -> None:
    def run(seed: int) -> str:
        return run_seed(of_seed(0).setup("all"), seed).report.hashes[seed]

    assert run(0) == run(0)
    assert run(0) != run(1)


def test_a_seed_alone_is_what_it_is_among_others() -> None:
    scenario = of_seed(0).scenario
    together = simulate(scenario, seeds=5, handlers=HANDLERS, faults="all")
    alone = simulate(scenario, seed=4, handlers=HANDLERS, faults="all")
    assert alone.hashes[4] == together.hashes[4]
