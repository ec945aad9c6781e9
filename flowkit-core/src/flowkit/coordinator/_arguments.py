"""Evaluation of the arguments of control nodes, and of the keys of nodes, beside the other work of
the coordinator.
"""

from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from anyio.abc import TaskGroup

from flowkit._engine import ArgumentsEvaluated, EvaluateArguments, Event, KeyNamed, NameKey
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.key_names import name_of_key
from flowkit._tasks.run_inputs import evaluated_io, needed_by
from flowkit._tasks.scopes import scope_of
from flowkit._user_code.containment import awaited
from flowkit.coordinator._logged_failures import failures_logged
from flowkit.errors import NodeFailure
from flowkit.graph._control_types import evaluated_fields
from flowkit.protocols import Store
from flowkit.task import Task

MOST_AT_ONCE = 200
"""Nodes of a task whose arguments are stored in one commit."""

Order = EvaluateArguments | NameKey
_Waiting = dict[Order, Task]
"""Evaluations that are due for one task."""


class Arguments:
    """Evaluator of the arguments of control nodes, and of the keys of nodes, task by task."""

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        report: Callable[[str, Sequence[Event]], Awaitable[None]],
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self._group = group
        self._store = store
        self._report = report
        self._leaving = leaving
        self._evaluations = Evaluations()
        self._waiting: dict[str, _Waiting] = {}

    def start(self, task: Task, order: Order) -> None:
        """Evaluate the arguments or the key of a node, unless the evaluation is in progress."""
        waiting = self._waiting.get(task.task_id)
        if waiting is None:
            waiting = self._waiting[task.task_id] = {}
            self._group.start_soon(self._evaluate_all, task.task_id, waiting)
        waiting.setdefault(order, task)

    async def _evaluate_all(self, task_id: str, waiting: _Waiting) -> None:
        try:
            while waiting:
                some = dict(islice(waiting.items(), MOST_AT_ONCE))
                await awaited(self._evaluate_some(task_id, some), ending=self._leaving)
                for key in some:
                    del waiting[key]
        finally:
            del self._waiting[task_id]

    async def _evaluate_some(self, task_id: str, some: _Waiting) -> None:
        """Evaluate arguments and report their values. If the store is unavailable, the wake-up of
        the task tries again.
        """
        message = "The arguments of nodes were not recorded"
        with failures_logged(message, action="report_lost", task_id=task_id):
            await self._report(
                task_id, [await self._evaluate(task, order) for order, task in some.items()]
            )

    async def _evaluate(self, task: Task, order: Order) -> Event:
        match order:
            case NameKey(index, number, kind):
                try:
                    name = await name_of_key(self._store, task, index, kind, self._evaluations)
                    return KeyNamed(index, number, name, kind=kind)
                except NodeFailure as error:
                    return KeyNamed(index, number, error=str(error), kind=kind)
            case EvaluateArguments(index, attempt):
                return await self._evaluate_arguments(task, index, attempt)

    async def _evaluate_arguments(self, task: Task, index: int, attempt: int) -> ArgumentsEvaluated:
        given, names = evaluated_fields(task.spec.plan.nodes[index])
        try:
            scope = await scope_of(self._store, task, index, await needed_by(task, index))
            values = await evaluated_io(given, scope, self._evaluations, fields=names)
        except NodeFailure as error:
            return ArgumentsEvaluated(index, attempt, error=str(error))
        return ArgumentsEvaluated(index, attempt, values)
