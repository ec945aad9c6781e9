"""Verbs that run a flow: ``run`` in this process, ``submit`` on an installation."""

import secrets
import shlex
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import anyio
import typer
from pydantic_core import to_json

from flowkit._embedded import HEARTBEAT_SEC, WORKER_ID, embedded
from flowkit._json.limits import MAX_ID_CHARS
from flowkit._records.heartbeats import process_of, unserved, watch_heartbeats
from flowkit._records.worker_sessions import WorkerSession, sessions_of
from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._embedded import handlers_for, interrupts, storage
from flowkit.cli._errors import print_error, task_exit
from flowkit.cli._live_view import Notice, follow
from flowkit.cli._loader import LoadedFlow, load_flow, load_handlers
from flowkit.cli._log_output import log_run
from flowkit.cli._output import console, print_end, print_json
from flowkit.cli._timeline import print_timeline
from flowkit.client import TaskVerbs
from flowkit.coordinator import Coordinator
from flowkit.errors import FlowKitError, TaskNotFound, TaskRefused, WorkerIdTaken
from flowkit.graph import Graph
from flowkit.plugins import Plugins
from flowkit.task import TaskEvent, TaskStatus, TaskView

CANCEL_PATIENCE_SEC = 5.0
MOST_NAMES = 3
RETRIED = (TaskStatus.FAILED, TaskStatus.CANCELLED)


def run(
    file: options.FlowFile,
    handlers: options.Handlers = None,
    params: options.Params = None,
    timeout: options.Timeout = None,
    db: Annotated[
        str | None,
        typer.Option(
            "--db",
            metavar="ADDRESS",
            help="Keep the tasks in a file: sqlite:///path. Default: a temporary file.",
        ),
    ] = None,
    task_id: Annotated[
        str | None,
        typer.Option(
            "--task-id",
            metavar="ID",
            help="Id of the task. If the file of --db has it, it is continued.",
        ),
    ] = None,
    timeline: options.Timeline = False,
    as_json: options.Json = False,
) -> None:
    """Run a flow in this process, without any server.

    A coordinator and a worker run in this process. Handlers come from --handlers, from the Python
    file itself (its variable `handlers`, or else its functions decorated with @handler), and from
    plugins. Progress is printed to stderr.


    Store and bus are an SQLite file, which is removed at the end. With --db, they are kept: after a
    crash, the same command with --db and --task-id continues the task. A task that failed or was
    cancelled is continued after `flowkit retry`. While a command runs a task, a second one with its
    --task-id is an error.


    All tasks in a file share its roles: each node runs in any process that has a handler for its
    role. So this command is an error while another process serves a role of the flow in the file.
    Use another file, or submit the flow to that process with `flowkit submit`.


    At the end, the results are printed. A node's result of the form `{"tables": [{"title": "…",
    "columns": ["…"], "rows": [["…"]]}]}` is printed as tables. With --json, the task is printed as
    one JSON document. The exit status is 1 if the task did not finish.


    Ctrl-C cancels the task, and so does the end of the terminal. A second Ctrl-C ends the process
    at once.
    """
    if task_id is not None and db is None:
        raise typer.BadParameter("needs --db", param_hint="--task-id")
    place = "" if db is None else f" --db {shlex.quote(db)}"
    options.check_timeline(timeline, as_json)
    plugins = Plugins()
    flow = load_flow(file, plugins)
    served = handlers_for(flow, load_handlers(handlers or ()), plugins)
    values = options.read_params(params)
    events: list[TaskEvent] = []
    with storage(db, plugins) as settings:
        running = _Run(flow, served, plugins, settings, task_id, place, quiet=as_json)
        view = run_async(lambda: running.to_the_end(values, timeout, events.append))
    if timeline:
        print_timeline(console(), events)
    if place and view.status in RETRIED and not as_json:
        typer.echo(_retry_hint(view.id, place, is_named=task_id is not None), err=True)
    _end(view, as_json, options=place or None)


