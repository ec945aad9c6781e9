"""Table of functions by name, form of the call, and types of the arguments."""

from typing import Any

from flowkit._expressions import conversions, strings, times
from flowkit._expressions.budget import Budget
from flowkit._expressions.values import ANY, Overloads


def _size(budget: Budget, value: Any) -> int:
    return len(value)


_SIZES: Overloads = {(kind,): _size for kind in (str, bytes, list, dict)}

GLOBAL: dict[str, Overloads] = {
    **conversions.FUNCTIONS,
    "size": _SIZES,
    "matches": strings.METHODS["matches"],
}
"""Functions called as ``name(value)``."""
METHODS: dict[str, Overloads] = {**strings.METHODS, **times.METHODS, "size": _SIZES}
"""Functions called as ``value.name()``. The first type is that of the value."""


def argument_counts(overloads: Overloads) -> set[int]:
    """Return the possible numbers of arguments, including the value before the dot."""
    return {1 if types is ANY else len(types) for types in overloads}
