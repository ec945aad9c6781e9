"""Graphs built by calls of handlers: the values, the nodes and the inputs of a flow in Python."""

from flowkit._flow_building.building import FlowBuilding, building_flow
from flowkit._flow_building.first import first
from flowkit._flow_building.options import NodeOptions
from flowkit._flow_building.values import NodeRef, Value

__all__ = ["FlowBuilding", "NodeOptions", "NodeRef", "Value", "building_flow", "first"]
