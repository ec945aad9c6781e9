"""Child tasks of nodes: their creation, and the changes that they follow."""

import os
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from anyio.abc import TaskGroup

from flowkit._engine import (
    ChildFailed,
    ChildFinished,
    ChildrenCreated,
    Event,
    FollowParent,
    TellParent,
)
from flowkit._records.queries import records_of
from flowkit._records.task_records import PLANS, decode_task
from flowkit._tasks.cached_tasks import TaskEffects
from flowkit._tasks.check_threads import TaskParams
from flowkit._tasks.child_states import ChildState
from flowkit._tasks.event_processor import EventProcessor
from flowkit._tasks.registered_flows import RegisteredFlows
from flowkit._tasks.submission import Submission, task_spec
from flowkit._tasks.task_measures import measures_of_new
from flowkit._tasks.views import result_of, task_view
from flowkit._user_code.containment import awaited, undo_cancellation
from flowkit.client._session import ask_plugins
from flowkit.coordinator._child_arguments import ChildArguments
from flowkit.coordinator._child_ends import bad_end, end_in_memory, has_ended_for
from flowkit.coordinator._child_graphs import ChildGraphs
from flowkit.coordinator._logged_failures import failures_logged
from flowkit.errors import (
    CorruptRecord,
    NodeFailure,
    PayloadError,
    RecordRefused,
    RecordTooLarge,
    TaskRefused,
)
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, Store
from flowkit.task import ParentNode, Task, TaskStatus, TaskView
from flowkit.tracing import use_trace

MOST_AT_ONCE = 200
"""Child tasks of a task that are served together."""
_PRIORITIES = 2**31


class _Refused(Exception):
    """A child task cannot go on."""

    missing = False

    def __init__(self, reason_code: str, error: str) -> None:
        super().__init__(error)
        self.reason_code = reason_code
        self.error = error


class _NotCreated(_Refused):
    """A child task cannot be created."""

    missing = True


def _failed(node: ParentNode, refused: _Refused) -> ChildFailed:
    return ChildFailed(
        node.index,
        node.attempt,
        refused.reason_code,
        refused.error,
        permanent=True,
        iteration=node.iteration,
        missing=refused.missing,
    )


@dataclass(slots=True)
class _Followed:
    """A node that runs a child task, and what follows for both."""

    task: Task
    state: ChildState
    report: Event | None = None
    """Event for the parent."""
    child_id: str = field(init=False)

    def __post_init__(self) -> None:
        self.child_id = self.state.node.child_id()

    @property
    def node(self) -> ParentNode:
        return self.state.node

    def refuse(self, refused: _Refused) -> None:
        self.report = _failed(self.node, refused)