def _retry_hint(task_id: str, place: str, *, is_named: bool) -> str:
    again = "this command" if is_named else f"this command with --task-id {shlex.quote(task_id)}"
    return (
        f"to run the rest of the task: flowkit retry {shlex.quote(task_id)}{place}, and then"
        f" {again} again"
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """Run of a flow in this process."""

    flow: LoadedFlow
    served: dict[str, Any]
    plugins: Plugins
    settings: dict[str, Any]
    task_id: str | None
    place: str
    """Options of other verbs for the same file. It is empty if the file is temporary."""
    quiet: bool

    @property
    def worker_id(self) -> str:
        """Name of the worker.

        A command that continues a task uses the same name, so that it takes over at once from the
        worker of the killed command.
        """
        if self.task_id is None:
            return f"{WORKER_ID}-{secrets.token_hex(3)}" if self.place else WORKER_ID
        return f"{WORKER_ID}-{self.task_id}"[:MAX_ID_CHARS]

    async def to_the_end(
        self, params: dict[str, Any] | None, timeout: float | None, notice: Notice
    ) -> TaskView:
        """Submit the flow and follow its task. A task that is interrupted is cancelled.

        Raises:
            TaskRefused: another process runs the task.
        """
        try:
            return await self._to_the_end(params, timeout, notice)
        except WorkerIdTaken as error:
            task = shlex.quote(self.task_id or "")
            raise TaskRefused(
                f"task {self.task_id!r} is run by {error.process}; follow it with flowkit watch"
                f" {task}{self.place}, cancel it with flowkit cancel {task}{self.place}, or use"
                " another --task-id for another task"
            ) from None

    async def _to_the_end(
        self, params: dict[str, Any] | None, timeout: float | None, notice: Notice
    ) -> TaskView:
        following = anyio.CancelScope()
        with interrupts(
            following.cancel, notice="cancelling the task", patience_sec=CANCEL_PATIENCE_SEC
        ):
            log_run()
            async with embedded(
                self.served,
                self.plugins,
                self.settings,
                worker_id=self.worker_id,
                on_takeover=self._say_takeover,
            ) as coordinator:
                earlier = await self._earlier_task(coordinator)
                task_id = await coordinator.create_task(
                    graph=self.flow.graph, params=params, task_id=self.task_id
                )
                if earlier is not None and earlier.status.terminal:
                    self._say(f"task {earlier.id} has already ended; nothing is run")
                    return earlier
                with following:
                    view = await _follow(coordinator, task_id, timeout, self.quiet, notice)
                if following.cancelled_caught:
                    view = await coordinator.get_task(task_id)
                if not view.status.terminal:
                    await coordinator.cancel(
                        task_id, "interrupted" if following.cancelled_caught else "timed out"
                    )
                    with suppress(TimeoutError):
                        view = await coordinator.wait(task_id, timeout=CANCEL_PATIENCE_SEC)
                return view

    async def _earlier_task(self, coordinator: Coordinator) -> TaskView | None:
        """Return the task that an earlier command submitted."""
        if self.task_id is not None:
            with suppress(TaskNotFound):
                return await coordinator.get_task(self.task_id)
        return None

    def _say_takeover(self, session: WorkerSession) -> None:
        self._say(
            f"{process_of(session)} ran task {self.task_id}; waiting up to"
            f" {2 * HEARTBEAT_SEC + 1:g} s for a heartbeat, which would show that it still runs it"
        )

    def _say(self, sentence: str) -> None:
        if not self.quiet:
            typer.echo(printable(sentence), err=True)


def submit(
    file: options.OptionalFlowFile = None,
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow", metavar="NAME", help="Submit the registered flow of this name, not a FILE."
        ),
    ] = None,
    version: options.Version = None,
    params: options.Params = None,
    pipeline: options.Pipeline = None,
    label: options.Labels = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key", help="A second submission with this key returns the same task id."
        ),
    ] = None,
    task_id: Annotated[
        str | None, typer.Option("--task-id", help="Id of the new task; generated by default.")
    ] = None,
    priority: Annotated[
        int, typer.Option("--priority", help="Priority; tasks with a higher one run first.")
    ] = 0,
    deadline_sec: Annotated[
        float | None,
        typer.Option(
            "--deadline", metavar="SECONDS", help="Time after which an unfinished task fails."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the task ends.")] = False,
    timeout: options.Timeout = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Submit a flow to an installation and print the id of its task.

    The flow is in a FILE, or it is registered: --flow names it, and --version one of its versions.
    Without --version, the latest one runs.

    With --wait, progress is printed to stderr and the results are printed at the end. The exit
    status is then 1 if the task did not finish. A role that no live worker serves is reported at
    once.
    """
    if (file is None) == (flow is None):
        raise typer.BadParameter("give either FILE or --flow", param_hint="FILE")
    if version is not None and flow is None:
        raise typer.BadParameter("needs --flow", param_hint="--version")
    loaded = None if file is None else load_flow(file, Plugins())
    values = options.read_params(params)
    labels = options.labels(label)

    async def main() -> TaskView | None:
        async with connected(config, db, bus) as client:
            created = await client.create_task(
                graph=None if loaded is None else loaded.graph,
                flow=flow,
                version=version,
                params=values,
                pipeline=pipeline,
                labels=labels,
                idempotency_key=idempotency_key,
                task_id=task_id,
                priority=priority,
                deadline_sec=deadline_sec,
            )
            if not as_json:
                typer.echo(created)
            elif not wait:
                print_json({"task_id": created})
            if not wait:
                return None
            async with anyio.create_task_group() as group:
                group.start_soon(
                    warn_of_unserved_roles, client, loaded or await _registered(client, created)
                )
                view = await _follow(client, created, timeout, as_json)
                group.cancel_scope.cancel()
            return view

    view = run_async(main)
    if view is not None:
        _end(view, as_json)


async def _registered(client: TaskVerbs, task_id: str) -> LoadedFlow:
    """Return the registered flow that a task runs."""
    view = await client.get_task(task_id)
    found = await client.get_flow(view.flow or "", view.version)
    return LoadedFlow(Graph.restore(to_json(found.graph)))


async def warn_of_unserved_roles(client: TaskVerbs, flow: LoadedFlow) -> None:
    """Warn of roles that no worker serves, or only workers without heartbeats.

    Roles without any session are reported immediately. For the others, the next heartbeat of their
    workers is awaited.
    """
    try:
        await _compare_with_sessions(client, flow)
    except FlowKitError:
        return  # the store is unavailable, which following the task reports


async def _compare_with_sessions(client: TaskVerbs, flow: LoadedFlow) -> None:
    sessions = await sessions_of(client.store)
    for role in sorted(flow.roles.keys() - _roles_of(sessions)):
        _warn(flow, role, unserved(role, ()), "one")
    if concerned := [
        session for session in sessions if not flow.roles.keys().isdisjoint(session.roles)
    ]:
        heartbeats = await watch_heartbeats(client.store, concerned, client.clock)
        silent = heartbeats.silent
        for role in sorted(flow.roles.keys() & _roles_of(silent) - _roles_of(heartbeats.live)):
            _warn(flow, role, unserved(role, silent), "it or another worker")


def _roles_of(sessions: Collection[WorkerSession]) -> set[str]:
    return {role for session in sessions for role in session.roles}


def _warn(flow: LoadedFlow, role: str, why: str, worker: str) -> None:
    nodes = ", ".join(map(repr, flow.roles[role][:MOST_NAMES]))
    typer.echo(printable(f"warning: {why}; {nodes} will wait for {worker}"), err=True)


async def _follow(
    client: TaskVerbs,
    task_id: str,
    timeout: float | None,
    quiet: bool,
    notice: Notice | None = None,
) -> TaskView:
    """Follow a task to its end or for ``timeout`` seconds."""
    with anyio.move_on_after(timeout):
        return await follow(client, task_id, console(stderr=True), notice=notice, quiet=quiet)
    view = await client.get_task(task_id)
    busy = [node.node_id for node in view.nodes.values() if not node.status.terminal]
    names = f"{', '.join(busy[:5])}{', …' if len(busy) > 5 else ''}"
    open_work = f"unfinished nodes: {names}" if busy else "its output is being evaluated"
    print_error(f"task {task_id} has not ended after {timeout:g} s; {open_work}")
    return view


def _end(view: TaskView, as_json: bool, *, options: str | None = "") -> None:
    if as_json:
        print_json(view)
    else:
        print_end(console(), view, options=options)
    task_exit(view.status)
