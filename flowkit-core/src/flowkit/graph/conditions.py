"""The expressions of ``when``: CEL, the Common Expression Language, over ``params``, ``vars`` and ``results``.

The library is loaded with the first expression, and this is the only module that knows it.
"""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from flowkit.errors import NodeFailure

VARIABLES = ("params", "vars", "results")
MAX_LENGTH = 4_096
MAX_TOTAL_LENGTH = 512 * 1024
"""Of the different expressions of one graph together."""
MAX_LOOPS = 3
"""``all``, ``exists`` and their like may stand in each other, and each multiplies the time an expression takes."""

_LOOP = re.compile(r"\.\s*(?:all|exists|exists_one|map|filter)\s*\(\s*([A-Za-z_]\w*)\s*,")


def check_condition(expression: str) -> str | None:
    """What is wrong with an expression, as a sentence, or None."""
    if len(expression) > MAX_LENGTH:
        return f"is longer than {MAX_LENGTH} characters"
    loops = _LOOP.findall(expression)
    if len(loops) > MAX_LOOPS:
        return f"has {len(loops)} loops (all, exists, map, filter); {MAX_LOOPS} are allowed"
    try:
        _, names = _compiled(expression)
    except ValueError as error:
        return f"is not a CEL expression: {_reason(error)}"
    strange = [name for name in names if name not in VARIABLES and name not in loops and not name.startswith("@")]
    if strange:
        return f"uses {', '.join(map(repr, strange))}; there are only params, vars and results"
    return None


def evaluate_condition(
    expression: str,
    *,
    params: Mapping[str, Any],
    vars: Mapping[str, Any],  # noqa: A002
    results: Mapping[str, Any],
) -> bool:
    """Whether an expression holds.

    Raises:
        NodeFailure: it cannot be evaluated, or is neither true nor false; permanent, with the reason code ``bad_condition``.
    """
    scope = {"params": params, "vars": vars, "results": results}
    try:
        program, names = _compiled(expression)
        value = program.execute({name: scope[name] for name in names if name in scope})
    except Exception as error:  # the library raises whatever fits: KeyError, TypeError, RuntimeError, ...
        raise _failure(expression, _why(error)) from None
    if value is not True and value is not False:
        raise _failure(expression, f"it is {type(value).__name__}, neither true nor false")
    return value


@lru_cache(maxsize=1024)
def _compiled(expression: str) -> tuple[Any, tuple[str, ...]]:
    """The program, and the names it uses: what it does not use need not be handed over, which costs time by size."""
    import cel

    program = cel.compile(expression)
    return program, tuple(program.variables())


def _reason(error: ValueError) -> str:
    """The library repeats the expression and draws it under its complaint; the complaint is the part to show."""
    text = str(error)
    if "Recursion limit" in text:
        return "brackets stand in each other too deeply"
    lines = text.splitlines()
    complaint = next((line for line in lines if "ERROR:" in line), lines[0] if lines else "")
    return re.sub(r"^.*?ERROR: (?:<input>:)?", "", complaint)[:300]


def _why(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error.args[0]!r}" if error.args else "something is missing"
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def _failure(expression: str, why: str) -> NodeFailure:
    return NodeFailure(f"when: {expression[:200]!r} cannot be decided: {why}", reason_code="bad_condition", permanent=True)
