"""Parts of an invalid document that can be checked further."""

from dataclasses import dataclass
from itertools import count
from typing import Any

from pydantic import ValidationError

from flowkit.graph._faults import NODE_LISTS


@dataclass(slots=True)
class ValidParts:
    """Document without the values that the models reject."""

    rest: dict[str, Any]
    whole: list[int]
    """Positions of the nodes that lost nothing except unknown fields. Those of ``finally`` follow
    the others.
    """
    linked: bool
    """True if no edge was removed."""


def valid_parts(error: ValidationError, document: dict[str, Any]) -> ValidParts:
    """Remove the fields, nodes and edges that the models reject."""
    changed: dict[tuple[str, int], dict[str, Any] | None] = {}
    partial: set[tuple[str, int]] = set()
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
            changed[str(field), number] = None
            linked = False
        elif (
            node := changed.setdefault((str(field), number), dict(document[str(field)][number]))
        ) is not None:
            node.pop(str(path[2]), None)
            node.setdefault("type", "unknown")
            if item["type"] != "extra_forbidden" or len(path) > 3:
                partial.add((str(field), number))
                linked &= path[2] not in ("depends_on", "routing")
    whole: list[int] = []
    places = count()
    for field in NODE_LISTS:
        if field not in rest:
            continue
        nodes = [changed.get((field, number), node) for number, node in enumerate(rest[field])]
        kept = [number for number, node in enumerate(nodes) if node is not None]
        rest[field] = [nodes[number] for number in kept]
        whole += [
            place
            for number, place in zip(kept, places, strict=False)
            if (field, number) not in partial
        ]
    for field, numbers in dropped.items():
        if field in rest and numbers:
            rest[field] = [edge for number, edge in enumerate(rest[field]) if number not in numbers]
    return ValidParts(rest, whole, linked)
