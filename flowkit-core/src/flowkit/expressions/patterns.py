"""Regular expressions for ``matches``: an engine that needs linear time, and bounds on what is given to it.

The engine is the one of pydantic, Rust's ``regex``. It cannot be interrupted, so the cost of a pattern is estimated before it is compiled,
and the cost of a search before it begins.
"""

import re
from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

from flowkit.expressions.budget import Budget
from flowkit.expressions.errors import EvaluationError

MAX_PATTERN = 1_000
MAX_STATES = 10_000
"""Of a pattern, with its repetitions written out."""
MAX_WEIGHT = 4_000
"""Of compiling a pattern. One class of Unicode characters, such as ``\\w``, weighs as much as a hundred letters."""
CLASS_WEIGHT = 100
MAX_WORK = 2_000_000
"""States times characters of one search, which the engine does in about 10 ms at worst."""
WORK_A_STEP = 32

_ATOM = re.compile(r"\\[pP]\{\^?\w{1,60}\}|\\x\{[0-9a-fA-F]{1,8}\}|\\.|\(\?[^)(]{0,60}?[:)>]|.", re.DOTALL)
_REPEAT = re.compile(r"[*+?]|\{(\d{0,9})(?:,(\d{0,9}))?\}", re.ASCII)
_CLASSES = frozenset("wWdDsSbBpP")


def matches(budget: Budget, text: str, pattern: str) -> bool:
    """Tell whether a pattern matches some part of a text."""
    states, search = compiled(pattern)
    work = states * (len(text) + 1)
    if work > MAX_WORK:
        raise EvaluationError(f"a string of {len(text)} characters is too long for this pattern")
    budget.spend(1 + work // WORK_A_STEP)
    return search.isinstance_python(text)


@lru_cache(maxsize=64)
def compiled(pattern: str) -> tuple[int, SchemaValidator]:
    """The number of states of a pattern, and what searches for it.

    Raises:
        EvaluationError: it is not a valid pattern, or too large.
    """
    states, weight = cost(pattern) if len(pattern) <= MAX_PATTERN else (0, MAX_WEIGHT + 1)
    if states > MAX_STATES or weight > MAX_WEIGHT:
        raise EvaluationError("the pattern of matches() is too large; use fewer and smaller repetitions")
    try:
        return states, SchemaValidator(core_schema.str_schema(pattern=pattern))
    except SchemaError as error:
        lines = [line.removeprefix("error: ") for line in str(error).splitlines() if line.startswith("error: ")]
        raise EvaluationError(f"the pattern of matches() is not valid: {lines[0] if lines else 'it cannot be read'}"[:200]) from None


def cost(pattern: str) -> tuple[int, int]:
    """Estimate the states of a pattern and the weight of compiling it, from above.

    Each repetition with a count multiplies what stands before it: an atom, or a group with all that is in it.
    """
    totals = [[1, 1]]
    last = [0, 0]
    place, in_class = 0, False
    while place < len(pattern):
        repeat = None if in_class else _REPEAT.match(pattern, place)
        if repeat is not None:
            times = max(int(repeat[2] or 0), int(repeat[1] or 0), 1)
            for part in (0, 1):
                totals[-1][part] += last[part] * (times - 1)
                last[part] *= times
            place = repeat.end()
            continue
        found = _ATOM.match(pattern, place)
        assert found is not None
        atom = found[0]
        place = found.end()
        if in_class:
            in_class = atom != "]"
            totals[-1][1] += CLASS_WEIGHT if atom[0] == "\\" and atom[1:2] in _CLASSES else 1
            last[1] += CLASS_WEIGHT if atom[0] == "\\" and atom[1:2] in _CLASSES else 1
        elif atom[0] == "(" and not atom.endswith(")"):
            totals.append([0, 0])
            last = [0, 0]
        elif atom == ")" and len(totals) > 1:
            last = totals.pop()
            totals[-1] = [one + other for one, other in zip(totals[-1], last, strict=True)]
        else:
            in_class = atom == "["
            last = [1, CLASS_WEIGHT if atom[0] == "\\" and atom[1:2] in _CLASSES else 1]
            totals[-1] = [one + other for one, other in zip(totals[-1], last, strict=True)]
    return tuple(map(sum, zip(*totals, strict=True)))  # type: ignore[return-value]
