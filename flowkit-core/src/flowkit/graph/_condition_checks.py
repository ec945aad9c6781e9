"""Checks of the ``when`` conditions of a graph against its nodes."""

from collections.abc import Iterable, Mapping

from flowkit._json.values import short
from flowkit.graph._conditions import (
    MAX_TOTAL_LENGTH,
    MAX_TOTAL_PATTERN_WEIGHT,
    NodesRead,
    check_condition,
    nodes_read,
    pattern_weight,
)
from flowkit.graph._edges import Links
from flowkit.graph._faults import Faults
from flowkit.graph._models import GraphDocument
from flowkit.graph._plan import topological_order


def check_conditions(faults: Faults, conditions: Mapping[str, list[str]]) -> dict[str, NodesRead]:
    """Check each expression and return the nodes that each valid one reads.

    ``conditions`` maps each expression to the nodes that use it. Compilation dominates the cost of
    this check, so each expression is compiled once.
    """
    valid: dict[str, NodesRead] = {}
    if sum(map(len, conditions)) > MAX_TOTAL_LENGTH:
        faults.add(
            None,
            f"the 'when' expressions have more than {MAX_TOTAL_LENGTH} characters in total; shorten"
            " them",
        )
        return valid
    weight = 0
    for expression, names in conditions.items():
        if (reason := check_condition(expression)) is not None:
            for name in names:
                faults.add(name, f"when: {short(expression)} {reason}")
            continue
        weight += pattern_weight(expression)
        if weight > MAX_TOTAL_PATTERN_WEIGHT:
            faults.add(
                None,
                "the patterns of matches() in the 'when' expressions are too large in total; use"
                " fewer or simpler patterns",
            )
            break
        valid[expression] = nodes_read(expression)
    return valid


def check_nodes_read(
    faults: Faults,
    document: GraphDocument,
    links: Links,
    index: Mapping[str, int],
    valid: Mapping[str, NodesRead],
    *,
    only: Iterable[int] | None = None,
) -> None:
    """Check that each node named in a condition is upstream of the node that has the condition.

    ``only`` restricts the check to the nodes at these positions.
    """
    indirect: dict[int, dict[int, str]] = {}
    for place in range(len(document.nodes)) if only is None else only:
        node = document.nodes[place]
        if node.when is None:
            continue
        for name, targets in valid.get(node.when, {}).items():
            for target in sorted(targets or ()):
                found = index.get(target)
                said = f"when: {short(node.when)} reads {name} of {short(target)}"
                if found is None:
                    faults.add(
                        node.node_id,
                        f"{said}, which is not in the graph{faults.suggestion(target, index)}",
                    )
                elif found not in links.into[place]:
                    indirect.setdefault(place, {})[found] = said
    if indirect:
        _check_above(faults, document, links, indirect)


def _check_above(
    faults: Faults, document: GraphDocument, links: Links, indirect: Mapping[int, Mapping[int, str]]
) -> None:
    """Check that the nodes in ``indirect`` are upstream of their readers.

    Each target has one bit of an integer. The bits are passed down in topological order.
    """
    bits = {
        target: 1 << number
        for number, target in enumerate(
            {target for targets in indirect.values() for target in targets}
        )
    }
    above = [0] * len(document.nodes)
    for place in topological_order([list(parents) for parents in links.into]):
        for parent in links.into[place]:
            above[place] |= above[parent] | bits.get(parent, 0)
        for target, said in indirect.get(place, {}).items():
            if not above[place] & bits[target]:
                faults.add(
                    document.nodes[place].node_id,
                    f"{said}, which is not upstream of this node; add an edge or remove the name",
                )
