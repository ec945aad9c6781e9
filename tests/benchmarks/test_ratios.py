"""The short look at the speed of FlowKit says which workloads became slower."""

import pytest

from benchmarks.ratios import report


@pytest.mark.parametrize(
    ("ratio", "verdict"), [(0.05, "as expected"), (0.02, "as expected"), (0.019, "SLOWER")]
)
def test_a_ratio_below_the_expected_one_is_reported(ratio, verdict):
    assert verdict in report("chain of 100", ratio, expected=0.02)
