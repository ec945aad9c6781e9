"""Edges of a document, collected from ``depends_on``, ``edges``, ``edges_ex`` and ``routing``."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from flowkit._json.values import short
from flowkit.graph._faults import Faults
from flowkit.graph._later_phases import LaterPhases
from flowkit.graph._models import EdgeSpec, GraphDocument, NodeSpec, Routing

NOT_THERE = "add that node or remove the name"


@dataclass(slots=True)
class Link:
    """Edge between two nodes, with all modes and triggers given for it."""

    modes: frozenset[str] = frozenset()
    triggers: frozenset[str] = frozenset()
    routed: bool = False

    @property
    def streams(self) -> bool:
        return "on_batch" in self.triggers or (not self.triggers and "async" in self.modes)


@dataclass(slots=True)
class Links:
    """Parents of each node, in the order in which they are first named."""

    into: list[dict[int, Link]]
    phases: LaterPhases | None = None

    def reader(self, place: int) -> int:
        """Return the node whose parents are above this one: for an undo, its node."""
        return place if self.phases is None else self.phases.reader(place)

    def undone_by(self, place: int) -> int | None:
        """Return the node of an undo; None for any other node."""
        return None if self.phases is None else self.phases.undone_by.get(place)

    def is_later(self, place: int) -> bool:
        """Return whether a node is of a later phase."""
        return self.phases is not None and place >= self.phases.main

    def is_above(self, place: int, other: int) -> bool:
        """Return whether the phases of two nodes put the ``other`` one above the first."""
        return self.phases is not None and self.phases.is_above(place, other)


def collect_links(
    faults: Faults,
    document: GraphDocument,
    index: Mapping[str, int],
    *,
    unreadable: Collection[str] = (),
    phases: LaterPhases | None = None,
) -> Links:
    """Collect the edges of a document that has all nodes of the plan.

    Edges to unknown nodes and from a node to itself are reported as faults and left out. Edges to
    nodes in ``unreadable``, which have faults of their own, are left out silently.
    """
    collector = _LinkCollector(faults, index, unreadable, [{} for _ in document.nodes])
    for place, node in enumerate(document.nodes):
        for name in node.depends_on:
            collector.depend(place, node, name)
    for written, edges in (("edges", document.edges), ("edges_ex", document.edges_ex)):
        for number, edge in enumerate(edges):
            collector.join(f"{written}[{number}]", edge)
    for place, node in enumerate(document.nodes):
        for name in node.routing.on_success:
            collector.route(place, node, "on_success", name)
        for name in node.routing.on_failure:
            collector.route(place, node, "on_failure", name)
    return Links(collector.into, phases)


@dataclass(frozen=True, slots=True)
class _LinkCollector:
    faults: Faults
    index: Mapping[str, int]
    unreadable: Collection[str]
    into: list[dict[int, Link]]

    def depend(self, place: int, node: NodeSpec, name: str) -> None:
        parent = self._find(name, node.node_id, "waits for")
        if parent == place:
            self.faults.add(node.node_id, "depends_on contains the node itself; remove it")
        elif parent is not None:
            self.into[place].setdefault(parent, Link())

    def join(self, written: str, edge: EdgeSpec) -> None:
        source = self._find(
            edge.source, edge.to if edge.to in self.index else None, f"{written} comes from"
        )
        to = self._find(
            edge.to, edge.source if edge.source in self.index else None, f"{written} leads to"
        )
        if source is None or to is None:
            return
        if source == to:
            self.faults.add(edge.to, f"{written} leads from the node to itself; remove it")
            return
        one = self.into[to].setdefault(source, Link())
        one.modes = one.modes.union(filter(None, [edge.mode]))
        one.triggers = one.triggers.union(filter(None, [edge.trigger]))
        said = f"{written}: the edge from {short(edge.source)}"
        if len(one.modes) > 1 or len(one.triggers) > 1:
            self.faults.add(
                edge.to, f"{said} is given twice with a different mode or trigger; remove one"
            )
        elif one.streams and "sync" in one.modes:
            self.faults.add(
                edge.to,
                f"{said} has the trigger 'on_batch', which needs the mode 'async'; change or remove"
                " the mode 'sync'",
            )

    def route(self, place: int, node: NodeSpec, branch: str, name: str) -> None:
        target = self._find(name, node.node_id, f"routing.{branch} leads to")
        if target == place:
            self.faults.add(
                node.node_id,
                f"routing.{branch} leads to the node itself; to retry the node, use retry_policy",
            )
        elif target is not None:
            self.into[target].setdefault(place, Link()).routed = True

    def _find(self, name: str, node_id: str | None, said: str) -> int | None:
        place = self.index.get(name)
        if place is None and name not in self.unreadable:
            hint = self.faults.suggestion(name, self.index, NOT_THERE)
            self.faults.add(node_id, f"{said} {short(name)}, which is not in the graph{hint}")
        return place


def normalized(document: GraphDocument, links: Links) -> GraphDocument:
    """Return the document in its normal form.

    Plain edges are in ``depends_on`` and streaming edges in ``edges``, each once.
    """
    if not (document.edges or document.edges_ex) and not any(links.into):
        return document
    ids = [node.node_id for node in document.nodes]
    nodes, edges = [], []
    for node, above in zip(document.nodes, links.into, strict=True):
        plain = tuple(
            ids[parent] for parent, one in above.items() if not one.routed and not one.streams
        )
        changes: dict[str, object] = {} if plain == node.depends_on else {"depends_on": plain}
        if node.routing.on_success or node.routing.on_failure:
            changes["routing"] = Routing(
                on_success=tuple(dict.fromkeys(node.routing.on_success)),
                on_failure=tuple(dict.fromkeys(node.routing.on_failure)),
            )
        nodes.append(node.model_copy(update=changes) if changes else node)
        for parent, one in above.items():
            if one.streams:
                edges.append(
                    EdgeSpec.model_validate(
                        {"from": ids[parent], "to": node.node_id, "trigger": "on_batch"}
                    )
                )
    return document.model_copy(
        update={"nodes": tuple(nodes), "edges": tuple(edges), "edges_ex": (), "schema_version": "1"}
    )
