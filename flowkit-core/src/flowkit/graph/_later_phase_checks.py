"""Checks of undos, and of the nodes of ``finally``."""

from flowkit._json.limits import MAX_ID_CHARS
from flowkit._json.values import short
from flowkit.graph._control_types import CONTROL_TYPES
from flowkit.graph._edges import Links
from flowkit.graph._faults import Faults
from flowkit.graph._later_phases import UNDO_SUFFIX, LaterPhases
from flowkit.graph._models import COORDINATOR_FUNCTION, GraphDocument


def check_later_phases(faults: Faults, document: GraphDocument, phases: LaterPhases | None) -> None:
    """Check the ids and the types of the nodes, and that no node of ``finally`` has an undo.
    ``document`` has all nodes of the plan.
    """
    for node in () if phases is None else document.nodes[phases.undos.start :]:
        control = CONTROL_TYPES.get(node.type)
        if control is not None:
            reason = "runs no child tasks" if control.runs_child else "does not wait"
            faults.add(
                node.node_id,
                f"type {node.type!r}: an undo {reason}; use a role or {COORDINATOR_FUNCTION!r}",
            )
    for node in () if phases is None else document.nodes[phases.main :]:
        if node.type == COORDINATOR_FUNCTION and node.io.fn == "task.end":
            faults.add(
                node.node_id,
                "io.fn: task.end has no effect in undos and in finally; remove it",
            )
    written = document.nodes if phases is None else document.nodes[: phases.undos.start]
    for place, node in enumerate(written):
        if node.node_id.endswith(UNDO_SUFFIX):
            faults.add(
                node.node_id,
                f"node_id ends with {UNDO_SUFFIX!r}, as the ids of undos do; choose another id",
            )
        if node.undo is None or phases is None:
            continue
        if place in phases.final:
            faults.add(node.node_id, "undo: nodes of finally are not undone; remove it")
        elif node.map is None and len(node.node_id) + len(UNDO_SUFFIX) > MAX_ID_CHARS:
            faults.add(
                node.node_id,
                f"node_id of a node with an undo must have at most"
                f" {MAX_ID_CHARS - len(UNDO_SUFFIX)} characters; shorten it",
            )


def check_edges_between_phases(faults: Faults, document: GraphDocument, links: Links) -> None:
    """Report edges between a node of ``finally`` and another node, and remove them."""
    phases = links.phases
    if phases is None:
        return
    for place, above in enumerate(links.into):
        for parent in [
            parent for parent in above if (parent in phases.final) != (place in phases.final)
        ]:
            del above[parent]
            inside, outside = (place, parent) if place in phases.final else (parent, place)
            faults.add(
                document.nodes[place].node_id,
                f"an edge joins {short(document.nodes[outside].node_id)} and"
                f" {short(document.nodes[inside].node_id)}, which is in finally: its nodes run when"
                " all others have ended; remove the edge",
            )
