"""Flows written in Python."""

from flowkit._flow_building import NodeOptions, NodeRef, Value, first
from flowkit.flows._decorator import flow
from flowkit.flows._flow import BuiltFlow, Flow
from flowkit.flows._graph_flow import GraphFlow

__all__ = ["BuiltFlow", "Flow", "GraphFlow", "NodeOptions", "NodeRef", "Value", "first", "flow"]
