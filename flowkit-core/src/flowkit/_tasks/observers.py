"""Reports of changes to plugins and to the log."""

import logging
from dataclasses import dataclass
from typing import Any

from flowkit._engine import Transition
from flowkit._tasks.views import node_view, task_view
from flowkit._user_code.failure_logs import log_failure
from flowkit.plugins import Plugins
from flowkit.task import Task, TaskStatus

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Notice:
    """Call of a hook that observes tasks or nodes."""

    hook: str
    arguments: dict[str, Any]


class Observers:
    """Plugins that observe tasks and nodes."""

    def __init__(self, plugins: Plugins) -> None:
        self._plugins = plugins

    def notices(self, step: Transition) -> list[Notice]:
        """Return the notices about a change. Call this before the change is applied."""
        plugins, task = self._plugins, step.task
        if not (plugins.observes_nodes or plugins.observes_tasks):
            return []
        notices: list[Notice] = []
        after_task = task_view(task, step)
        if plugins.observes_tasks and step.status is not task.status:
            before = task_view(task)
            notices.append(Notice("flowkit_task_changed", {"before": before, "after": after_task}))
        if plugins.observes_nodes:
            for index in step.marks:
                node_before, node_after = node_view(task, index), node_view(task, index, step)
                if node_after.status is not node_before.status:
                    arguments = {"task": after_task, "before": node_before, "after": node_after}
                    notices.append(Notice("flowkit_node_changed", arguments))
        return notices

    def notify(self, notices: list[Notice]) -> None:
        """Call the hooks of plugins. A plugin that raises is logged."""
        for notice in notices:
            self._plugins.notify(notice.hook, **notice.arguments)

    def log_status(self, task: Task, before: TaskStatus) -> None:
        """Log the start and the end of a task."""
        if task.status is before:
            return
        if before is TaskStatus.QUEUED and task.started_at is not None:
            logger.info(
                "Task %s started",
                task.task_id,
                extra={"action": "task_started", "task_id": task.task_id},
            )
        if task.status.terminal:
            self._log_end(task)

    def _log_end(self, task: Task) -> None:
        failed = task.status is TaskStatus.FAILED
        level = logging.WARNING if failed else logging.INFO
        if not logger.isEnabledFor(level):
            return
        took_sec = (task.finished_at or 0.0) - (task.started_at or task.spec.created_at)
        why = (task.error if failed else task.reason) or ""
        message, args = "Task %s %s after %.3f s", (task.task_id, task.status.value, took_sec)
        extra = {"action": f"task_{task.status.value}", "task_id": task.task_id}
        if why:
            log_failure(logger, self._plugins, message, *args, text=why, level=level, extra=extra)
        else:
            logger.log(level, message, *args, extra=extra)
