"""Evaluation of delayed conditions, in threads beside the other work of the coordinator."""

import logging
from collections.abc import Awaitable, Callable

from anyio.abc import TaskGroup

from flowkit._engine import ConditionEvaluated, Event
from flowkit._tasks.conditions import evaluate_delayed
from flowkit._tasks.evaluation import Evaluations
from flowkit._user_code.containment import awaited
from flowkit.errors import StoreError
from flowkit.protocols import Store
from flowkit.task import Mark, Task

logger = logging.getLogger(__name__)

_Waiting = dict[tuple[int, float], Task]
"""Delayed conditions of one task, by node and by the time at which they were delayed."""


class Conditions:
    """Evaluator of delayed conditions. Those of one task are evaluated one after the other, so that
    a task with many of them does not delay other tasks.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        report: Callable[[str, Event], Awaitable[None]],
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self._group = group
        self._store = store
        self._report = report
        self._leaving = leaving
        self._evaluations = Evaluations()
        self._waiting: dict[str, _Waiting] = {}

    def start(self, task: Task, index: int) -> None:
        """Evaluate the delayed condition of a node, unless its evaluation is in progress."""
        record = task.records.get(index)
        if record is None or task.marks[index] != Mark.CHECKING:
            return
        waiting = self._waiting.get(task.task_id)
        if waiting is None:
            waiting = self._waiting[task.task_id] = {}
            self._group.start_soon(self._evaluate_all, task.task_id, waiting)
        waiting.setdefault((index, record.issued_at), task)

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
                "The value of a condition was not recorded",
                extra={"action": "report_lost", "task_id": task_id},
            )

    async def _evaluate(self, task: Task, index: int, since: float) -> ConditionEvaluated | None:
        """Return the event with the value of a condition; None if the value is not needed any more,
        or the condition cannot be evaluated now. The wake-up of the task then tries again.
        """
        record = task.records.get(index)
        if task.marks[index] != Mark.CHECKING or record is None or record.issued_at != since:
            return None
        try:
            return await awaited(
                evaluate_delayed(self._store, task, index, since, self._evaluations),
                ending=self._leaving,
            )
        except StoreError as error:
            logger.warning(
                "The store is unavailable: %s",
                error,
                extra={"action": "store_unavailable", "task_id": task.task_id},
            )
        except Exception:
            logger.exception(
                "A condition was not evaluated",
                extra={"action": "condition_lost", "task_id": task.task_id},
            )
        return None
