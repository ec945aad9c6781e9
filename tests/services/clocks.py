"""Processes whose wall clock is wrong."""

import os
from collections.abc import Mapping
from pathlib import Path

DAY_SEC = 86_400.0


def shifted(environment: Mapping[str, str], seconds: float) -> dict[str, str]:
    """Return the environment of a process whose wall clock is ``seconds`` ahead."""
    path = os.pathsep.join(
        [str(Path(__file__).parent / "shifted_clock"), environment.get("PYTHONPATH", "")]
    )
    return {**environment, "PYTHONPATH": path, "FLOWKIT_TEST_CLOCK_SHIFT": str(seconds)}
