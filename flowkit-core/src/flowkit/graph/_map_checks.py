"""Checks of maps and of the nodes around them."""

from collections.abc import Iterable, Mapping

from flowkit._expressions import InvalidExpression, compile_expression
from flowkit._expressions.templates import Placed, split_template
from flowkit._json.limits import MAX_ID_CHARS
from flowkit._json.values import short
from flowkit.graph._conditions import NAMES
from flowkit.graph._control_types import CONTROL_TYPES
from flowkit.graph._edges import Link, Links
from flowkit.graph._expanded_plan import LONGEST_CHILD_SUFFIX, split_child_id
from flowkit.graph._expression_checks import INDEX
from flowkit.graph._faults import Faults
from flowkit.graph._later_phases import UNDO_SUFFIX
from flowkit.graph._models import COORDINATOR_FUNCTION, GraphDocument, MapSpec, NodeSpec
from flowkit.graph._node_checks import PULL_ADAPTERS, named_nodes

RESERVED_NAMES = frozenset({*NAMES, INDEX, "iteration", "previous", "schedule", "event", "result"})
"""Names that have a meaning in some expressions."""


def check_maps(
    faults: Faults, document: GraphDocument, links: Links, *, only: Iterable[int] | None = None
) -> None:
    """Check the maps of a graph, the ids that their children and the shards of nodes have, and the
    nodes that read from maps.

    ``only`` restricts the check to the nodes at these positions.
    """
    nodes = document.nodes
    maps = {node.node_id: place for place, node in enumerate(nodes) if node.map is not None}
    sharded = {node.node_id for node in nodes if node.io.shards is not None}
    if not maps and not sharded:
        return
    for place in range(len(nodes)) if only is None else only:
        node, above = nodes[place], links.into[place]
        undone = links.undone_by(place)
        if node.map is not None and undone is None:
            parents = {nodes[parent].node_id: nodes[parent] for parent in above}
            _check_map(faults, node, node.map, above.values(), parents)
        elif node.node_id in sharded:
            _check_id_length(faults, node.node_id, LONGEST_CHILD_SUFFIX, "a node with shards")
        owner, number = split_child_id(node.node_id)
        if number >= 0 and owner in maps and not node.node_id.endswith(UNDO_SUFFIX):
            faults.add(
                node.node_id,
                f"node_id: the map {short(owner)} has children with such ids; use another id",
            )
        elif number >= 0 and owner in sharded:
            faults.add(
                node.node_id,
                f"node_id: the shards of {short(owner)} have such ids; use another id",
            )
        for parent, link in above.items():
            if link.streams and nodes[parent].map is not None:
                faults.add(
                    node.node_id,
                    f"the edge from {short(nodes[parent].node_id)} has the trigger 'on_batch', but"
                    " a map has no batches of its own; remove the trigger",
                )
            elif (
                node.io.start_when == "first_batch"
                and not link.routed
                and nodes[parent].map is not None
            ):
                faults.add(
                    node.node_id,
                    f"io.start_when: the parent {short(nodes[parent].node_id)} is a map, which has"
                    " no batches of its own; remove 'first_batch', and give the edges from other"
                    " parents the trigger 'on_batch'",
                )
        above_here = above if undone is None else [undone]
        parent_ids = {nodes[parent].node_id for parent in above_here}
        _check_reads(faults, node, maps, parent_ids, undoes=undone is not None)


def _check_source(
    faults: Faults, node: NodeSpec, source: str, parents: Mapping[str, NodeSpec]
) -> None:
    """Check that the node whose artifacts are the items is a parent that may have artifacts."""
    parent = parents.get(source)
    if parent is None:
        why = f"is not a parent of {short(node.node_id)}; add it to depends_on"
    elif parent.map is not None:
        why = "is a map, which has no artifacts of its own; use its result, '${results.…}'"
    elif parent.type == COORDINATOR_FUNCTION or parent.type in CONTROL_TYPES:
        why = f"is a node of the type {parent.type!r}, which stores no artifacts; use a handler"
    else:
        return
    faults.add(node.node_id, f"map.over: {short(source)} {why}")


