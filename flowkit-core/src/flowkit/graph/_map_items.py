"""Items of a map: the list in ``map.over``, or the value of its expression."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit._expressions import Budget
from flowkit._json.values import kind_of
from flowkit.errors import NodeFailure
from flowkit.graph._models import NodeSpec
from flowkit.graph._templates import evaluate_items, expressions_in_items


def over_of(node: NodeSpec) -> Any:
    """Return the field ``map.over`` of a map."""
    assert node.map is not None
    return node.map.over


def over_expressions(node: NodeSpec) -> Iterator[str]:
    """Yield the expressions in ``map.over``."""
    over = over_of(node)
    return iter(()) if isinstance(over, dict) else expressions_in_items(over)


def items_of(
    node: NodeSpec, scope: Mapping[str, Any], budget: Budget, *, at_once: bool = False
) -> list[Any]:
    """Return the items of a map.

    Raises:
        NodeFailure: an expression has no value, or the value is not a list; permanent, with the
            reason code ``bad_expression`` or ``bad_map``.
        BudgetExceeded: the budget does not suffice.
    """
    items = evaluate_items(over_of(node), scope, budget, at_once=at_once)
    if not isinstance(items, list):
        raise NodeFailure(
            f"map.over must be a list, not {kind_of(items)}", reason_code="bad_map", permanent=True
        )
    return items
