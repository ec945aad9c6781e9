"""Metrics: numbers by name."""

import math
from collections.abc import Mapping

Numbers = dict[str, float | int]


def is_finite(value: float) -> bool:
    """Return whether a number is finite as a float: a reader may convert an integer to one."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def add_numbers(total: Numbers, more: Mapping[str, float | int]) -> None:
    """Add numbers by name. A sum above the range of floats becomes infinity."""
    for name, value in more.items():
        try:
            total[name] = total.get(name, 0) + value
        except OverflowError:
            total[name] = math.inf
