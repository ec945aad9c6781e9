"""Nodes that run after the others: undos of nodes, and the nodes of ``finally``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flowkit.graph._models import GraphDocument, NodeSpec, UndoSpec

UNDO_SUFFIX = "~undo"
"""End of the id of an undo, after the id of its node."""


@dataclass(frozen=True, slots=True)
class LaterPhases:
    """Places of the nodes that run after the others. They follow those of ``nodes``: first the
    nodes of ``finally``, then the undos.
    """

    main: int
    """Number of nodes in ``nodes``."""
    final: range
    """Nodes of ``finally``."""
    undos: range
    undo_of: dict[int, int]
    """Undo of each node that has one."""
    undone_by: dict[int, int]
    """Node of each undo."""

    def is_above(self, index: int, other: int) -> bool:
        """Return whether a node is above another because of its phase, not because of an edge."""
        if index in self.final:
            return other not in self.final
        return self.undone_by.get(index) == other

    def phase_name(self, index: int) -> str:
        """Return the name of the phase of a node."""
        return "main" if index < self.main else "finally" if index in self.final else "undo"

    def nodes_above(self, index: int) -> Sequence[int]:
        """Return the nodes that are above a node of a later phase without an edge."""
        if index in self.final:
            return [*range(self.main), *self.undos]
        return [self.undone_by[index]]

    def reader(self, index: int) -> int:
        """Return the node whose parents are above this one: for an undo, its node."""
        return self.undone_by.get(index, index)


def later_phases(document: GraphDocument) -> LaterPhases | None:
    """Return the places of the nodes that run after the others, or None if there are none."""
    undone = [place for place, node in enumerate(document.nodes) if node.undo is not None]
    if not undone and not document.final_nodes:
        return None
    main = len(document.nodes)
    end = main + len(document.final_nodes)
    undos = range(end, end + len(undone))
    return LaterPhases(
        main,
        range(main, end),
        undos,
        dict(zip(undone, undos, strict=True)),
        dict(zip(undos, undone, strict=True)),
    )


def with_later_nodes(document: GraphDocument) -> GraphDocument:
    """Return a document whose ``nodes`` are all nodes of the plan, in its order."""
    undos = [_undo_node(node, node.undo) for node in document.nodes if node.undo is not None]
    if not undos and not document.final_nodes:
        return document
    nodes = (*document.nodes, *document.final_nodes, *undos)
    return document.model_copy(update={"nodes": nodes, "final_nodes": ()})


def without_later_nodes(document: GraphDocument, phases: LaterPhases | None) -> GraphDocument:
    """Return the document from which :func:`with_later_nodes` returned this one."""
    if phases is None:
        return document
    nodes = document.nodes
    final = nodes[phases.final.start : phases.final.stop]
    return document.model_copy(update={"nodes": nodes[: phases.main], "final_nodes": final})


def _undo_node(node: NodeSpec, undo: UndoSpec) -> NodeSpec:
    """Return the node of an undo. Its failure does not fail the task, so it is optional.

    That of a map is a map, too. Its children are the undos of the children of the map, and each
    has the item of the child that it undoes.
    """
    undos: dict[str, Any] = {"over": [], "max_parallel": None, "on_item_failure": "continue"}
    return NodeSpec.model_construct(
        map=None if node.map is None else node.map.model_copy(update=undos),
        node_id=node.node_id + UNDO_SUFFIX,
        type=undo.type,
        io=undo.io,
        retry_policy=undo.retry_policy,
        timeouts=undo.timeouts,
        optional=True,
    )