class Children:
    """Brings child tasks in line with the nodes that run them, task by task. What is lost is done
    again when the parent wakes up.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        store: Store,
        clock: Clock,
        plugins: Plugins,
        flows: RegisteredFlows,
        processor: EventProcessor,
        carry_out: Callable[[Sequence[TaskEffects]], Awaitable[None]],
        report: Callable[[str, Sequence[Event]], Awaitable[None]],
        leaving: Callable[[], bool],
    ) -> None:
        """``leaving`` returns True while the coordinator cancels what it runs."""
        self._group = group
        self._store = store
        self._clock = clock
        self._plugins = plugins
        self._processor = processor
        self._carry_out = carry_out
        self._report = report
        self._leaving = leaving
        self._arguments = ChildArguments(store)
        self._graphs = ChildGraphs(flows)
        self._waiting: dict[str, dict[int, _Followed]] = {}
        """Nodes whose child tasks are to be served, by task, each with its latest state."""

    def start(self, task: Task, state: ChildState) -> None:
        """Bring the child task of a node in line with the node."""
        waiting = self._waiting.get(task.task_id)
        if waiting is None:
            waiting = self._waiting[task.task_id] = {}
            self._group.start_soon(self._serve, task.task_id, waiting)
        waiting[state.node.index] = _Followed(task, state)

    async def _serve(self, task_id: str, waiting: dict[int, _Followed]) -> None:
        message = "Child tasks do not follow their nodes"
        try:
            with failures_logged(message, action="children_lost", task_id=task_id):
                while waiting:
                    some = [waiting.pop(index) for index in list(islice(waiting, MOST_AT_ONCE))]
                    await awaited(self._follow(task_id, some), ending=self._leaving)
        finally:
            del self._waiting[task_id]

    async def _follow(self, task_id: str, followed: Sequence[_Followed]) -> None:
        for one in followed:
            if not one.state.link.due:
                await self._check_round(one)
        due = [one for one in followed if one.state.link.due]
        new = await self._create([one for one in due if _may_be_missing(one.state)])
        children = await self._children(
            [
                one
                for one in due
                if one.report is None and (one.child_id not in new or one.state.stop is not None)
            ]
        )
        requests: dict[bool, dict[str, Sequence[Event]]] = {False: {}, True: {}}
        for one, child in children:
            node, state = one.node, one.state
            if has_ended_for(child, node):
                one.report = await self._end_of(one, child)
            elif state.stop is not None or _is_behind(child, node):
                event = FollowParent(
                    node.attempt, node.pauses, state.paused, state.stop, state.forced
                )
                requests[child.terminal][child.task_id] = [event]
        for whole, events in requests.items():
            if events:
                outcome = await self._processor.apply(events, whole=whole)
                await self._carry_out(outcome.effects)
        if reports := [one.report for one in followed if one.report is not None]:
            await self._report(task_id, reports)

    async def _children(self, followed: Sequence[_Followed]) -> list[tuple[_Followed, Task]]:
        """Return the child tasks of nodes, with the nodes. Leave out damaged ones until they are
        repaired, and those that a paused task has not created.
        """
        stored = await self._store.load([one.child_id for one in followed]) if followed else {}
        found = []
        for one in followed:
            record = stored.get(one.child_id)
            try:
                if record is not None:
                    child = decode_task(record, to_look_at=True)
                    _check_origin(child, one.node)
                    found.append((one, child))
                elif one.state.link.created:
                    raise _Refused("subflow_failed", f"task {one.child_id!r} was deleted")
            except CorruptRecord as error:
                if one.state.stop is not None:
                    one.refuse(_Refused("subflow_failed", str(error)))
            except _Refused as refused:
                one.refuse(refused)
        return found

    # ------------------------------------------------------------ creation

    async def _create(self, followed: Sequence[_Followed]) -> Collection[str]:
        """Store the child tasks of nodes and start them, unless they are stored already. Return the
        ids of those that were created here, and so are in line with their nodes.

        One is also created for a node that is being stopped, and then cancelled: another
        coordinator may be about to create it.
        """
        new: dict[str, Submission] = {}
        refused: list[tuple[_Followed, _NotCreated]] = []
        for one in followed:
            try:
                new[one.child_id] = await self._submission(one)
            except _NotCreated as refusal:
                refused.append((one, refusal))
        if refused:
            # A child task may have been created when its params had values.
            stored = await self._store.load([one.child_id for one, _ in refused])
            for one, why in refused:
                if one.child_id not in stored:
                    one.refuse(why)
        created = [one for one in followed if one.child_id in new]
        await self._store_new(created, new)
        created = [one for one in created if one.report is None]
        if not created:
            return ()
        submitted = {one.child_id: new[one.child_id] for one in created}
        views = self._views(submitted)
        outcome = await self._processor.refresh(submitted, submitted=submitted)
        created_here = {
            held.task.task_id
            for held in self._processor.find_cached(submitted)
            if held.task.spec.secret == submitted[held.task.task_id].task.spec.secret
        }
        for child_id in created_here & views.keys():
            with use_trace(submitted[child_id].task.spec.trace):
                self._plugins.notify("flowkit_task_changed", before=None, after=views[child_id])
        for child_id in created_here:
            self._plugins.measure(*measures_of_new(submitted[child_id].task.spec))
        await undo_cancellation()
        await self._carry_out(outcome.effects)
        for held in self._processor.find_cached([created[0].task.task_id]):
            self._processor.apply_deferred(held, ChildrenCreated([one.node for one in created]))
        return created_here

    async def _store_new(
        self, followed: Sequence[_Followed], new: Mapping[str, Submission]
    ) -> None:
        """Store child tasks together. If the store refuses them, store each alone."""
        if not followed:
            return
        try:
            await self._processor.create([new[one.child_id] for one in followed])
        except (RecordTooLarge, RecordRefused, PayloadError) as error:
            if len(followed) == 1:
                followed[0].refuse(_NotCreated("subflow_failed", f"it cannot be stored: {error}"))
                return
            for one in followed:
                await self._store_new([one], new)

    def _views(self, new: Mapping[str, Submission]) -> dict[str, TaskView]:
        """Return the views of new child tasks, if a plugin is to be notified of them."""
        if not self._plugins.observes_tasks:
            return {}
        return {child_id: task_view(submission.task) for child_id, submission in new.items()}

    async def _submission(self, one: _Followed) -> Submission:
        task, state, node = one.task, one.state, one.node
        spec = task.spec.plan.nodes[node.index]
        try:
            flow, source = await self._graphs.of(task, node)
            params = await self._arguments.params(task, state, source)
        except NodeFailure as error:
            raise _NotCreated(error.reason_code, str(error)) from error
        except CorruptRecord as error:
            raise _NotCreated("corrupt_record", str(error)) from error
        child = task_spec(
            one.child_id,
            PLANS.get(source),
            TaskParams(params, params),
            flow,
            created_at=self._clock.now(),
            secret=os.urandom(16),
            labels=spec.labels,
            priority=_limited(task.spec.priority + spec.priority),
            trace=task.spec.trace,
            parent=node,
            flow_versions=task.spec.flow_versions,
            depth=task.spec.depth + 1,
            chain=task.spec.chain,
        )
        if self._plugins.checks_submissions:
            try:
                await ask_plugins(self._plugins, child, Graph.restore(source))
            except TaskRefused as error:
                raise _NotCreated("subflow_failed", str(error)) from error
        return self._processor.submit(child, source, certainly_new=False)

    # ------------------------------------------------------------ ends

    def ends_of(self, effects: Sequence[TaskEffects]) -> dict[str, list[Event]]:
        """Return the events for the parents of child tasks that have ended, by parent. Leave out
        parents that are not in memory.
        """
        ends: dict[str, list[Event]] = {}
        for todo in effects:
            child, node = todo.task, todo.task.spec.parent
            if node is not None and any(isinstance(one, TellParent) for one in todo.effects):
                for held in self._processor.find_cached([node.task_id]):
                    ends.setdefault(node.task_id, []).append(end_in_memory(held.task, child))
        return ends

    async def _end_of(self, one: _Followed, child: Task) -> Event:
        """Return the event for the parent of a child task that has ended."""
        node = one.node
        if child.status is not TaskStatus.FINISHED:
            return bad_end(child, node)
        records = await records_of(self._store, child, child.spec.plan.leaves)
        result = result_of(child, records)
        if node.iteration is None:
            return ChildFinished(node.index, node.attempt, result)
        try:
            return await self._arguments.end_round(one.task, one.state, result)
        except NodeFailure as error:
            return _failed(node, _refused(error))

    async def _check_round(self, one: _Followed) -> None:
        """Check the condition of a loop before a round, unless the loop is paused. One that is to
        stop has no child task to wait for.
        """
        if one.state.stop is not None:
            one.refuse(_Refused("subflow_failed", one.state.stop))
        elif not one.state.paused:
            try:
                one.report = await self._arguments.check_round(one.task, one.state)
            except NodeFailure as error:
                one.refuse(_refused(error))


def _refused(error: NodeFailure) -> _Refused:
    return _Refused(error.reason_code, str(error))


def _may_be_missing(state: ChildState) -> bool:
    """Return whether a child task is to be created, unless it is stored already."""
    return not state.link.created and (state.stop is not None or not state.paused)


def _check_origin(child: Task, node: ParentNode) -> None:
    """Check that a task is the child task of a node.

    Raises:
        _NotCreated: it is another task.
    """
    if not node.is_same_node(child.spec.parent):
        raise _NotCreated(
            "id_taken",
            f"its child task needs the id {child.task_id!r}, which another task has; delete that"
            " task, then retry",
        )


def _is_behind(child: Task, node: ParentNode) -> bool:
    return child.parent_attempt < node.attempt or child.parent_pauses < node.pauses


def _limited(priority: int) -> int:
    return min(max(priority, -_PRIORITIES), _PRIORITIES - 1)
