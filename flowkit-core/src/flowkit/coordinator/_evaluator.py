"""Evaluation of delayed conditions and outputs, in threads beside the other work of the
coordinator.
"""

import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from anyio.abc import TaskGroup

from flowkit._engine import ConditionEvaluated, Event, OutputEvaluated, awaits_output
from flowkit._tasks.conditions import evaluate_delayed
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.outputs import output_delayed
from flowkit._user_code.containment import awaited
from flowkit.coordinator._logged_failures import failures_logged
from flowkit.protocols import Store
from flowkit.task import Mark, Task

logger = logging.getLogger(__name__)

_Waiting = dict[tuple[int | None, float], Task]
"""Delayed conditions of one task, by node, or its output (None), each with the time at which it was
delayed.
"""


class Evaluator:
    """Evaluator of delayed conditions and outputs. Those of one task are evaluated one after the
    other, so that a task with many of them does not delay other tasks.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        report: Callable[[str, Event], Awaitable[None]],
        leaving: Callable[[], bool],
        max_result_bytes: int,
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self._group = group
        self._store = store
        self._report = report
        self._leaving = leaving
        self._max_result_bytes = max_result_bytes
        self._evaluations = Evaluations()
        self._waiting: dict[str, _Waiting] = {}

    def start(self, task: Task, index: int | None) -> None:
        """Evaluate the delayed condition of a node, or the output of the task if ``index`` is None,
        unless the evaluation is in progress.
        """
        since = _delayed_since(task, index)
        if since is None:
            return
        waiting = self._waiting.get(task.task_id)
        if waiting is None:
            waiting = self._waiting[task.task_id] = {}
            self._group.start_soon(self._evaluate_all, task.task_id, waiting)
        waiting.setdefault((index, since), task)

    async def _evaluate_all(self, task_id: str, waiting: _Waiting) -> None:
        try:
            while waiting:
                (index, since), task = next(iter(waiting.items()))
                event = await self._evaluate(task, index, since)
                del waiting[index, since]
                if event is not None:
                    await self._record(task_id, event)
        finally:
            del self._waiting[task_id]

    async def _record(self, task_id: str, event: Event) -> None:
        try:
            await awaited(self._report(task_id, event), ending=self._leaving)
        except Exception:
            logger.exception(
                "The value of an expression was not recorded",
                extra={"action": "report_lost", "task_id": task_id},
            )

    async def _evaluate(self, task: Task, index: int | None, since: float) -> Event | None:
        """Return the event with the value; None if the value is not needed any more, or the
        expression cannot be evaluated now. The wake-up of the task then tries again.
        """
        if _delayed_since(task, index) != since:
            return None
        message = "An expression was not evaluated"
        with failures_logged(
            message, action="condition_lost", task_id=task.task_id, trace=task.spec.trace
        ):
            return await awaited(self._value(task, index, since), ending=self._leaving)
        return None

    def _value(
        self, task: Task, index: int | None, since: float
    ) -> Coroutine[Any, Any, ConditionEvaluated | OutputEvaluated]:
        if index is None:
            most = self._max_result_bytes
            return output_delayed(self._store, task, since, self._evaluations, max_bytes=most)
        return evaluate_delayed(self._store, task, index, since, self._evaluations)


def _delayed_since(task: Task, index: int | None) -> float | None:
    """Return when the evaluation of a condition or of the output was delayed; None if its value is
    not needed.
    """
    if index is None:
        return task.output.since if task.output is not None and awaits_output(task) else None
    record = task.records.get(index)
    return record.issued_at if record is not None and task.marks[index] == Mark.CHECKING else None
