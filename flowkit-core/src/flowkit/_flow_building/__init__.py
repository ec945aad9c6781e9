"""Graphs built by calls of handlers: the values, the nodes and the inputs of a flow in Python."""

from flowkit._flow_building.building import FlowBuilding, building_flow, required_flow
from flowkit._flow_building.control_nodes import Decision, approval, sleep, wait_signal
from flowkit._flow_building.finally_block import (
    EndingTaskScope,
    TaskScope,
    finally_,
    task_vars,
    this_task,
)
from flowkit._flow_building.first import first
from flowkit._flow_building.options import NodeOptions
from flowkit._flow_building.values import MapRef, NodeRef, Value

__all__ = [
    "Decision",
    "EndingTaskScope",
    "FlowBuilding",
    "MapRef",
    "NodeOptions",
    "NodeRef",
    "TaskScope",
    "Value",
    "approval",
    "building_flow",
    "finally_",
    "first",
    "required_flow",
    "sleep",
    "task_vars",
    "this_task",
    "wait_signal",
]
