"""Fields of nodes in which no expressions are evaluated."""

from collections.abc import Iterator

from flowkit._expressions.templates import OPENING
from flowkit.graph._models import NodeSpec


def literal_field_faults(node: NodeSpec, *, is_undo: bool) -> Iterator[str]:
    """Yield the fields of a node that contain ``${`` although they are taken literally. The id of
    an undo follows from that of its node.
    """
    if OPENING in node.type:
        yield not_here("type", "the role")
    if OPENING in node.node_id and not is_undo:
        yield not_here("node_id", "the id")
    if node.io.fn is not None and OPENING in node.io.fn:
        yield not_here("io.fn", "the name of the function")
    if isinstance(node.io.input_adapter, str) and OPENING in node.io.input_adapter:
        yield not_here("io.input_inline.input_adapter", "the name of the adapter")
    for name, label in node.labels.items():
        if OPENING in name or OPENING in label:
            yield not_here("labels", "the label")
            break
    if any(OPENING in code for code in node.retry_policy.permanent_on):
        yield not_here("retry_policy.permanent_on", "the reason code")


def not_here(field: str, value: str) -> str:
    """Return a sentence about a field with an expression that is not evaluated."""
    return f"{field}: expressions ({OPENING}…}}) are not supported here; write {value}"
