"""Log lines about the changes of tasks and nodes, within the traces of the tasks."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from flowkit._engine import Transition
from flowkit._engine.time_limits import LIMIT_CODES
from flowkit._user_code.failure_logs import log_failure
from flowkit.plugins import Plugins
from flowkit.task import NodeStatus, Task, TaskStatus
from flowkit.tracing import use_trace

logger = logging.getLogger(__name__)

TIMEOUTS = LIMIT_CODES | {"signal_timeout", "approval_timeout"}
"""Reason codes of nodes that have exceeded a time limit."""


@dataclass(frozen=True, slots=True)
class NodeTimeout:
    """A node has exceeded a time limit."""

    index: int
    reason_code: str
    skipped: bool
    """The graph asks that the node is skipped then."""


def timeouts_of(step: Transition) -> list[NodeTimeout]:
    """Return the nodes that have exceeded a time limit in a change."""
    return [
        NodeTimeout(index, data["reason_code"], status == NodeStatus.SKIPPED)
        for _, index, kind, status, data in step.log
        if kind == "status" and data.__class__ is dict and data.get("reason_code") in TIMEOUTS
    ]


def log_timeouts(task: Task, timeouts: Sequence[NodeTimeout]) -> None:
    """Log nodes of a task that have exceeded a time limit."""
    with use_trace(task.spec.trace):
        for one in timeouts:
            node_id = task.spec.plan.ids[one.index]
            logger.log(
                logging.INFO if one.skipped else logging.WARNING,
                "Node %s of task %s has exceeded a time limit: %s",
                node_id,
                task.task_id,
                one.reason_code,
                extra={
                    "action": "node_timed_out",
                    "task_id": task.task_id,
                    "node_id": node_id,
                    "reason_code": one.reason_code,
                },
            )


def log_status(plugins: Plugins, task: Task, before: TaskStatus) -> None:
    """Log the start and the end of a task whose status has changed."""
    started = before is TaskStatus.QUEUED and task.started_at is not None
    with use_trace(task.spec.trace):
        if started and logger.isEnabledFor(logging.INFO):
            logger.info(
                "Task %s started",
                task.task_id,
                extra={"action": "task_started", "task_id": task.task_id},
            )
        if task.status.terminal:
            _log_end(plugins, task)


def _log_end(plugins: Plugins, task: Task) -> None:
    failed = task.status is TaskStatus.FAILED
    level = logging.WARNING if failed else logging.INFO
    if not logger.isEnabledFor(level):
        return
    took_sec = (task.finished_at or 0.0) - (task.started_at or task.spec.created_at)
    why = (task.error if failed else task.reason) or ""
    message, args = "Task %s %s after %.3f s", (task.task_id, task.status.value, took_sec)
    extra = {"action": f"task_{task.status.value}", "task_id": task.task_id}
    if why:
        log_failure(logger, plugins, message, *args, text=why, level=level, extra=extra)
    else:
        logger.log(level, message, *args, extra=extra)
