"""Parts of an invalid document that can be checked further."""

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError


@dataclass(slots=True)
class ValidParts:
    """Document without the values that the models reject."""

    rest: dict[str, Any]
    whole: list[int]
    """Positions of the nodes that lost nothing except unknown fields."""
    linked: bool
    """True if no edge was removed."""


def valid_parts(error: ValidationError, document: dict[str, Any]) -> ValidParts:
    """Remove the fields, nodes and edges that the models reject."""
    nodes: dict[int, dict[str, Any] | None] = {}
    partial: set[int] = set()
    dropped: dict[str, set[int]] = {"edges": set(), "edges_ex": set()}
    rest = dict(document)
    linked = True
    for item in error.errors(include_url=False, include_context=False, include_input=False):
        path = item["loc"]
        field, number = path[0], path[1] if len(path) > 1 else None
        if not isinstance(number, int):
            rest.pop(str(field), None)
            linked &= field not in dropped
        elif field in dropped:
            dropped[str(field)].add(number)
            linked = False
        elif len(path) == 2 or path[2] == "node_id":
            nodes[number] = None
            linked = False
        elif (node := nodes.setdefault(number, dict(document["nodes"][number]))) is not None:
            node.pop(str(path[2]), None)
            node.setdefault("type", "unknown")
            if item["type"] != "extra_forbidden" or len(path) > 3:
                partial.add(number)
                linked &= path[2] not in ("depends_on", "routing")
    whole = []
    if "nodes" in rest:
        kept = [(number, nodes.get(number, node)) for number, node in enumerate(rest["nodes"])]
        rest["nodes"] = [node for _, node in kept if node is not None]
        whole = [
            place
            for place, (number, _) in enumerate(pair for pair in kept if pair[1] is not None)
            if number not in partial
        ]
    for field, numbers in dropped.items():
        if field in rest and numbers:
            rest[field] = [edge for number, edge in enumerate(rest[field]) if number not in numbers]
    return ValidParts(rest, whole, linked)
