"""Flow graphs: how they are written, checked and read."""

from flowkit.graph.conditions import check_condition, evaluate_condition
from flowkit.graph.flow import Flow, flow
from flowkit.graph.graph import Graph, NodeRef
from flowkit.graph.limits import Limits
from flowkit.graph.models import EdgeSpec, GraphDocument, NodeIO, NodeSpec, RetryPolicy, Routing, Timeouts
from flowkit.graph.plan import Edge, Plan, Route

__all__ = [
    "Edge",
    "EdgeSpec",
    "Flow",
    "Graph",
    "GraphDocument",
    "Limits",
    "NodeIO",
    "NodeRef",
    "NodeSpec",
    "Plan",
    "RetryPolicy",
    "Route",
    "Routing",
    "Timeouts",
    "check_condition",
    "evaluate_condition",
    "flow",
]
