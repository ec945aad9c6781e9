"""Tasks of schedules: their submissions, and their creation."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from flowkit._expressions import BudgetExceeded
from flowkit._records.schedule_records import Definition
from flowkit._records.task_records import PLANS, decode_submission
from flowkit._runtime.concurrency import Recent
from flowkit._schedules import Entry, params_at, task_id_of
from flowkit._tasks.evaluation import Evaluations
from flowkit._tasks.event_processor import EventProcessor
from flowkit._tasks.flow_versions import fixed_versions
from flowkit._tasks.graph_checks import GraphChecks
from flowkit._tasks.registered_flows import RegisteredFlows
from flowkit._tasks.submission import Submission, task_spec
from flowkit._tasks.views import task_view
from flowkit._user_code.containment import undo_cancellation
from flowkit.client._session import Dispatcher, ask_plugins
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
from flowkit.task import ScheduleOrigin, TaskFlow

LONGEST_ERROR = 300
MOST_GRAPHS = 256


@dataclass(frozen=True, slots=True)
class Services:
    """Store, rules and plugins with which the tasks of schedules are made."""

    store: Store
    clock: Clock
    plugins: Plugins
    checks: GraphChecks
    flows: RegisteredFlows
    processor: EventProcessor
    dispatcher: Dispatcher


@dataclass(frozen=True, slots=True)
class Due:
    """A nominal time whose task is to be made."""

    definition: Definition
    at: float
    awaited: bool
    """The schedule does something when the task has ended."""

    @property
    def task_id(self) -> str:
        return task_id_of(self.definition.schedule.id, self.at)


@dataclass(frozen=True, slots=True)
class Made:
    """Outcome of a nominal time: its task exists, unless there is an entry with the reason."""

    entry: Entry | None = None
    is_new: bool = False


class ScheduleTasks:
    """Makes the tasks of nominal times. Making one again changes nothing."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._evaluations = Evaluations()
        self._graphs: Recent[tuple[str, int], bytes] = Recent(MOST_GRAPHS)
        """Graphs of versions of flows, once they are checked."""

    async def make(self, due: Sequence[Due]) -> Mapping[str, Made]:
        """Store the tasks of nominal times and start them. Return the outcomes by task id."""
        made: dict[str, Made] = {}
        new: dict[str, Submission] = {}
        for one in due:
            try:
                new[one.task_id] = await self._submission(one)
            except (NodeFailure, TaskRefused, GraphError, FlowNotFound, CorruptRecord) as error:
                made[one.task_id] = _refused(one.at, error)
        await self._store_new(new, made)
        await self._services.dispatcher.submitted(
            {name: new[name] for name in new if name not in made}
        )
        await self._compare(new, made)
        await undo_cancellation()
        return made

    async def _submission(self, due: Due) -> Submission:
        """Return the submission of a task.

        Raises:
            NodeFailure: its params have no value, or do not fit.
            TaskRefused: a plugin refuses it.
            GraphError, FlowNotFound, CorruptRecord: its flow cannot be used.
        """
        schedule = due.definition.schedule
        flow, source = await self._graph(due.definition)
        plan, graph = PLANS.get(source), _restored(source)
        given = await self._params(due)
        params, faults = await self._services.checks.threads.params(graph.document.params, given)
        if faults:
            raise NodeFailure("; ".join(faults))
        spec = task_spec(
            due.task_id,
            plan,
            params,
            flow,
            created_at=self._services.clock.now(),
            secret=os.urandom(16),
            pipeline=schedule.pipeline,
            labels=schedule.labels,
            priority=schedule.priority,
            deadline_sec=schedule.deadline_sec,
            schedule=ScheduleOrigin(schedule.id, due.at, due.awaited),
            flow_versions=await fixed_versions(
                graph, flow, flows=self._services.flows, checks=self._services.checks
            ),
        )
        if self._services.plugins.checks_submissions:
            await ask_plugins(self._services.plugins, spec, graph)
        return self._services.processor.submit(spec, source, certainly_new=False)

    async def _graph(self, definition: Definition) -> tuple[TaskFlow | None, bytes]:
        """Return the flow of a task, if the schedule names one, and the JSON of its graph."""
        schedule = definition.schedule
        if schedule.flow is None:
            return None, definition.graph
        flow, document = await self._services.flows.chosen(schedule.flow, schedule.version)
        source = self._graphs.get((flow.name, flow.version))
        if source is None:
            source = (await self._services.checks.checked(document)).source
            self._graphs[flow.name, flow.version] = source
        return flow, source

    async def _params(self, due: Due) -> dict[str, object]:
        schedule = due.definition.schedule
        try:
            return await self._evaluations.bounded(
                lambda budget, at_once: params_at(
                    schedule.params, schedule.id, due.at, budget, at_once=at_once
                )
            )
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
            ((name, one),) = new.items()
            assert one.task.spec.schedule is not None
            made[name] = _refused(one.task.spec.schedule.at, error)

    async def _compare(self, new: Mapping[str, Submission], made: dict[str, Made]) -> None:
        """Find out which tasks are new, which existed, and which ids belong to other tasks."""
        names = [name for name in new if name not in made]
        stored = await self._services.store.load(names) if names else {}
        for name in names:
            spec = new[name].task.spec
            assert spec.schedule is not None
            is_new, taken = True, False
            if name in stored:
                try:
                    first = decode_submission(stored[name])
                    is_new = first.secret == spec.secret
                    taken = not spec.schedule.is_same(first.schedule)
                except CorruptRecord:
                    is_new = False
            at = spec.schedule.at
            made[name] = Made(Entry(at, at, skipped="id_taken") if taken else None, is_new)
            if is_new and self._services.plugins.observes_tasks:
                view = task_view(new[name].task)
                self._services.plugins.notify("flowkit_task_changed", before=None, after=view)


@lru_cache(maxsize=MOST_GRAPHS)
def _restored(source: bytes) -> Graph:
    return Graph.restore(source)


def _refused(at: float, error: Exception) -> Made:
    return Made(Entry(at, at, error=str(error)[:LONGEST_ERROR]))
