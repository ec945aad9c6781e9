"""Expressions of nodes: the names that they may read, and the evaluation of ``when``."""

from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from flowkit._expressions import (
    Budget,
    BudgetExceeded,
    EvaluationError,
    InvalidExpression,
    Timestamp,
    compile_expression,
)
from flowkit._expressions.values import type_name
from flowkit.errors import NodeFailure
from flowkit.graph._later_phases import LaterPhases
from flowkit.graph._path_faults import EVENT_FIELDS, ExpressionFault, path_fault

NAMES = ("params", "vars", "results", "errors", "task")
NAMES_BY_NODE = ("results", "errors")
"""Names whose fields are upstream nodes."""
TASK_FIELDS = ("id", "pipeline", "labels", "created_at")


class Names(NamedTuple):
    """Names that an expression can read."""

    names: tuple[str, ...] = NAMES
    task: tuple[str, ...] = TASK_FIELDS
    """Fields of the name ``task``."""
    event: tuple[str, ...] = EVENT_FIELDS
    """Fields of the name ``event``."""
    event_value: tuple[str, ...] | None = None
    """Fields of ``event.value``; None if it may have any."""


PLAIN_NAMES = Names()
FINALLY_NAMES = Names(task=(*TASK_FIELDS, "status", "error"))
KEY_NAMES = Names(names=("params", "task"))
"""Names in the concurrency key of a graph: those that have values before the first node."""
UNDO_NAMES = Names(names=(*NAMES, "result"))
NodesRead = Mapping[str, frozenset[str] | None]
"""Nodes that an expression reads, for each of ``NAMES_BY_NODE``; None if it may read any node."""
MAX_TOTAL_LENGTH = 256 * 1024
"""Maximum total length of the distinct expressions of a graph."""
MAX_TOTAL_PATTERN_WEIGHT = 250_000
"""Maximum total weight of checking the constant patterns of these expressions.

A weight of 1 is about a microsecond.
"""
MAX_STEPS, MAX_MEMORY = 2_000_000, 64_000_000
"""Limits of one evaluation."""


def pattern_weight(expression: str) -> int:
    """Return the weight of the constant patterns in a valid expression."""
    return compile_expression(expression).pattern_weight


def names_in_scope(
    phases: LaterPhases | None, index: int | None, own: Collection[str] = ()
) -> Names:
    """Return the names that the expressions of a node can read, or the output if ``index`` is
    None. ``own`` are further names, which only these expressions can read.
    """
    names = PLAIN_NAMES
    if phases is not None and index is not None and index >= phases.main:
        names = FINALLY_NAMES if index in phases.final else UNDO_NAMES
    return names._replace(names=(*names.names, *sorted(own))) if own else names


def expression_fault(
    expression: str, names: Names = PLAIN_NAMES, params: Mapping[str, Any] | None = None
) -> ExpressionFault | None:
    """Return what is wrong with an expression, or None. ``params`` is the JSON Schema of params."""
    try:
        compiled = compile_expression(expression)
    except InvalidExpression as error:
        return ExpressionFault(f"is not a valid expression: {error.reason}", error.position)
    for path, position in compiled.paths.items():
        fault = path_fault(
            path,
            position,
            expression=expression,
            names=names.names,
            task=names.task,
            event=names.event,
            event_value=names.event_value,
            params=params,
        )
        if fault is not None:
            return fault
    return None


def check_condition(expression: str) -> str | None:
    """Return what is wrong with an expression, as the end of a sentence, or None."""
    fault = expression_fault(expression)
    return None if fault is None else fault.text()


def task_values(
    task_id: str, pipeline: str | None, labels: Mapping[str, str], created_at: float
) -> dict[str, Any]:
    """Return the value of the name ``task``."""
    return {
        "id": task_id,
        "pipeline": pipeline,
        "labels": labels,
        "created_at": Timestamp(round(created_at * 1_000_000) * 1_000),
    }


@lru_cache(maxsize=1024)
def nodes_read(expression: str) -> NodesRead:
    """Return the nodes that an expression reads."""
    found: dict[str, set[str] | None] = {}
    for path in compile_expression(expression).paths:
        if path[0] not in NAMES_BY_NODE:
            continue
        known = found.setdefault(path[0], set())
        if len(path) == 1:
            found[path[0]] = None
        elif known is not None:
            known.add(path[1])
    return {name: None if nodes is None else frozenset(nodes) for name, nodes in found.items()}


def evaluate_condition(
    expression: str, scope: Mapping[str, Any], budget: Budget | None = None
) -> bool:
    """Return the value of a condition. ``scope`` must have a value for each of :data:`NAMES`.

    Raises:
        NodeFailure: it cannot be evaluated, or its value is not true or false; permanent, with
            the reason code ``bad_condition``.
        BudgetExceeded: it needs more than the given ``budget``. Without one, that is a NodeFailure
            as well.
    """
    try:
        value = compile_expression(expression).evaluate(
            scope, budget or Budget(MAX_STEPS, MAX_MEMORY)
        )
    except BudgetExceeded as error:
        if budget is not None:
            raise
        raise condition_failure(expression, str(error)) from None
    except (EvaluationError, InvalidExpression) as error:
        raise condition_failure(expression, str(error)) from None
    except (RecursionError, MemoryError):
        raise condition_failure(
            expression, "its values are too large or nested too deeply"
        ) from None
    if value is not True and value is not False:
        raise condition_failure(
            expression, f"its value must be true or false, not {type_name(value)}"
        )
    return value


def condition_failure(expression: str, why: str) -> NodeFailure:
    """Return the failure of a node whose condition cannot be evaluated."""
    return NodeFailure(
        f"when: {expression[:200]!r} cannot be evaluated: {why}",
        reason_code="bad_condition",
        permanent=True,
    )
