"""Flows written in Python."""

from flowkit._flow_building import (
    Decision,
    EndingTaskScope,
    MapRef,
    NodeOptions,
    NodeRef,
    TaskScope,
    Value,
    approval,
    finally_,
    first,
    sleep,
    task_vars,
    this_task,
    wait_signal,
)
from flowkit.flows._decorator import flow
from flowkit.flows._flow import BuiltFlow, Flow
from flowkit.flows._graph_flow import GraphFlow
from flowkit.flows._loop import iteration, loop, previous
from flowkit.flows._subflow import subflow

__all__ = [
    "BuiltFlow",
    "Decision",
    "EndingTaskScope",
    "Flow",
    "GraphFlow",
    "MapRef",
    "NodeOptions",
    "NodeRef",
    "TaskScope",
    "Value",
    "approval",
    "finally_",
    "first",
    "flow",
    "iteration",
    "loop",
    "previous",
    "sleep",
    "subflow",
    "task_vars",
    "this_task",
    "wait_signal",
]
