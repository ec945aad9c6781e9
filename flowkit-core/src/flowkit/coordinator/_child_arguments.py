"""Arguments of the nodes that run child tasks: params, and the conditions of loops."""

from collections.abc import Collection
from functools import lru_cache
from typing import Any, cast

from flowkit._engine import ChildFinished, NextRound, RoundChecked
from flowkit._expressions import BudgetExceeded
from flowkit._tasks.check_threads import CheckThreads
from flowkit._tasks.child_states import ChildState
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.run_inputs import evaluated_io, needed_by, own_names
from flowkit._tasks.scopes import scope_of
from flowkit.errors import NodeFailure
from flowkit.graph import Graph
from flowkit.graph._control_types import (
    ChildTaskIO,
    LoopIO,
    arguments_of,
    bare_expressions,
    evaluated_fields,
    is_checked_first,
    read_arguments,
)
from flowkit.graph._templates import bad_expression, evaluate_bare
from flowkit.protocols import Store
from flowkit.task import ParentNode, Task

_Scope = dict[str, Any]


class ChildArguments:
    """Evaluator of the arguments of nodes that run child tasks.

    Its methods raise a NodeFailure for an argument that has no value or a wrong one, which is
    permanent, and a CorruptRecord for an item of a map that cannot be read.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._evaluations = Evaluations()
        self._threads = CheckThreads()

    async def params(self, task: Task, state: ChildState, source: bytes) -> dict[str, Any]:
        """Return the params of a child task with this graph, with defaults.

        Before the first round of a loop, ``max_iterations`` is checked, too.
        """
        params = await self._evaluated_params(task, state)
        checked, faults = await self._threads.params(_schema(source), params)
        if faults:
            raise NodeFailure("; ".join(faults), reason_code="bad_input", permanent=True)
        return checked.whole

    async def _evaluated_params(self, task: Task, state: ChildState) -> dict[str, Any]:
        node, link = state.node, state.link
        plan = task.spec.plan
        if node.index not in plan.computed:  # so they were checked when the task was submitted
            return cast("dict[str, Any]", arguments_of(plan.nodes[node.index]).get("params", {}))
        scope = await self._scope(task, node, link.iteration, link.previous)
        fields = {"params", "max_iterations"} if link.iteration == 0 else {"params"}
        arguments = await self._arguments(task, node, scope, fields)
        return cast("ChildTaskIO", arguments).params

    async def check_round(self, task: Task, state: ChildState) -> RoundChecked:
        """Evaluate the condition of a loop before a round."""
        node, link = state.node, state.link
        assert link.iteration is not None
        scope = await self._scope(task, node, link.iteration, link.previous)
        goes_on = await self._condition(task, node, scope)
        return RoundChecked(node.index, node.attempt, link.iteration, goes_on)

    async def end_round(self, task: Task, state: ChildState, result: Any) -> ChildFinished:
        """Return what follows from the end of a round: ``while`` is checked for the next one, and
        ``until`` for this one.
        """
        node, iteration = state.node, state.link.iteration
        assert iteration is not None
        checks_next = is_checked_first(task.spec.plan.nodes[node.index])
        scope = await self._scope(task, node, iteration, result)
        following = None
        seen = {**scope, "iteration": iteration + checks_next}
        if await self._condition(task, node, seen) == checks_next:
            fields = {"max_iterations", "delay_sec"}
            arguments = cast("LoopIO", await self._arguments(task, node, scope, fields))
            following = NextRound(arguments.max_iterations, arguments.delay_sec)
        return ChildFinished(node.index, node.attempt, result, iteration, following)

    async def _scope(
        self, task: Task, node: ParentNode, iteration: int | None, previous: Any
    ) -> _Scope:
        """Return the values of the names in the expressions of a node."""
        if node.index not in task.spec.plan.computed:
            return {}
        needed = await needed_by(task, node.index)
        scope = await scope_of(self._store, task, node.index, needed)
        if iteration is not None:
            return scope | {"iteration": iteration, "previous": previous}
        return scope | await own_names(self._store, task, node.index)

    async def _arguments(
        self, task: Task, node: ParentNode, scope: _Scope, fields: Collection[str]
    ) -> Any:
        """Return the arguments of a node, of which only these fields are evaluated and read."""
        spec = task.spec.plan.nodes[node.index]
        given, computed = evaluated_fields(spec)
        if node.index in task.spec.plan.computed:
            given = await evaluated_io(
                given, scope, self._evaluations, fields=[one for one in computed if one in fields]
            )
        try:
            return read_arguments(spec, given, only=fields)
        except ValueError as error:
            raise NodeFailure(str(error), reason_code="bad_input", permanent=True) from None

    async def _condition(self, task: Task, node: ParentNode, scope: _Scope) -> bool:
        ((name, expression),) = bare_expressions(task.spec.plan.nodes[node.index]).items()
        try:
            return await self._evaluations.bounded(
                lambda budget, at_once: evaluate_bare(
                    name, expression, scope, budget, at_once=at_once
                )
            )
        except BudgetExceeded as error:
            raise bad_expression(str(error)) from None


@lru_cache(maxsize=256)
def _schema(graph: bytes) -> dict[str, object] | None:
    """Return the schema of the params of a valid graph."""
    return Graph.restore(graph).document.params
