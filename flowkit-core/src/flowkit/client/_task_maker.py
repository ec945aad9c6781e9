"""Tasks that a schedule or a trigger makes. Their ids follow from their causes."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from flowkit._expressions import Budget, BudgetExceeded
from flowkit._records.task_records import PLANS, decode_submission
from flowkit._runtime.concurrency import Recent
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.event_processor import EventProcessor
from flowkit._tasks.flow_versions import fixed_versions
from flowkit._tasks.graph_checks import GraphChecks
from flowkit._tasks.registered_flows import RegisteredFlows
from flowkit._tasks.submission import Submission, task_spec
from flowkit._tasks.task_measures import measures_of_new
from flowkit._tasks.views import task_view
from flowkit._user_code.containment import undo_cancellation
from flowkit.client._session import Dispatcher, Session, ask_plugins
from flowkit.errors import (
    CorruptRecord,
    FlowNotFound,
    GraphError,
    NodeFailure,
    PayloadError,
    RecordRefused,
    RecordTooLarge,
    TaskRefused,
)
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Store
from flowkit.task import ScheduleOrigin, TaskFlow, TriggerOrigin
from flowkit.tracing import use_trace

LONGEST_ERROR = 300
MOST_GRAPHS = 256


@dataclass(frozen=True, slots=True)
class Services:
    """Store, rules and plugins with which tasks are made."""

    store: Store
    clock: Clock
    plugins: Plugins
    checks: GraphChecks
    flows: RegisteredFlows
    processor: EventProcessor
    dispatcher: Dispatcher


def services_of(session: Session) -> Services:
    """Return the services of an open client or coordinator."""
    return Services(
        store=session.store,
        clock=session.clock,
        plugins=session.plugins,
        checks=session.checks,
        flows=session.flows,
        processor=session.processor,
        dispatcher=session.dispatcher,
    )


class Template(Protocol):
    """Fields that a schedule and a trigger share: those of their tasks."""

    @property
    def flow(self) -> str | None: ...
    @property
    def version(self) -> int | None: ...
    @property
    def pipeline(self) -> str | None: ...
    @property
    def labels(self) -> dict[str, str]: ...
    @property
    def priority(self) -> int: ...
    @property
    def deadline_sec(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class Planned:
    """A task to be made."""

    task_id: str
    template: Template
    graph: bytes
    """JSON of the graph; empty if the template names a flow."""
    params: Callable[[Budget, bool], dict[str, Any]]
    """Evaluates the params."""
    origin: ScheduleOrigin | TriggerOrigin
    chain: int = 0


@dataclass(frozen=True, slots=True)
class Made:
    """Outcome of a planned task: it exists, unless it was refused or its id is taken."""

    error: str | None = None
    """Reason why it was refused."""
    taken: bool = False
    """A task of another origin has its id."""
    is_new: bool = False


class TaskMaker:
    """Makes planned tasks. Making one again changes nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._evaluations = Evaluations()
        self._graphs: Recent[tuple[str, int], bytes] = Recent(MOST_GRAPHS)
        """Graphs of versions of flows, once they are checked."""

    async def make(self, planned: Sequence[Planned]) -> Mapping[str, Made]:
        """Store tasks and start them. Return the outcomes by task id."""
        made: dict[str, Made] = {}
        new: dict[str, Submission] = {}
        for one in planned:
            try:
                new[one.task_id] = await self._submission(one)
            except (NodeFailure, TaskRefused, GraphError, FlowNotFound, CorruptRecord) as error:
                made[one.task_id] = _refused(error)
        await self._store_new(new, made)
        await self._services.dispatcher.submitted(
            {name: new[name] for name in new if name not in made}
        )
        await self._compare({one.task_id: one.origin for one in planned}, new, made)
        await undo_cancellation()
        return made

    async def _submission(self, planned: Planned) -> Submission:
        """Return the submission of a task.

        Raises:
            NodeFailure: its params have no value, or do not fit.
            TaskRefused: a plugin refuses it.
            GraphError, FlowNotFound, CorruptRecord: its flow cannot be used.
        """
        template, origin = planned.template, planned.origin
        flow, source = await self._graph(planned)
        plan, graph = PLANS.get(source), _restored(source)
        given = await self._params(planned)
        params, faults = await self._services.checks.threads.params(graph.document.params, given)
        if faults:
            raise NodeFailure("; ".join(faults))
        spec = task_spec(
            planned.task_id,
            plan,
            params,
            flow,
            created_at=self._services.clock.now(),
            secret=os.urandom(16),
            pipeline=template.pipeline,
            labels=template.labels,
            priority=template.priority,
            deadline_sec=template.deadline_sec,
            trace=self._services.plugins.submission_trace(planned.task_id, template.pipeline),
            schedule=origin if isinstance(origin, ScheduleOrigin) else None,
            trigger=origin if isinstance(origin, TriggerOrigin) else None,
            chain=planned.chain,
            flow_versions=await fixed_versions(
                graph, flow, flows=self._services.flows, checks=self._services.checks
            ),
        )
        if self._services.plugins.checks_submissions:
            await ask_plugins(self._services.plugins, spec, graph)
        return self._services.processor.submit(spec, source, certainly_new=False)

    async def _graph(self, planned: Planned) -> tuple[TaskFlow | None, bytes]:
        """Return the flow of a task, if the template names one, and the JSON of its graph."""
        template = planned.template
        if template.flow is None:
            return None, planned.graph
        flow, document = await self._services.flows.chosen(template.flow, template.version)
        source = self._graphs.get((flow.name, flow.version))
        if source is None:
            source = (await self._services.checks.checked(document)).source
            self._graphs[flow.name, flow.version] = source
        return flow, source

    async def _params(self, planned: Planned) -> dict[str, Any]:
        try:
            return await self._evaluations.bounded(planned.params)
        except BudgetExceeded as error:
            raise NodeFailure(str(error)) from None

    async def _store_new(self, new: Mapping[str, Submission], made: dict[str, Made]) -> None:
        """Store tasks together. If the store refuses them, store each alone."""
        if not new:
            return
        try:
            await self._services.processor.create(list(new.values()))
        except (RecordTooLarge, RecordRefused, PayloadError) as error:
            if len(new) > 1:
                for name, one in new.items():
                    await self._store_new({name: one}, made)
                return
            (name,) = new
            made[name] = _refused(error)

    async def _compare(
        self,
        origins: Mapping[str, ScheduleOrigin | TriggerOrigin],
        new: Mapping[str, Submission],
        made: dict[str, Made],
    ) -> None:
        """Find out which tasks are new, which existed, and which ids belong to other tasks."""
        names = [name for name in new if name not in made]
        stored = await self._services.store.load(names) if names else {}
        for name in names:
            is_new, taken = True, False
            if name in stored:
                try:
                    first = decode_submission(stored[name])
                    is_new = first.secret == new[name].task.spec.secret
                    taken = not origins[name].is_same(first.origin)
                except CorruptRecord:
                    is_new = False
            made[name] = Made(taken=taken, is_new=is_new)
            if is_new and self._services.plugins.observes_tasks:
                task = new[name].task
                with use_trace(task.spec.trace):
                    self._services.plugins.notify(
                        "flowkit_task_changed", before=None, after=task_view(task)
                    )
            if is_new:
                self._services.plugins.measure(*measures_of_new(new[name].task.spec))


@lru_cache(maxsize=MOST_GRAPHS)
def _restored(source: bytes) -> Graph:
    return Graph.restore(source)


def _refused(error: Exception) -> Made:
    return Made(str(error)[:LONGEST_ERROR])
