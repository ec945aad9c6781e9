"""The table of functions: by name and form of the call, then by the types of the arguments."""

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
"""Functions that are called as ``name(value)``."""
METHODS: dict[str, Overloads] = {**strings.METHODS, **times.METHODS, "size": _SIZES}
"""Functions that are called as ``value.name()``. The value is the first of the types."""


def argument_counts(overloads: Overloads) -> set[int]:
    """How many arguments a function takes, the value before the dot among them."""
    return {1 if types is ANY else len(types) for types in overloads}
