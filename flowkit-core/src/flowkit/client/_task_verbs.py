"""The verbs that clients and coordinators share."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import datetime
from typing import Any, Self

from flowkit._dead_letters.redrive import Redriven
from flowkit._engine import CancelRequested, PauseRequested, ResumeRequested
from flowkit._records.damaged_records import damaged_records
from flowkit._records.letter_records import drop_letters
from flowkit._runtime.lifecycle import Lifecycle
from flowkit._schedules import Schedule, ScheduleView
from flowkit._tasks.submission import checked_reason
from flowkit._triggers import Trigger, TriggerView
from flowkit.client import (
    _actions,
    _approvals,
    _artifacts,
    _bulk,
    _caches,
    _dead_letters,
    _event_pages,
    _explanations,
    _figures,
    _flows,
    _logs,
    _nodes,
    _pauses,
    _queries,
    _queues,
    _reruns,
    _resolutions,
    _retries,
    _schedules,
    _signals,
    _triggers,
    _workers,
)
from flowkit.client._session import Session
from flowkit.client._task_filters import filter_query, task_query
from flowkit.config import CommonConfig
from flowkit.plugins import Plugins
from flowkit.protocols import Clock, DamagedRecord, Store
from flowkit.task import (
    Approval,
    Artifact,
    BulkProgress,
    CoordinatorView,
    DeadLetter,
    FlowInfo,
    FlowVersion,
    LogLine,
    NodeAction,
    NodesShown,
    NodeView,
    Page,
    QueueView,
    ResolvedAs,
    TaskAction,
    TaskEvent,
    TaskView,
    WorkerView,
)


class TaskVerbs(ABC):
    """Verbs on tasks, registered flows and dead letters, which :class:`Client` and
    :class:`Coordinator` share.

    A verb that is called before the start or after the stop raises
    :class:`~flowkit.errors.NotRunning`.

    This is a base class, and a coordinator does not wrap a client, so that the signature and the
    docstring of each verb exist once. The two classes differ only in the session that they open.
    """

    cfg: CommonConfig
    clock: Clock
    plugins: Plugins
    _life: Lifecycle[Session]

    @abstractmethod
    async def start(self) -> None:
        """Connect; return when ready. ``async with`` does the same."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop, and close the connections that were opened. ``async with`` does the same."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()

    @property
    def store(self) -> Store:
        """The store, while this is open.

        Raises:
            NotRunning: this is not started, or is stopped.
        """
        return self._life.resource.store

    # ------------------------------------------------------------ submission

    async def create_task(
        self,
        *,
        params: Mapping[str, Any] | None = None,
        graph: Any = None,
        flow: str | None = None,
        version: int | None = None,
        pipeline: str | None = None,
        task_id: str | None = None,
        idempotency_key: str | None = None,
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        deadline_sec: float | None = None,
    ) -> str:
        """Submit a task and return its id. The task is durable when this returns.

        It runs a ``graph``, or the registered ``flow`` of this name: a ``version`` of it, or the
        latest one, which the task keeps. ``pipeline`` is the name of the flow by default.

        A second submission with the same ``idempotency_key``, or ``task_id``, returns the id of the
        first and changes nothing. Its graph and its ``params`` must be those of the first, as they
        were written. Of a flow, the name and the ``version`` must be the same; without a
        ``version``, another one may be the latest meanwhile.

        ``deadline_sec`` counts from now, and the task fails when it passes; the default is the
        graph's own ``deadline_sec``. Nodes of a task with a higher ``priority`` (a whole number of
        32 bits) start first. ``pipeline``, ``task_id`` and ``idempotency_key`` have 1 to 200
        printable characters. ``labels`` maps keys to texts, each of at most 1,000
        characters; a key is not empty and contains no ``=``.

        Raises:
            GraphError: the graph or the submission has faults. The error lists all of them, and
                nothing is stored.
            FlowNotFound: there is no such flow, or it has no such version.
            CorruptRecord: the record of the flow is damaged.
            TaskRefused: a plugin refused the task, or its id or key belongs to a task with another
                graph or flow, or other params.
            NotRunning: this is not started, or is stopped.
            RecordTooLarge, StoreUnavailable: the task could not be stored.
        """
        return await self._life.resource.create_task(
            graph,
            params,
            flow=flow,
            version=version,
            task_id=task_id,
            idempotency_key=idempotency_key,
            pipeline=pipeline,
            labels=labels,
            priority=priority,
            deadline_sec=deadline_sec,
        )

    # ------------------------------------------------------------ flows

    async def put_flow(self, name: str, graph: Any, *, description: str = "") -> FlowVersion:
        """Register a graph as the latest version of a flow, and return that version. It is durable
        when this returns.

        ``graph`` is what :meth:`create_task` takes. The versions of a flow have the numbers 1, 2,
        3, … If the latest version has the same graph, as it is written, no version is added, and
        ``description`` replaces that of the latest one, unless it is empty. The order of keys in an
        object does not count. Of two puts at the same time, each graph gets a number of its own.
        Tasks keep the version that they have begun with.

        ``name`` has 1 to 200 printable characters.

        Raises:
            GraphError: the graph, the name or the description has faults. Nothing is stored.
            CorruptRecord: the stored flow is damaged.
            RecordTooLarge: the graph is larger than a record of the store may be, which is at least
                two million bytes. Nothing is stored.
            StoreUnavailable: the version may or may not have been stored; call this again.
        """
        return await _flows.put_flow(self._life.resource, name, graph, description)

    async def get_flow(self, name: str, version: int | None = None) -> FlowVersion:
        """Return a version of a flow; the latest one without ``version``.

        Raises:
            FlowNotFound: there is no such flow, or it has no such version.
            GraphError: the name or the version has a wrong value.
            CorruptRecord: the record of the flow is damaged.
        """
        return await _flows.get_flow(self._life.resource, name, version)

    async def list_flows(self) -> list[FlowInfo]:
        """Return the latest version of each flow, without the graphs, by name."""
        return await _flows.list_flows(self._life.resource)

    # ------------------------------------------------------------ queries

    async def get_task(self, task_id: str, *, nodes: NodesShown = "all") -> TaskView:
        """Return a task as it is now.

        ``nodes`` says which nodes the view has: ``all`` are the nodes of its graph and the first
        1,000 children of each map, ``graph`` only the nodes of its graph; or ``none``.

        Raises:
            TaskNotFound: there is no such task.
            ValueError: ``nodes`` is none of these.
        """
        return await _queries.get_task(self._life.resource, task_id, nodes)

    async def get_graph(self, task_id: str) -> dict[str, Any]:
        """Return the graph of a task as it was submitted: as a document, in the form in which it
        was written.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: the task cannot be read.
        """
        return await _queries.get_graph(self._life.resource, task_id)

    async def wait(self, task_id: str, timeout: float | None = None) -> TaskView:
        """Return the task when it has ended.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: its record is damaged. The task does not end while it is; a coordinator
                that has the task in its memory may replace what is damaged at its next change.
            TimeoutError: it has not ended after ``timeout`` seconds.
            ValueError: ``timeout`` is not a number of seconds.
        """
        return await _queries.wait_for_end(self._life.resource, task_id, timeout)

    async def events(
        self,
        task_id: str,
        *,
        node_id: str | None = None,
        limit: int = 100,
        after: str | None = None,
        newest_first: bool = False,
    ) -> Page[TaskEvent]:
        """Return a page of the events of a task until now in order, or of those of one node.
        ``after`` is the ``next`` of the page before in the same order.

        Of a long history, only the part around the page is read. The events of one node are
        searched among those of the task.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            CorruptRecord: the task cannot be read.
            ValueError: ``limit`` or ``after`` is not valid.
        """
        return await _event_pages.list_events(
            self._life.resource,
            task_id,
            node_id=node_id,
            limit=limit,
            after=after,
            newest_first=newest_first,
        )

    def watch(self, task_id: str, *, after: int = 0) -> AsyncIterator[TaskEvent]:
        """Yield every event of a task in order, from the first, until the task has ended.

        With ``after``, the events begin after the one with this ``seq``.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: its record is damaged, as for :meth:`wait`.
        """
        return _queries.watch(self._life.resource, task_id, after)

    async def list_tasks(
        self,
        *,
        status: str | Collection[str] | None = None,
        pipeline: str | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        root: bool | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        retrying: bool | None = None,
        waiting: str | None = None,
        reason_code: str | None = None,
        limit: int = 50,
        after: str | None = None,
        nodes: NodesShown = "all",
    ) -> Page[TaskView]:
        """Return a page of the tasks that match all that is given, newest first.

        The store finds them by indexes: it does not read the tasks that do not match. ``after`` is
        the ``next`` of the page before. ``nodes`` says which nodes the views have, as for
        :meth:`get_task`.

        - ``status``: the status of the task, or several of which it has one.
        - ``labels``: labels that the task has, perhaps among others.
        - ``parent``: the id of the task whose node runs the task.
        - ``root=True``: no node of another task runs the task.
        - ``created_after``, ``created_before``: times with a zone. Neither of them counts itself.
        - ``retrying=True``: a node waits for its next attempt or runs it, because the last one
          failed.
        - ``waiting``: a node waits. ``timer``, ``signal`` and ``approval`` are what a node of type
          ``sleep``, ``wait_signal`` or ``approval`` waits for; a ``loop`` waits for a ``timer``
          between its rounds. With ``worker``, the command of a
          node was issued, and no worker has started it yet, as far as the coordinator knows. With
          ``key`` or ``rate``, a node is in the queue of its concurrency key or its rate.
        - ``reason_code``: a node failed with this code, or its last attempt did and it is retried.
          This includes failures that a branch handles. If the nodes of a task fail with more than
          16 codes, the task is found by those that came first.

        A retry of the task forgets the failures of the nodes that run again.

        Raises:
            ValueError: an argument has a value that no task can match, such as an unknown status.
            StoreError: ``after`` is not the ``next`` of a page.
        """
        query = task_query(
            status=status,
            pipeline=pipeline,
            labels=labels,
            parent=parent,
            root=root,
            created_after=created_after,
            created_before=created_before,
            retrying=retrying,
            waiting=waiting,
            reason_code=reason_code,
            limit=limit,
            after=after,
        )
        return await _queries.list_tasks(self._life.resource, query, nodes)

    async def count_tasks(
        self,
        *,
        most: int = 1_000,
        status: str | Collection[str] | None = None,
        pipeline: str | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        root: bool | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        retrying: bool | None = None,
        waiting: str | None = None,
        reason_code: str | None = None,
    ) -> int:
        """Return the number of tasks that match the filters of :meth:`list_tasks`, or ``most`` if
        there are more. It reads the records of these tasks.

        Raises:
            ValueError: an argument has a value that no task can match.
        """
        query = task_query(
            status=status,
            pipeline=pipeline,
            labels=labels,
            parent=parent,
            root=root,
            created_after=created_after,
            created_before=created_before,
            retrying=retrying,
            waiting=waiting,
            reason_code=reason_code,
            limit=most,
            after=None,
        )
        return await _queries.count_tasks(self._life.resource, query, most)

    async def count_reasons(
        self,
        *,
        most: int = 1_000,
        status: str | Collection[str] | None = None,
        created_after: datetime | None = None,
    ) -> dict[str, int]:
        """Return the numbers of tasks by the reason codes of their failed nodes, the largest first.
        They are of the newest ``most`` tasks that match, whose records it reads.

        A task whose nodes failed with several codes counts for each of them.

        Raises:
            ValueError: an argument has a value that no task can match.
        """
        query = task_query(status=status, created_after=created_after, limit=most)
        return await _figures.count_reasons(self._life.resource, query, most)

    async def get_node(self, task_id: str, node_id: str) -> NodeView:
        """Return a node of a task as it is now, or any child of its maps.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            CorruptRecord: the task is damaged.
        """
        return await _nodes.get_node(self._life.resource, task_id, node_id)

    async def nodes(
        self,
        task_id: str,
        *,
        map: str | None = None,  # noqa: A002
        status: str | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> Page[NodeView]:
        """Return a page of the nodes of a task: the nodes of its graph, then the children of its
        maps, and shards. With ``map``, only the children or the shards of that node, in order.

        ``after`` is the ``next`` of the page before.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            ValueError: the node is not a map, or an argument is not valid.
        """
        return await _nodes.list_nodes(
            self._life.resource, task_id, map_id=map, status=status, limit=limit, after=after
        )

    def artifacts(self, task_id: str, node_id: str | None = None) -> AsyncIterator[Artifact]:
        """Yield the artifacts of a task in order of production, or those of one of its nodes in the
        order in which its readers get them.

        Those of a shard are those that it stored in the stream of its node: they have the id of the
        node, and uids that begin with the number of the shard.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            NodeFailure: ``artifact_lost``; a stored artifact is missing. The artifacts before it
                were yielded.
            CorruptRecord: an artifact is damaged.
        """
        return _artifacts.read_artifacts(self._life.resource, task_id, node_id)

    def logs(
        self, task_id: str, node_id: str | None = None, *, follow: bool = False
    ) -> AsyncIterator[LogLine]:
        """Yield what the handlers of a task have logged, or those of one of its nodes.

        The lines of a map include those of its children. Lines are ordered by time, and the lines
        of an attempt by their number. With ``follow``, further lines are yielded when they are
        stored, until the task has ended. Lines of a worker that was killed may be missing, and
        lines that were stored late come after those that were yielded already.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            CorruptRecord: the record of the task is damaged.
        """
        return _logs.read_logs(self._life.resource, task_id, node_id, follow=follow)

    async def explain(self, task_id: str, node_id: str) -> str:
        """Return a sentence that says why a node is not running.

        If the node runs a child task, the sentence goes on with what that waits for, down to the
        lowest one. It names a node that waits for a decision or a signal, if there is one.

        If the node waits for a worker, this waits for the next heartbeat of one that serves its
        role, for at most 10 s. If the task was quarantined, the sentence says why and what to do,
        from the dead letter of the task.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            CorruptRecord: the task cannot be read, and was not quarantined yet.
        """
        return await _explanations.explain(self._life.resource, task_id, node_id)

    async def task_actions(self, task_id: str) -> tuple[TaskAction, ...]:
        """Return the actions that would have an effect on a task in its state.

        A task that has an outcome and still runs undos or ``finally`` can only be cancelled with
        ``force``.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: the task is damaged.
        """
        return await _actions.task_actions(self._life.resource, task_id)

    async def node_actions(self, task_id: str, node_id: str) -> tuple[NodeAction, ...]:
        """Return the actions that would have an effect on a node in its state.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            CorruptRecord: the task is damaged.
        """
        return await _actions.node_actions(self._life.resource, task_id, node_id)

    # ------------------------------------------------------------ changes

    async def cancel(self, task_id: str, reason: str = "", *, force: bool = False) -> None:
        """Cancel a task. Its running nodes are asked to end, and cut off after a grace. Then its
        undos and the nodes of ``finally`` run; ``force`` ends these, too. A task that has ended
        stays unchanged.

        Raises:
            TaskNotFound: there is no such task.
            TaskRefused: the reason is not a text of at most 1,000 characters.
        """
        await self._life.resource.change(
            task_id, CancelRequested(checked_reason(reason), force=force)
        )

    async def pause(self, task_id: str) -> None:
        """Pause a task and the child tasks that its nodes run: start no new nodes. Running nodes
        continue. A task that has ended stays unchanged.

        Raises:
            TaskNotFound: there is no such task.
        """
        await self._life.resource.change(task_id, PauseRequested())

    async def resume(self, task_id: str) -> None:
        """End the pause of a task, and of the child tasks that its nodes run, also of those that
        were paused alone. Tasks that are not paused stay unchanged.

        Raises:
            TaskNotFound: there is no such task.
        """
        await self._life.resource.change(task_id, ResumeRequested())

    async def retry(self, task_id: str, *, from_nodes: Collection[str] | None = None) -> None:
        """Run a failed or cancelled task again, from its failed nodes, or from the named nodes and
        all nodes below them.

        Finished nodes are kept, and so are the stored batches of a failed node. A named node that
        has finished starts from the beginning, together with the nodes below it. So does a finished
        node that may get more data because a parent runs again, and a node whose undo has begun.
        ``finally`` runs again at the end. If nothing is left to run, the task ends as ``finished``.

        Raises:
            TaskNotFound: there is no such task.
            TaskRefused: the task has neither failed nor been cancelled, a named node is not in it
                or is an undo or in ``finally``, a named node cannot run without a failed or skipped
                node that is not named, the nodes are not a list, or it is a child task whose node
                has ended: retry the parent. Nothing is changed.
        """
        await _retries.retry_task(self._life.resource, task_id, from_nodes)

    async def signal(
        self, task_id: str, name: str, payload: Any = None, *, signal_id: str | None = None
    ) -> None:
        """Send a signal to a task. The node that has waited for its name the longest takes it, and
        the payload becomes its result. If no node waits yet, the signal is kept for the next one.

        Of several signals with the same ``signal_id``, the first one counts, so that a call whose
        outcome is unknown can be repeated. The payload is any JSON value of at most 256 KiB.

        Raises:
            TaskNotFound: there is no such task.
            SignalRefused: the task has ended, no node of its graph waits for this name, or the
                payload does not match the JSON Schema of any of these nodes. The task also refuses
                a signal when it keeps too many that no node has taken. Nothing is stored. If child
                tasks take signals of this name, the error names some of them.
        """
        await _signals.send_signal(self._life.resource, task_id, name, payload, signal_id)

    # ------------------------------------------------------------ approvals

    async def approvals(
        self,
        *,
        task_id: str | None = None,
        assignee: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Approval]:
        """Return a page of the nodes that wait for a decision, those of the newest tasks first.
        ``after`` is the ``next`` of the page before.

        With ``task_id``, only those of this task are returned, and with ``assignee``, only those
        about which this person may decide. A page has at most ``limit`` nodes, and may have fewer
        although another page follows.

        Raises:
            TaskNotFound: there is no task ``task_id``.
        """
        return await _approvals.list_approvals(
            self._life.resource, task_id=task_id, assignee=assignee, limit=limit, after=after
        )

    async def decide(
        self,
        task_id: str,
        node_id: str,
        choice: str,
        *,
        by: str,
        values: Mapping[str, Any] | None = None,
        comment: str | None = None,
    ) -> None:
        """Decide about a node that waits for an approval. The first decision counts.

        ``values`` are the values of the form; they may be left out of a rejection. ``by`` is the
        name of the person who decides: one of the assignees, if the node has any.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            AlreadyDecided: another decision came first.
            NotAssigned: this person is none of the assignees.
            TaskRefused: the node does not wait for a decision, the choice is none of its choices,
                or the values do not match the form.
        """
        await _approvals.decide(
            self._life.resource, task_id, node_id, choice, by=by, values=values, comment=comment
        )

    # ------------------------------------------------------------ changes of many tasks

    async def cancel_tasks(
        self,
        *,
        reason: str = "",
        force: bool = False,
        on_progress: Callable[[BulkProgress], None] | None = None,
        status: str | Collection[str] | None = None,
        pipeline: str | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        root: bool | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        retrying: bool | None = None,
        waiting: str | None = None,
        reason_code: str | None = None,
    ) -> int:
        """Cancel all tasks that match the filters of :meth:`list_tasks` and have not ended, as
        :meth:`cancel` does. Return how many were changed.

        At least one filter is given. Tasks that are submitted meanwhile are not cancelled.
        ``on_progress`` is called after every few tasks, and gets the tasks that could not be
        changed, too; without it, these are logged. All others are changed. After an interruption,
        the same call cancels the rest.

        Raises:
            ValueError: no filter is given, or one has a value that no task can match.
            TaskRefused: the reason is not a text of at most 1,000 characters.
        """
        query = filter_query(
            status=status,
            pipeline=pipeline,
            labels=labels,
            parent=parent,
            root=root,
            created_after=created_after,
            created_before=created_before,
            retrying=retrying,
            waiting=waiting,
            reason_code=reason_code,
        )
        event = CancelRequested(checked_reason(reason), force=force)
        return await _bulk.cancel_tasks(self._life.resource, query, event, on_progress)

    async def retry_tasks(
        self,
        *,
        on_progress: Callable[[BulkProgress], None] | None = None,
        status: str | Collection[str] | None = None,
        pipeline: str | None = None,
        labels: Mapping[str, str] | None = None,
        parent: str | None = None,
        root: bool | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        retrying: bool | None = None,
        waiting: str | None = None,
        reason_code: str | None = None,
    ) -> int:
        """Retry all failed and cancelled tasks that match the filters of :meth:`list_tasks`, as
        :meth:`retry` does. Return how many were changed.

        The rules of :meth:`cancel_tasks` hold. A child task whose node has ended is not retried
        alone, but with its parent. After an interruption, the same call retries the rest, and those
        that have failed again meanwhile.

        Raises:
            ValueError: no filter is given, or one has a value that no task can match.
        """
        query = filter_query(
            status=status,
            pipeline=pipeline,
            labels=labels,
            parent=parent,
            root=root,
            created_after=created_after,
            created_before=created_before,
            retrying=retrying,
            waiting=waiting,
            reason_code=reason_code,
        )
        return await _bulk.retry_tasks(self._life.resource, query, on_progress)

    # ------------------------------------------------------------ operators

    async def run_now(self, task_id: str, node_id: str) -> None:
        """End the pause of a node at once: the pause before its next attempt, a sleep, or the pause
        between two rounds of a loop. The next attempt or round starts, and a sleep finishes.

        While the task is paused, a sleep finishes, and an attempt or round waits for ``resume``.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            TaskRefused: the node has no pause. One that waits for its concurrency key, or for its
                rate, has none.
        """
        await _pauses.run_now(self._life.resource, task_id, node_id)

    async def resolve_node(
        self,
        task_id: str,
        node_id: str,
        outcome: ResolvedAs,
        *,
        by: str,
        result: Any = None,
        reason: str = "",
    ) -> None:
        """Settle a node that has not ended: as ``finished``, with this result, as ``failed`` or as
        ``skipped``. ``by`` is the name of the operator. The task goes on as if the node had ended
        so by itself.

        What the node runs is stopped first, as by a cancellation: a handler or coordinator function
        within the grace, a child task with its undos and its ``finally``, the children of a map.
        Meanwhile the node is ``cancelling``. It ends with the chosen outcome, also if it succeeds
        before it is stopped. A node that a worker may begin in a segment stays ``queued`` until the
        worker has said that it does not begin it. A failed node is not retried. A finished one is
        undone like others if the task fails, and nodes that read its artifacts get those that it
        has stored.

        Any node of the running phase of the task can be resolved, whether it has begun or not: also
        the child of a map, an undo, and a node of ``finally``. A shard alone cannot, because its
        artifacts would be lost: resolve its node. Repeating a call is harmless. A later ``retry``
        of the task may run the node again.

        Raises:
            TaskNotFound: there is no such task, or it has no such node.
            TaskRefused: the node has ended or is being stopped, its phase has not begun, it is a
                shard, it was resolved differently before, or an argument is not valid.
        """
        await _resolutions.resolve_node(
            self._life.resource, task_id, node_id, outcome, by=by, result=result, reason=reason
        )

    async def rerun(
        self,
        task_id: str,
        *,
        params: Mapping[str, Any] | None = None,
        flow_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> str:
        """Submit a new task with the graph, the params, the pipeline, the labels, the priority and
        the deadline of a task, and return its id. :attr:`TaskView.rerun_of` of the new task names
        the old one, which may have any status and stays as it is.

        ``params`` replace those of the same names. ``flow_version`` chooses another version of the
        registered flow that the task ran. The graph is checked again. A second call with the same
        ``idempotency_key`` returns the id of the first new task.

        Raises:
            TaskNotFound: there is no such task.
            CorruptRecord: the task cannot be read.
            GraphError: the graph or the params are not valid, perhaps any more.
            FlowNotFound: the flow has no such version.
            TaskRefused: the task has a graph of its own, and ``flow_version`` is given; or as for
                :meth:`create_task`.
        """
        return await _reruns.rerun(
            self._life.resource,
            task_id,
            params=params,
            flow_version=flow_version,
            idempotency_key=idempotency_key,
        )

    async def workers(self) -> list[WorkerView]:
        """Return the workers of the installation, by id.

        A worker that stopped in order is not among them. One that was killed is, with ``silent``,
        until a coordinator has ended its session.
        """
        return await _workers.list_workers(self._life.resource)

    async def coordinators(self) -> list[CoordinatorView]:
        """Return the coordinators of the installation, by id.

        A coordinator that stopped in order is not among them. One that was killed is, with
        ``silent``, until another coordinator has ended its session.
        """
        return await _workers.list_coordinators(self._life.resource)

    async def queues(self) -> list[QueueView]:
        """Return how many nodes wait for a worker, and since when, by role.

        A role is missing if no node waits for it. Of the tasks with such a node, the 1,000 oldest
        count. If there are more, each of the figures is ``limited``.
        """
        return await _queues.list_queues(self._life.resource)

    # ------------------------------------------------------------ schedules

    async def put_schedule(self, schedule: Schedule) -> ScheduleView:
        """Store a schedule, in place of one with the same id. Coordinators make its tasks.

        A new schedule begins now: earlier nominal times are not made. One that is put again keeps
        its past: its history, its pause unless ``paused`` is given, and its nominal times until
        now, also those that are missed or wait. If its times change, the new ones count from now.

        Raises:
            GraphError: the graph or the params have faults; all of them are listed.
            FlowNotFound: its flow does not exist, or has no such version.
            ScheduleRefused: a new schedule, or one whose times change, has no nominal time in the
                future; the times changed 100 times while no coordinator handled them; or this is a
                copy with a wrong field.
            RecordTooLarge: the schedule is larger than a record of the store may be, which is at
                least two million bytes. Nothing is stored.
            StoreUnavailable: the schedule may or may not have been stored; call this again.
        """
        return await _schedules.put_schedule(self._life.resource, schedule)

    async def get_schedule(self, schedule_id: str) -> ScheduleView:
        """Return a schedule with its state and the end of its history.

        Raises:
            ScheduleNotFound: there is no such schedule.
            ValueError: ``schedule_id`` is no text. This holds for all verbs that take one.
            CorruptRecord: the record of the schedule is damaged.
        """
        return await _schedules.get_schedule(self._life.resource, schedule_id)

    async def list_schedules(self) -> list[ScheduleView]:
        """Return all schedules by id. Damaged ones are left out, and logged."""
        return await _schedules.list_schedules(self._life.resource)

    async def pause_schedule(self, schedule_id: str) -> None:
        """Pause a schedule: make no tasks for the nominal times from now on. They are not caught up
        later. A paused schedule stays unchanged.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        await _schedules.pause_schedule(self._life.resource, schedule_id)

    async def resume_schedule(self, schedule_id: str) -> None:
        """End the pause of a schedule. One that is not paused stays unchanged.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        await _schedules.resume_schedule(self._life.resource, schedule_id)

    async def trigger_schedule(self, schedule_id: str) -> str:
        """Make a task of a schedule now, and return its id. The task is durable when this returns.

        It is made even while the schedule is paused or another task of it runs, and it counts as a
        task that has not ended for the nominal times that follow. ``schedule.at`` is the time of
        this call.

        Raises:
            ScheduleNotFound: there is no such schedule.
            TaskRefused: the task was refused; the message says why.
            StoreUnavailable: the task may or may not have been made.
        """
        return await _schedules.trigger_schedule(self._life.resource, schedule_id)

    async def backfill(
        self, schedule_id: str, start: datetime, end: datetime, *, limit: int = 10
    ) -> list[str]:
        """Return the task ids of all nominal times from ``start`` to ``end``, both included, and
        make those tasks that do not exist. The times may be before the schedule existed.

        At most ``limit`` of these tasks run at once: the first of them are durable when this
        returns, and coordinators make each further one when one of them has ended. Until then,
        :meth:`get_task` and :meth:`wait` raise :class:`~flowkit.errors.TaskNotFound` for its id;
        ``get_schedule(schedule_id).backfills`` is 0 when all tasks of the backfills of the schedule
        have ended. A backfill continues while the schedule is paused, and its tasks do not count
        for ``overlap``. The same call again, before the backfill has ended, changes nothing.

        Raises:
            ScheduleNotFound: there is no such schedule.
            ScheduleRefused: the span ends in the future, has more than 10,000 nominal times, or
                twenty backfills of the schedule have not ended.
            TaskRefused: some of the first tasks were refused; the message says why. The backfill
                goes on with the others. Tasks that are refused later are in the history.
        """
        return await _schedules.backfill(self._life.resource, schedule_id, start, end, limit)

    async def delete_schedule(self, schedule_id: str) -> None:
        """Delete a schedule with its history. Its tasks stay.

        Raises:
            ScheduleNotFound: there is no such schedule.
        """
        await _schedules.delete_schedule(self._life.resource, schedule_id)

    # ------------------------------------------------------------ triggers

    async def put_trigger(self, trigger: Trigger) -> TriggerView:
        """Store a trigger, in place of one with the same id. Coordinators make its tasks.

        A new trigger begins now: a task that ended before makes none. One that is put again keeps
        its pause, and its place if it keeps its source.

        Raises:
            GraphError: the graph, the condition or the params have faults; all of them are listed,
                with that of its source.
            FlowNotFound: its flow does not exist, or has no such version.
            TriggerRefused: only its source is not known or wrong, or has too many triggers: a
                hundred on the ends of one pipeline, 500 with sources of plugins.
            RecordTooLarge: the trigger is larger than a record of the store may be, which is at
                least two million bytes. Nothing is stored.
            StoreUnavailable: the trigger may or may not have been stored; call this again.
        """
        return await _triggers.put_trigger(self._life.resource, trigger)

    async def list_triggers(self, *, behind: bool = False) -> list[TriggerView]:
        """Return all triggers by id. Damaged ones are left out, and logged.

        With ``behind``, the views say how many events wait for each trigger. These numbers may be
        five seconds old, and a source that does not answer within two seconds has None.
        """
        return await _triggers.list_triggers(self._life.resource, behind=behind)

    async def pause_trigger(self, trigger_id: str) -> None:
        """Pause a trigger: make no tasks for it. Its events are kept until it is resumed.

        Tasks for events that a coordinator is handling now may still be made.

        Raises:
            TriggerNotFound: there is no such trigger.
            ValueError: ``trigger_id`` is no text. This holds for all verbs that take one.
        """
        await _triggers.pause_trigger(self._life.resource, trigger_id)

    async def resume_trigger(self, trigger_id: str) -> None:
        """End the pause of a trigger: make the tasks of the events that came meanwhile.

        Raises:
            TriggerNotFound: there is no such trigger.
            StoreUnavailable: not all of these events are due now; call this again.
        """
        await _triggers.resume_trigger(self._life.resource, trigger_id)

    async def delete_trigger(self, trigger_id: str) -> None:
        """Delete a trigger. Its tasks stay; events that it has not handled are dropped.

        Raises:
            TriggerNotFound: there is no such trigger.
        """
        await _triggers.delete_trigger(self._life.resource, trigger_id)

    # ------------------------------------------------------------ caches

    async def delete_cached(
        self, role: str | None = None, *, flow: str | None = None, key: Any = None
    ) -> int:
        """Delete the cached results of a role, or of the sub-flows that run a registered ``flow``,
        and return how many there were. With a ``key``, delete only the result under this key.

        The role ``subflow`` stands for the sub-flows that have a graph of their own. A result that
        is being computed counts, too: it is not stored.

        Raises:
            ValueError: not exactly one of role and flow is given, or the key is not JSON.
        """
        return await _caches.delete_cached(self._life.resource, role, flow, key)

    # ------------------------------------------------------------ dead letters

    async def dead_letters(
        self,
        *,
        task_id: str | None = None,
        kind: str | None = None,
        letter_ids: Collection[str] | None = None,
        limit: int = 100,
        after: str = "",
    ) -> Page[DeadLetter]:
        """List dead letters by ``letter_id``: all, or those of one task, of one kind or with these
        ids.

        The kinds are ``batch``, ``node``, ``message``, ``task``, ``trigger`` and ``webhook``. The
        letter of a node whose failure is not recorded is left out, so that a page may hold fewer
        than ``limit``.
        """
        return await _dead_letters.list_dead_letters(
            self._life.resource,
            task_id=task_id,
            kind=kind,
            letter_ids=letter_ids,
            limit=limit,
            after=after,
        )

    async def retry_dead_letters(self, letter_ids: Collection[str]) -> list[Redriven]:
        """Retry the work of dead letters, and return the outcome for each letter.

        A message is sent again as it was. The node of a letter, or of a batch, runs again for the
        batches that it has not stored, and so do all nodes below it; its task must have ended, also
        as ``finished``. A coordinator loads a quarantined task again. A change is sent to its
        webhook again. A letter is dropped once its retry is confirmed; that of a webhook once the
        receiver has accepted the change.
        """
        return await _dead_letters.retry_dead_letters(self._life.resource, letter_ids)

    async def drop_dead_letters(self, letter_ids: Collection[str]) -> int:
        """Delete these dead letters, and return how many there were."""
        return await drop_letters(self.store, letter_ids)

    async def damaged_records(self, *, limit: int = 100) -> list[DamagedRecord]:
        """Return up to ``limit`` records that cannot be decoded: those that the store finds, if it
        supports this search, tasks and keyed records. The search in tasks and in keyed records
        ends after 2.5 s each.
        """
        return await damaged_records(
            self.store, limit=limit, monotonic=self._life.resource.clock.monotonic
        )
