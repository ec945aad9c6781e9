"""FlowKit: flows of tasks over coordinators and workers, durable in a store, connected by a message
bus.
"""

from flowkit._schedules import Schedule, ScheduleEvent, ScheduleView, next_times
from flowkit._triggers import Trigger, TriggerView
from flowkit.client import Client
from flowkit.config import CoordinatorConfig, WorkerConfig
from flowkit.coordinator import Coordinator
from flowkit.errors import (
    FlowKitError,
    FlowNotFound,
    GraphError,
    NotRunning,
    ScheduleNotFound,
    ScheduleRefused,
    TaskNotFound,
    TaskRefused,
    TriggerNotFound,
    TriggerRefused,
)
from flowkit.flows import approval, finally_, first, flow, loop, sleep, subflow, wait_signal
from flowkit.graph import FlowRef, Graph
from flowkit.hookspecs import hookimpl
from flowkit.task import (
    Approval,
    Artifact,
    CoordinatorView,
    FlowInfo,
    FlowVersion,
    LogLine,
    NodeStatus,
    NodeView,
    Page,
    QueueView,
    TaskEvent,
    TaskStatus,
    TaskView,
    WorkerView,
)
from flowkit.worker import Worker

__version__ = "0.1.0"

__all__ = [
    "Approval",
    "Artifact",
    "Client",
    "Coordinator",
    "CoordinatorConfig",
    "CoordinatorView",
    "FlowInfo",
    "FlowKitError",
    "FlowNotFound",
    "FlowRef",
    "FlowVersion",
    "Graph",
    "GraphError",
    "LogLine",
    "NodeStatus",
    "NodeView",
    "NotRunning",
    "Page",
    "QueueView",
    "Schedule",
    "ScheduleEvent",
    "ScheduleNotFound",
    "ScheduleRefused",
    "ScheduleView",
    "TaskEvent",
    "TaskNotFound",
    "TaskRefused",
    "TaskStatus",
    "TaskView",
    "Trigger",
    "TriggerNotFound",
    "TriggerRefused",
    "TriggerView",
    "Worker",
    "WorkerConfig",
    "WorkerView",
    "approval",
    "finally_",
    "first",
    "flow",
    "hookimpl",
    "loop",
    "next_times",
    "sleep",
    "subflow",
    "wait_signal",
]
