"""Expressions in the params of schedules and triggers."""

from collections.abc import Iterator, Mapping
from typing import Any

from flowkit._expressions import InvalidExpression
from flowkit._expressions.templates import Placed, split_template
from flowkit._json.values import short
from flowkit.graph._conditions import Names, expression_fault
from flowkit.graph._templates import pointer, templates_in_params


def expression_faults(params: Mapping[str, Any], names: Names) -> Iterator[str]:
    """Yield what is wrong with the expressions in params, which can read these names."""
    for found in templates_in_params(params):
        where = pointer(found.path)
        try:
            parts = split_template(found.text)
        except InvalidExpression as error:
            yield f"{where}: {short(found.text)} is not a valid expression: {error}"
            continue
        for part in parts:
            if isinstance(part, Placed) and (fault := expression_fault(part.source, names)):
                yield f"{where}: {short(part.source)} {fault.text(part.position)}"