def _check_map(
    faults: Faults,
    node: NodeSpec,
    spec: MapSpec,
    links: Iterable[Link],
    parents: Mapping[str, NodeSpec],
) -> None:
    name = node.node_id
    if node.undo is None:
        _check_id_length(faults, name, LONGEST_CHILD_SUFFIX, "a map")
    else:
        longest = LONGEST_CHILD_SUFFIX + len(UNDO_SUFFIX)
        _check_id_length(faults, name, longest, "a map with an undo")
    control = CONTROL_TYPES.get(node.type)
    if control is not None and control.names:
        faults.add(
            name,
            f"map: a node of the type {node.type!r} has rounds and no items; map a sub-flow that"
            " contains it",
        )
    elif control is not None and not control.runs_child:
        faults.add(
            name,
            f"map: a node of the type {node.type!r} has no items; map a handler, a sub-flow or a"
            " coordinator function",
        )
    if node.type == COORDINATOR_FUNCTION and node.io.fn == "task.end":
        faults.add(name, "map: task.end ends the task with the first item; remove the map")
    if spec.source is not None:
        _check_source(faults, node, spec.source, parents)
    if isinstance(spec.over, str) and not _is_expression(spec.over):
        faults.add(
            name,
            f"map.over: {short(spec.over)} is a text; use a list, or a string that is one"
            " expression, such as '${params.items}'",
        )
    if spec.as_ in RESERVED_NAMES or not _is_name(spec.as_):
        faults.add(
            name, f"map.as: {short(spec.as_)} has another meaning in expressions; use another name"
        )
    if node.io.start_when == "first_batch" or any(link.streams for link in links):
        faults.add(
            name,
            "map: a map reads no batches, and one over artifacts starts on the first one by itself;"
            " remove 'first_batch' or 'on_batch'",
        )


def _check_id_length(faults: Faults, node_id: str, suffix: int, kind: str) -> None:
    """Check that the id of a node leaves room for the ``suffix`` in the ids of its children."""
    most = MAX_ID_CHARS - suffix
    if len(node_id) > most:
        faults.add(
            node_id,
            f"node_id: the id of {kind} has at most {most} characters, because its"
            f" {'children' if 'map' in kind else 'shards'} have longer ids; shorten it",
        )


def _is_expression(text: str) -> bool:
    """Return whether a string is one expression, or has a fault that is reported elsewhere."""
    try:
        parts = split_template(text)
    except InvalidExpression:
        return True
    return len(parts) == 1 and isinstance(parts[0], Placed)


def _is_name(text: str) -> bool:
    try:
        return list(compile_expression(text).paths) == [(text,)]
    except InvalidExpression:
        return False


def _check_reads(
    faults: Faults, node: NodeSpec, maps: Iterable[str], parents: Iterable[str], *, undoes: bool
) -> None:
    """Check that a node does not read the artifacts or batches of a map, which has none. The undo
    of a map may pull without a name: then it reads the artifacts of the child that it undoes.
    """
    named = {target for _, target in named_nodes(node)}
    if node.type == COORDINATOR_FUNCTION:
        if node.io.fn != "metrics.aggregate":
            return
    elif node.io.input_adapter not in PULL_ADAPTERS or (undoes and not named):
        return
    for target in sorted((named or {*parents}).intersection(maps)):
        instead = "its result, the list of the children's results"
        if undoes:
            instead = "the result of the child, 'result'"
            if node.type != COORDINATOR_FUNCTION:
                instead += ", or leave the name out to read the artifacts of the child"
        faults.add(
            node.node_id,
            f"reads the artifacts of the map {short(target)}, which has none of its own; read"
            f" {instead}",
        )
