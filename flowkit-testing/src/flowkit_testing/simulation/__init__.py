"""Deterministic simulation of a whole FlowKit under faults, replayable from a seed.

Use ``simulate(scenario)`` in a function, or ``@pytest.mark.flowkit_sim(seeds=200, faults="all")``
on a test.
"""

from flowkit_testing.simulation._cluster import Post, ProcessDied, SimCluster
from flowkit_testing.simulation._executions import Execution
from flowkit_testing.simulation._faults import PROFILES, Faults
from flowkit_testing.simulation._invariants import Invariant, InvariantBroken
from flowkit_testing.simulation._loop import SimulationError
from flowkit_testing.simulation._report import Report, SimulationFailed
from flowkit_testing.simulation._runner import (
    Outcome,
    Scenario,
    Setup,
    Stuck,
    crash_everywhere,
    outcomes,
    run_seed,
    setup_of,
    simulate,
)

__all__ = [
    "PROFILES",
    "Execution",
    "Faults",
    "Invariant",
    "InvariantBroken",
    "Outcome",
    "Post",
    "ProcessDied",
    "Report",
    "Scenario",
    "Setup",
    "SimCluster",
    "SimulationError",
    "SimulationFailed",
    "Stuck",
    "crash_everywhere",
    "outcomes",
    "run_seed",
    "setup_of",
    "simulate",
]
