"""The flow: several ``map`` nodes, and a ``reduce`` node that reads their batches as a stream."""

from flowkit import Graph, flow

PARTS = 4


@flow
def log_report(g: Graph, parts: int = PARTS) -> None:
    """Count the requests in a log file that is cut into ``parts``."""
    maps = [
        g.node(f"map_{part}", "map", input_inline={"part": part, "parts": parts})
        for part in range(parts)
    ]
    reduce = g.node(
        "reduce",
        "reduce",
        after=maps,
        start_when="first_batch",
        input_inline={"input_adapter": "pull.from_artifacts"},
    )
    totals = g.node(
        "totals",
        "coordinator_fn",
        after=[reduce],
        fn="metrics.aggregate",
        fn_args={"node_id": "reduce"},
    )
    sources = {"from_nodes": [node.node_id for node in maps], "target": "parts"}
    by_part = g.node("by_part", "coordinator_fn", after=maps, fn="merge.generic", fn_args=sources)
    g.node("report", "report", after=[reduce, totals, by_part])
