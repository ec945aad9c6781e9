"""What must hold between the conditions of a graph and its nodes."""

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
    """Check expressions, each with the nodes that have it, and return the nodes that each valid one
    reads.

    Compiling dominates the cost of this check, so that each expression is compiled once.
    """
    valid: dict[str, NodesRead] = {}
    if sum(map(len, conditions)) > MAX_TOTAL_LENGTH:
        faults.add(
            None,
            f"the 'when' expressions have more than {MAX_TOTAL_LENGTH} characters together; shorten"
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
                "the patterns of matches() in the 'when' expressions are too large together; use"
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
    """Check that the nodes which ``valid`` conditions name are above the nodes that have them (or
    those at these places).
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
    """Pass down, edge by edge, which of the named nodes are above each node, as the bits of a
    number.
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
                    f"{said}, which is not above this node; add an edge or remove the name",
                )
