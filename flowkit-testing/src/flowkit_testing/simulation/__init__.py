"""A whole FlowKit in which everything goes wrong that may, run again and again from seeds, and the same each time.

``simulate(scenario)`` for a function, ``@pytest.mark.flowkit_sim(seeds=200, faults="all")`` for a test.
"""

from ._executions import Execution
from ._invariants import Invariant, InvariantBroken
from ._loop import SimulationError
from .cluster import Post, ProcessDied, SimCluster
from .faults import PROFILES, Faults
from .report import Report, SimulationFailed
from .running import Outcome, Scenario, Setup, Stuck, crash_everywhere, outcomes, run_seed, setup_of, simulate

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
