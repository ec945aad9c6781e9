"""Regular expressions of ``matches``, matched in linear time and within limits.

The engine is Rust's ``regex``, which comes with pydantic. It cannot be interrupted and blocks the
interpreter. So the cost of a pattern is estimated before it is compiled, and the cost of a search
before it starts.
"""

from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

from flowkit._expressions.budget import Budget
from flowkit._expressions.errors import EvaluationError
from flowkit._expressions.pattern_costs import MAX_WEIGHT, Cost, cost

MAX_PATTERN = 1_000
MAX_WORK = 2_000_000
"""Maximum of states times characters in one search, which takes about 20 ms at worst."""
WORK_A_STEP = 32
WEIGHT_STEPS = 2
"""Charged per unit of weight of a compiled pattern."""
WEIGHT_BYTES = 200
LIGHT = MAX_WEIGHT // 20
"""Maximum weight of patterns in the larger cache, because heavier ones use more memory."""


def matches(budget: Budget, text: str, pattern: str) -> bool:
    """Tell whether a pattern matches some part of a text.

    The first use of a pattern in an evaluation is charged for compiling it, even if it is cached.
    So the cost of an evaluation depends only on its values.
    """
    found = budget.patterns.get(pattern)
    if found is None:
        found = budget.patterns[pattern] = _compiled(budget, pattern)
    known, search = found
    work = (known.states if text.isascii() else known.states_beyond_ascii) * (len(text) + 1)
    if work > MAX_WORK:
        raise EvaluationError(f"a string of {len(text)} characters is too long for this pattern")
    budget.spend(1 + work // WORK_A_STEP)
    return bool(search.isinstance_python(text))


def check_pattern(pattern: str) -> int:
    """Check a pattern without compiling it, and return the weight of this check.

    The engine does not compile a part that is repeated 0 times.

    Raises:
        EvaluationError: the pattern is invalid or too large.
    """
    found = _cost(pattern)
    _engine(f"(?:{pattern}){{0}}")
    return found.reading


def _compiled(budget: Budget, pattern: str) -> tuple[Cost, SchemaValidator]:
    budget.spend(1 + 4 * min(len(pattern), MAX_PATTERN))
    found = _cost(pattern)
    budget.spend(WEIGHT_STEPS * found.weight)
    budget.allocate(WEIGHT_BYTES * found.weight)
    return found, _keep_light(pattern) if found.weight <= LIGHT else _keep_heavy(pattern)


def _cost(pattern: str) -> Cost:
    if len(pattern) > MAX_PATTERN:
        raise EvaluationError(f"the pattern of matches() is longer than {MAX_PATTERN:,} characters")
    return cost(pattern)


def _engine(pattern: str) -> SchemaValidator:
    try:
        return SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        lines = [
            line.removeprefix("error: ")
            for line in str(error).splitlines()
            if line.startswith("error: ")
        ]
        raise EvaluationError(
            f"the pattern of matches() is not valid: {lines[0] if lines else 'it cannot be read'}"[
                :200
            ]
        ) from None


_keep_light = lru_cache(maxsize=256)(_engine)
_keep_heavy = lru_cache(maxsize=32)(_engine)
