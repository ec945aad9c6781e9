"""A search for a run that fails: ``python -m tests.mutants.hunt SEEDS FIRST [SCENARIO...]``.

It exits with ``FOUND`` at the first failure, and with 0 if there is none. ``FIRST`` is the run to
try before all others, in the form of ``FIRST_RUNS``, or empty.
"""

import logging
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

from flowkit_testing.simulation import Outcome, Setup, SimCluster, run_seed
from tests.mutants.places import FOUND
from tests.mutants.promises import setups
from tests.simulation.scenarios import STANDARD, Standard, handing_back, of_seed

FREE_OF_FAULTS_SEC = 150.0
"""Longer than any scenario takes without faults."""


def undisturbed(
    scenario: Callable[[SimCluster], Awaitable[object]],
) -> Callable[[SimCluster], Awaitable[None]]:
    """Return the scenario with checks that no attempt runs twice and that it ends in time."""

    async def watched(cluster: SimCluster) -> None:
        began = cluster.clock.monotonic()
        await scenario(cluster)
        took = cluster.clock.monotonic() - began
        begun = Counter(
            (run.task_id, run.node_id, run.attempt)
            for run in cluster.executions
            if run.batch_uid is None
        )
        # Work that is handed back, or run again by hand, is executed again.
        once = scenario is not handing_back and not cluster.invariants.retries
        assert not once or max(begun.values(), default=0) <= 1, f"executed more than once: {begun}"
        assert took < FREE_OF_FAULTS_SEC, f"it took {took:.0f} s"

    return watched


def without_faults(standard: Standard) -> Setup:
    return replace(
        standard.setup("none"),
        scenario=undisturbed(standard.scenario),
        converge_sec=2 * FREE_OF_FAULTS_SEC,
    )


def single(first: str) -> Outcome:
    """Run one promise, one scenario without faults, or one seed with all faults.

    A seed is given as ``SCENARIO:SEED``.
    """
    name, _, seed = first.partition(":")
    if seed:
        return run_seed(STANDARD[name].setup("all"), int(seed))
    return run_seed(setups()[name] if name in setups() else without_faults(STANDARD[name]), 0)


def outcomes(seeds: int, first: str, names: list[str]) -> Iterator[tuple[str, Outcome]]:
    """Yield the outcomes of all runs.

    They are ``first`` if given, then the named scenarios without faults, then each promise, then
    all scenarios without faults if none is named, then seeds with all faults.
    """
    chosen = [STANDARD[name] for name in names] or list(STANDARD.values())
    calm = {standard.name: without_faults(standard) for standard in chosen}
    if first:
        yield first, single(first)
    for name, setup in {**calm, **setups()}.items() if names else {**setups(), **calm}.items():
        yield name, run_seed(setup, 0)
    for seed in range(seeds):
        standard = chosen[seed % len(chosen)] if names else of_seed(seed)
        yield standard.name, run_seed(standard.setup("all"), seed)


def first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]


def main(seeds: str, first: str, *names: str) -> int:
    logging.disable(logging.CRITICAL)
    for number, (name, outcome) in enumerate(outcomes(int(seeds), first, list(names))):
        if outcome.error is not None:
            (seed,) = outcome.report.seeds
            print(
                f"{name}, run {number}, seed {seed}: {type(outcome.error).__name__}:"
                f" {first_line(outcome.error)}"
            )
            return FOUND
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
