"""Flow graphs: building, parsing, validation and execution plans."""

from flowkit.graph._conditions import check_condition, evaluate_condition
from flowkit.graph._graph import Graph, NodeRef
from flowkit.graph._models import (
    Cache,
    Concurrency,
    EdgeSpec,
    FlowRef,
    GraphDocument,
    NodeIO,
    NodeSpec,
    RateLimit,
    RetryPolicy,
    Routing,
    TaskConcurrency,
    Timeouts,
    UndoSpec,
)
from flowkit.graph._nested_graphs import FlowUse
from flowkit.graph._parser import Limits
from flowkit.graph._plan import Edge, Plan, Route

__all__ = [
    "Cache",
    "Concurrency",
    "Edge",
    "EdgeSpec",
    "FlowRef",
    "FlowUse",
    "Graph",
    "GraphDocument",
    "Limits",
    "NodeIO",
    "NodeRef",
    "NodeSpec",
    "Plan",
    "RateLimit",
    "RetryPolicy",
    "Route",
    "Routing",
    "TaskConcurrency",
    "Timeouts",
    "UndoSpec",
    "check_condition",
    "evaluate_condition",
]
