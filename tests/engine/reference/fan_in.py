"""Rules of fan-ins: whether a node may start, waits, or never starts."""

from flowkit.graph import Edge, Route
from tests.engine.reference.state import ENDED, IN_FLIGHT, Node, State


def met(state: State, node: Node) -> bool | None:
    """Return whether a node's fan-in holds; None if it never will."""
    edges = state.plan.parents[node.index]
    known = [said(state, edge) for edge in edges]
    need = state.spec(node).fan_in
    if not edges:
        return True
    if need == "all":
        if "bad" in known or set(known) == {"nothing"}:
            return None
        return "open" not in known
    if need == "ended":
        if "open" in known:
            return False
        not_taken = set(known) == {"nothing"} and all(edge.route for edge in edges)
        return None if not_taken else True
    wanted = 1 if need == "any" else int(need.split(":")[1])
    if known.count("good") >= wanted:
        return True
    return False if known.count("good") + known.count("open") >= wanted else None


def said(state: State, edge: Edge) -> str:
    """Return the state of an edge: ``open``, ``good``, ``bad`` or ``nothing``.

    ``bad`` means that the parent owes data that will not come, ``nothing`` that it owes none.
    An edge on failure is owed nothing unless the parent itself failed. An edge on success is
    owed nothing after a handled failure, because the branch was not taken. A skipped parent
    owes the data that it was owed itself.
    """
    parent = state.nodes[edge.node]
    if parent.state not in ENDED:
        return "open"
    if edge.route is Route.ON_FAILURE:
        return "good" if parent.state == "failed" else "nothing"
    if parent.state == "finished":
        return "good"
    if parent.state == "skipped" and not parent.starved:
        return "nothing"
    branch_not_taken = (
        edge.route is Route.ON_SUCCESS and parent.state == "failed" and is_handled(state, edge.node)
    )
    optional = state.plan.nodes[edge.node].optional
    return "nothing" if branch_not_taken or optional else "bad"


def streams(state: State, node: Node) -> bool:
    """Return whether a streaming parent has a batch and all others have ended. A map streams from
    the parent whose artifacts are its items.
    """
    edges = state.plan.parents[node.index]
    batches = [state.nodes[edge.node].has_batch for edge in edges if edge.streams]
    return any(batches) and all(
        state.nodes[edge.node].state in ENDED for edge in edges if not edge.streams
    )


def failed_for_good(state: State, node: Node) -> bool:
    """Return whether a node failed that is not optional, and no branch handles it."""
    return (
        node.state == "failed"
        and not state.spec(node).optional
        and not is_handled(state, node.index)
    )


def is_handled(state: State, index: int) -> bool:
    """Return whether a failure of this node has a branch."""
    return any(edge.route is Route.ON_FAILURE for edge in state.plan.children[index])


def has_failed(state: State) -> bool:
    return any(failed_for_good(state, node) for node in state.nodes)


def has_input(state: State, node: Node) -> bool:
    """Return whether the artifacts that a node reads are stored or being made. A map takes no
    place, and its children read no artifacts.
    """
    spec = state.spec(node)
    reads = any(edge.streams for edge in state.plan.parents[node.index])
    if spec.map is not None or (spec.io.input_adapter is None and not reads):
        return True
    sources = [state.nodes[source] for source in state.plan.sources[node.index]]
    return all(
        source.state in ENDED or (source.state in IN_FLIGHT and has_input(state, source))
        for source in sources
    )
