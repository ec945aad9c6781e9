"""Checks of nodes with a cache, and of the nodes that read from them."""

from collections.abc import Iterable, Iterator

from flowkit._json.values import short
from flowkit.graph._control_types import runs_on_worker
from flowkit.graph._edges import Link, Links
from flowkit.graph._faults import Faults
from flowkit.graph._models import COORDINATOR_FUNCTION, GraphDocument, NodeSpec
from flowkit.graph._node_checks import PULL_ADAPTERS, named_nodes

BATCH_METRICS = "metrics.aggregate"


def check_caches(
    faults: Faults, document: GraphDocument, links: Links, *, only: Iterable[int] | None = None
) -> None:
    """Check that nodes with a cache can have one, and that no other node reads their artifacts: a
    node that takes a stored result has none.

    ``only`` restricts the check to the nodes at these positions.
    """
    nodes = document.nodes
    caches = {node.node_id for node in nodes if node.cache is not None}
    if not caches:
        return
    for place in range(len(nodes)) if only is None else only:
        node = nodes[place]
        if node.cache is not None and not (runs_on_worker(node.type) or node.type == "subflow"):
            faults.add(
                node.node_id,
                f"cache: a node of type {node.type!r} cannot have one; only handlers and sub-flows"
                " can",
            )
        if links.undone_by(place) is not None:
            continue  # a node that takes a stored result is not undone
        above = {nodes[parent].node_id: link for parent, link in links.into[place].items()}
        for target in sorted(caches.intersection(_artifacts_read(node, above))):
            faults.add(
                node.node_id,
                f"reads the artifacts of {short(target)}, which has a cache and stores none if it"
                f" takes a stored result; read its result, or remove the cache",
            )


def _artifacts_read(node: NodeSpec, above: dict[str, Link]) -> Iterator[str]:
    """Yield the nodes whose artifacts or batches a node reads."""
    if node.map is not None and node.map.source is not None:
        yield node.map.source
    if node.type == COORDINATOR_FUNCTION:
        yield from (target for _, target in named_nodes(node) if node.io.fn == BATCH_METRICS)
        return
    yield from (parent for parent, link in above.items() if link.streams)
    if node.io.start_when == "first_batch":
        yield from (parent for parent, link in above.items() if not link.routed)
    if node.io.input_adapter is not None:
        named = [target for _, target in named_nodes(node)]
        yield from named or (above if node.io.input_adapter in PULL_ADAPTERS else ())
