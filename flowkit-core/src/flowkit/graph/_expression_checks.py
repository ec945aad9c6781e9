"""Checks of the expressions of a graph: ``when``, and those in inputs and in the output."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from flowkit._expressions import InvalidExpression
from flowkit._expressions.templates import OPENING, Placed, split_template
from flowkit._json.values import short
from flowkit.graph._conditions import (
    KEY_NAMES,
    MAX_TOTAL_LENGTH,
    MAX_TOTAL_PATTERN_WEIGHT,
    PLAIN_NAMES,
    Names,
    NodesRead,
    expression_fault,
    names_in_scope,
    nodes_read,
    pattern_weight,
)
from flowkit.graph._control_types import CONTROL_TYPES, bare_expressions, evaluated_fields
from flowkit.graph._edges import Links
from flowkit.graph._faults import Faults
from flowkit.graph._later_phases import LaterPhases
from flowkit.graph._models import GraphDocument, NodeSpec
from flowkit.graph._path_faults import dash_advice
from flowkit.graph._plan import topological_order
from flowkit.graph._templates import (
    KEY,
    Found,
    has_expressions,
    pointer,
    templates_in,
    templates_in_items,
    templates_in_key,
    templates_in_output,
)

NO_NAMES: frozenset[str] = frozenset()
BARE = frozenset(
    {"when", *(f"/io/{field}" for control in CONTROL_TYPES.values() for field in control.bare)}
)
"""Places of expressions that are written without ``${`` and ``}``."""
_KEY = pointer(KEY)
INDEX = "index"
"""Name of the number of an item in the input of a map."""
MAX_USES = 50_000
"""Maximum number of expressions in the inputs and the output of a graph, each counted where it is
used.
"""


class Use(NamedTuple):
    """Place of an expression in a graph."""

    node: int | None
    """Place of the node; None for the output."""
    where: str
    """``when``, or a JSON pointer."""
    offset: int = 0
    """Position of the expression in its string."""
    names: frozenset[str] = frozenset()
    """Names that it may read there besides those of all expressions."""


def own_names(node: NodeSpec, name: str | None = None) -> frozenset[str]:
    """Return the names that the input of a node can read besides those of all expressions: its
    field of this name, or some field.
    """
    names = NO_NAMES if node.map is None else frozenset((node.map.as_, INDEX))
    control = CONTROL_TYPES.get(node.type)
    if control is None or (name is not None and name not in control.names_in):
        return names
    return names | control.names


@dataclass(slots=True)
class Expressions:
    """Expressions of a graph, each with its uses."""

    uses: dict[str, list[Use]] = field(default_factory=dict)
    in_templates: int = 0
    """Number of uses in inputs and in the output."""

    def collect(self, faults: Faults, node: NodeSpec, place: int) -> None:
        """Add the expressions of a node, and report templates that cannot be read."""
        if node.when is not None:
            self._add(node.when, Use(place, "when"))
        if node.map is not None and node.map.source is None:
            templates = templates_in_items(node.map.over)
            self._collect_templates(faults, templates, node.node_id, place)
        if has_expressions(node.io):
            for found in templates_in(*evaluated_fields(node)):
                names = own_names(node, str(found.path[0]))
                self._collect_templates(faults, [found], node.node_id, place, names)
        names = own_names(node, "concurrency")
        for key in (node.key, node.rate_limit, node.cache):
            self._collect_templates(faults, templates_in_key(key), node.node_id, place, names)
        for name, expression in bare_expressions(node).items():
            self._add(expression, Use(place, f"/io/{name}", names=own_names(node, name)))

    def collect_of_graph(self, faults: Faults, document: GraphDocument) -> None:
        """Add the expressions of the output and the key of the graph, and report what is wrong with
        them.
        """
        self._collect_templates(faults, templates_in_key(document.concurrency), None, None)
        output = document.output
        if isinstance(output, str) and OPENING not in output:
            faults.add(None, f"output: {short(output)} has no expression; write it in '${{ … }}'")
        self._collect_templates(faults, templates_in_output(output), None, None)

    def _collect_templates(
        self,
        faults: Faults,
        templates: Iterable[Found],
        node_id: str | None,
        place: int | None,
        names: frozenset[str] = NO_NAMES,
    ) -> None:
        for found in templates:
            if self.in_templates > MAX_USES:
                return
            where = pointer(found.path)
            try:
                parts = split_template(found.text)
            except InvalidExpression as error:
                faults.add(
                    node_id,
                    f"{where}: {short(found.text)} is not a valid expression: {error}; write '$${{'"
                    " for the text '${'",
                )
                continue
            for part in parts:
                if isinstance(part, Placed):
                    self.in_templates += 1
                    self._add(part.source, Use(place, where, part.position, names))

    def _add(self, expression: str, use: Use) -> None:
        self.uses.setdefault(expression, []).append(use)


def check_expressions(
    faults: Faults,
    nodes: Sequence[NodeSpec],
    expressions: Expressions,
    phases: LaterPhases | None,
    params: Mapping[str, Any] | None,
) -> dict[str, NodesRead]:
    """Check each expression and return the nodes that each valid one reads. ``params`` is the JSON
    Schema of the params, if it is valid.

    Compilation dominates the cost of this check, so each expression is compiled once.
    """
    valid: dict[str, NodesRead] = {}
    if expressions.in_templates > MAX_USES:
        faults.add(None, f"the graph has more than {MAX_USES} expressions in its inputs; use fewer")
        return valid
    if sum(map(len, expressions.uses)) > MAX_TOTAL_LENGTH:
        faults.add(
            None,
            f"the expressions have more than {MAX_TOTAL_LENGTH} characters in total; shorten them",
        )
        return valid
    weight = 0
    for expression, uses in expressions.uses.items():
        faulty = False
        for names, places in _by_names(uses, phases).items():
            if (fault := expression_fault(expression, names, params)) is not None:
                faulty = True
                for use in places:
                    faults.add(
                        None if use.node is None else nodes[use.node].node_id,
                        f"{use.where}: {short(expression)} {fault.text(use.offset)}"
                        f"{_advice(use, expression)}",
                    )
        if faulty:
            continue
        weight += pattern_weight(expression)
        if weight > MAX_TOTAL_PATTERN_WEIGHT:
            faults.add(
                None,
                "the patterns of matches() in the expressions are too large in total; use fewer or"
                " simpler patterns",
            )
            break
        valid[expression] = nodes_read(expression)
    return valid


def _advice(use: Use, expression: str) -> str:
    """Return advice on a template where only a bare expression is allowed."""
    if use.where in BARE and OPENING in expression:
        return f"; {use.where} is a bare expression: leave out '${{' and '}}'"
    return ""


def _by_names(uses: list[Use], phases: LaterPhases | None) -> dict[Names, list[Use]]:
    """Return the uses of an expression by the names that it can read there."""
    if phases is None and not any(use.names or _is_of_key(use) for use in uses):
        return {PLAIN_NAMES: uses}
    found: dict[Names, list[Use]] = {}
    for use in uses:
        names = KEY_NAMES if _is_of_key(use) else names_in_scope(phases, use.node, use.names)
        found.setdefault(names, []).append(use)
    return found


def _is_of_key(use: Use) -> bool:
    """Return whether an expression is in the concurrency key of the graph."""
    return use.node is None and use.where == _KEY


def check_nodes_read(
    faults: Faults,
    document: GraphDocument,
    links: Links,
    index: Mapping[str, int],
    expressions: Expressions,
    valid: Mapping[str, NodesRead],
) -> None:
    """Check that each node named in an expression is in the graph, and upstream of the node that
    has the expression.
    """
    indirect: dict[int, dict[int, str]] = {}
    for expression, reads in valid.items():
        for name, targets in reads.items():
            for target in sorted(targets or ()):
                found = index.get(target)
                for use in expressions.uses[expression]:
                    said = f"{use.where}: {short(expression)} reads {name} of {short(target)}"
                    if found is None:
                        hint = dash_advice(expression, target, index)
                        hint = hint or faults.suggestion(target, index)
                        faults.add(
                            None if use.node is None else document.nodes[use.node].node_id,
                            f"{said}, which is not in the graph{hint}",
                        )
                    elif use.node is None:
                        if links.is_later(found):
                            faults.add(None, f"{said}, which runs after the output is evaluated")
                    elif links.is_above(use.node, found):
                        continue
                    elif found not in links.into[reader := links.reader(use.node)]:
                        said = said if reader == use.node else f"undo: {said}"
                        indirect.setdefault(reader, {})[found] = said
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
