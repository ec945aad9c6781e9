"""Calls of coordinator functions."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import anyio
from anyio.abc import TaskGroup
from pydantic_core import from_json

from flowkit._engine import Event, FunctionFailed, FunctionReturned
from flowkit._records.kept_artifacts import kept_records
from flowkit._records.queries import (
    artifact_page,
    check_complete,
    records_of,
    results_of,
)
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.run_inputs import context_of, evaluated_io, needed_by, own_names
from flowkit._tasks.scopes import scope_of
from flowkit._user_code.containment import (
    error_text,
    message,
    origin,
)
from flowkit._user_code.failure_logs import log_failure
from flowkit._user_code.foreign_contexts import contain_tasks
from flowkit._user_code.reason_codes import UNEXPECTED, carried_reason, shown_reason
from flowkit.coordinator._function_invocation import call_function
from flowkit.coordinator._gathered_events import GatheredEvents
from flowkit.coordinator._shared_resources import SharedResources
from flowkit.coordinator.functions import FunctionContext
from flowkit.errors import NodeFailure
from flowkit.messages import NodeStopped
from flowkit.plugins import Plugins
from flowkit.protocols import ArtifactRecord, Clock, Store, Stream
from flowkit.task import NodeRecord, Task
from flowkit.tracing import use_trace

logger = logging.getLogger(__name__)

PAGE = 1000

Report = Callable[[Mapping[str, Sequence[Event]]], Awaitable[None]]


class FunctionCalls:
    """The running calls of coordinator functions. A call reports its outcome as an event, as a
    worker does.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        clock: Clock,
        plugins: Plugins,
        worker_id: str,
        report: Report,
        resources: SharedResources,
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels its calls because it stops."""
        self._group = group
        self._store = store
        self._clock = clock
        self._plugins = plugins
        self._worker_id = worker_id
        self._ends = GatheredEvents(
            group=group,
            report=report,
            leaving=leaving,
            message="The ends of functions were not recorded",
        )
        self._resources = resources
        self._running: dict[tuple[str, int, int], anyio.CancelScope] = {}
        self._leaving = leaving
        self._evaluations = Evaluations()
        contain_tasks(asyncio.get_running_loop())

    def start(self, task: Task, index: int, attempt: int) -> None:
        """Call the function of a node, unless the call is in progress."""
        key = (task.task_id, index, attempt)
        record = task.records.get(index)
        if key in self._running or record is None or record.attempt != attempt:
            return
        self._running[key] = anyio.CancelScope()
        self._group.start_soon(
            self._run, key, task, task.spec.token(index, attempt, record.handovers)
        )

    def cancel(self, task: Task, index: int, attempt: int) -> None:
        """Cancel a call, if it is in progress."""
        scope = self._running.get((task.task_id, index, attempt))
        if scope is not None:
            scope.cancel()

    async def _run(self, key: tuple[str, int, int], task: Task, token: str) -> None:
        task_id, index, attempt = key
        event: Event = NodeStopped(
            task_id=task_id,
            index=index,
            attempt=attempt,
            token=token,
            worker_id=self._worker_id,
            at=self._clock.now(),
        )
        try:
            with self._running[key], use_trace(task.spec.trace):
                event = await self._call(task, index, attempt, token)
        finally:
            del self._running[key]
        self._ends.add(task_id, event)

    async def _call(self, task: Task, index: int, attempt: int, token: str) -> Event:
        scope = self._running[task.task_id, index, attempt]
        plan = task.spec.plan
        node = plan.nodes[index]
        try:
            needed = await needed_by(task, index)
            context = await context_of(self._store, task, index, needed)
            args = node.io.fn_args or {}
            if index in plan.computed:
                names = await scope_of(self._store, task, index, needed)
                names |= await own_names(self._store, task, index)
                args = (await evaluated_io(node.io.__dict__, names, self._evaluations))["fn_args"]
            ctx = FunctionContext(
                task_id=task.task_id,
                node_id=plan.ids[index],
                params=task.spec.params,
                vars=task.vars,
                results=context["results"],
                errors=context["errors"],
                clock=self._clock,
                reading=_TaskReader(self._store, task),
                resources=self._resources,
            )
            name = node.io.fn or ""
            returned = await call_function(
                self._plugins.functions,
                name,
                args,
                ctx,
                plugin=self._plugins.owner("function", name),
                ending=lambda: scope.cancel_called or self._leaving(),
            )
        except Exception as raised:
            error = origin(raised)
            reason, permanent = carried_reason(error) or (UNEXPECTED, False)
            if not isinstance(error, NodeFailure):
                log_failure(
                    logger,
                    self._plugins,
                    "Function %s failed",
                    node.io.fn,
                    text=error_text(error),
                    error=error,
                    level=logging.ERROR,
                    extra={"action": "function_failed", "task_id": task.task_id},
                )
            text = message(raised) if isinstance(error, NodeFailure) else error_text(error)
            return FunctionFailed(
                index, attempt, token, self._clock.now(), shown_reason(reason), permanent, text
            )
        return FunctionReturned(
            index,
            attempt,
            token,
            self._clock.now(),
            returned.result,
            returned.ops,
            returned.ending,
        )


class _TaskReader:
    """Access of a function to the task of its node."""

    def __init__(self, store: Store, task: Task) -> None:
        self._store = store
        self._task = task

    async def results(self, node_ids: Sequence[str]) -> dict[str, Any]:
        places = self._task.spec.plan.index
        known = [node_id for node_id in node_ids if node_id in places]
        found = await results_of(self._store, self._task, [places[node_id] for node_id in known])
        return {node_id: found.get(node_id) for node_id in known}

    async def batch_metrics(self, node_id: str) -> tuple[int, dict[str, float]]:
        index = self._task.spec.plan.index[node_id]
        record = (await records_of(self._store, self._task, [index])).get(index)
        stream = Stream(self._task.task_id, node_id, record.generation if record else 0)
        count = 0
        sums: dict[str, float] = {}
        async for page in self._pages(stream, record):
            for item in page:
                if item.partial:
                    count += 1
                    for name, value in from_json(item.metrics).items():
                        sums[name] = sums.get(name, 0) + value
        check_complete(stream, stored=None if record is None else record.batches, found=count)
        return count, sums

    async def _pages(
        self, stream: Stream, record: NodeRecord | None
    ) -> AsyncIterator[Sequence[ArtifactRecord]]:
        if record is not None and record.kept:
            yield kept_records(stream, record.kept)
            return
        after = 0
        while page := await artifact_page(
            self._store.artifacts, stream, after=after, limit=PAGE, latest=True
        ):
            yield page
            after = page[-1].position
