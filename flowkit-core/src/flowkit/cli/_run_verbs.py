"""Verbs that run a flow: ``run`` here and now, ``submit`` on an installation."""

import signal
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any

import anyio
import typer

from flowkit._runtime.signals import signals_received
from flowkit._runtime.worker_sessions import watch_heartbeats
from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._embedded import embedded, handlers_for
from flowkit.cli._errors import print_error, task_exit
from flowkit.cli._live_view import follow
from flowkit.cli._loader import LoadedFlow, load_flow, load_handlers
from flowkit.cli._output import console, print_end, print_json
from flowkit.client import TaskVerbs
from flowkit.errors import FlowKitError
from flowkit.plugins import Plugins
from flowkit.task import TaskView

CANCEL_PATIENCE_SEC = 5.0
MOST_NAMES = 3


def run(
    file: options.FlowFile,
    handlers: options.Handlers = None,
    params: options.Params = None,
    timeout: options.Timeout = None,
    as_json: options.Json = False,
) -> None:
    """Run a flow here, without any server.

    A coordinator and a worker work in this process, on a store and a bus in memory. Handlers come
    from --handlers, from the Python file itself (what it calls `handlers`, else its functions
    decorated with @handler), and from plugins. Progress goes to stderr.

    At the end the results are printed. A node's result of the form `{"tables": [{"title": "…",
    "columns": ["…"], "rows": [["…"]]}]}` is shown as tables. With --json the task is printed as one
    document. The exit status is 1 if the task did not finish.

    Ctrl-C cancels the task. A second Ctrl-C ends the process at once.
    """
    plugins = Plugins()
    flow = load_flow(file, plugins)
    served = handlers_for(flow, load_handlers(handlers or ()), plugins)
    values = options.read_params(params)
    view = run_async(
        lambda: _run(flow, served, plugins, params=values, timeout=timeout, quiet=as_json)
    )
    _end(view, as_json, stored=False)


async def _run(
    flow: LoadedFlow,
    served: dict[str, Any],
    plugins: Plugins,
    *,
    params: dict[str, Any] | None,
    timeout: float | None,
    quiet: bool,
) -> TaskView:
    following = anyio.CancelScope()
    with _interrupts(following.cancel):
        async with embedded(served, plugins) as coordinator:
            task_id = await coordinator.create_task(graph=flow.graph, params=params)
            with following:
                view = await _follow(coordinator, task_id, timeout, quiet)
            if following.cancelled_caught:
                view = await coordinator.get_task(task_id)
            if not view.status.terminal:
                await coordinator.cancel(
                    task_id, "interrupted" if following.cancelled_caught else "timed out"
                )
                with suppress(TimeoutError):
                    view = await coordinator.wait(task_id, timeout=CANCEL_PATIENCE_SEC)
            return view


@contextmanager
def _interrupts(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGINT or SIGTERM; the second ends the process."""

    def on_signal(number: signal.Signals) -> None:
        stop()

    def print_notice(number: signal.Signals) -> None:
        typer.echo("interrupted: cancelling the task; interrupt again to exit at once", err=True)

    with signals_received(
        on_signal, on_first_signal=print_notice, patience_sec=CANCEL_PATIENCE_SEC
    ):
        yield


def submit(
    file: options.FlowFile,
    params: options.Params = None,
    pipeline: options.Pipeline = None,
    label: options.Labels = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option("--idempotency-key", help="A second submission with it returns the first id."),
    ] = None,
    task_id: Annotated[
        str | None, typer.Option("--task-id", help="The id the task is to have.")
    ] = None,
    priority: Annotated[int, typer.Option("--priority", help="Higher goes first.")] = 0,
    deadline_sec: Annotated[
        float | None,
        typer.Option(
            "--deadline", metavar="SECONDS", help="When the task fails if it has not ended."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the task to its end.")] = False,
    timeout: options.Timeout = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Submit a flow to an installation and print the task's id.

    With --wait its progress goes to stderr, its results are printed at the end, and the exit status
    is 1 if it did not finish. A role that no living worker has is named at once.
    """
    flow = load_flow(file, Plugins())
    values = options.read_params(params)
    labels = options.pairs(label, "--label")

    async def main() -> TaskView | None:
        async with connected(config, db, bus) as client:
            created = await client.create_task(
                graph=flow.graph,
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
                group.start_soon(_warn_of_unserved_roles, client, flow)
                view = await _follow(client, created, timeout, as_json)
                group.cancel_scope.cancel()
            return view

    view = run_async(main)
    if view is not None:
        _end(view, as_json)


async def _warn_of_unserved_roles(client: TaskVerbs, flow: LoadedFlow) -> None:
    """Warn of roles that no living worker has.

    Roles that no session names are known at once. For the others, the next heartbeat of their
    workers is waited for.
    """
    try:
        await _compare_with_sessions(client, flow)
    except FlowKitError:
        return  # the store is away: following the task says so


async def _compare_with_sessions(client: TaskVerbs, flow: LoadedFlow) -> None:
    sessions = await client.store.sessions()
    unserved = flow.roles.keys() - {role for session in sessions for role in session.roles}
    _warn_of(flow, unserved)
    if concerned := [
        session for session in sessions if not flow.roles.keys().isdisjoint(session.roles)
    ]:
        live, _ = await watch_heartbeats(client.store, concerned, client.clock)
        _warn_of(
            flow,
            flow.roles.keys() - unserved - {role for session in live for role in session.roles},
        )


def _warn_of(flow: LoadedFlow, roles: Collection[str]) -> None:
    for role in sorted(roles):
        nodes = ", ".join(map(repr, flow.roles[role][:MOST_NAMES]))
        typer.echo(
            printable(
                f"warning: no living worker has the role {role!r}, so {nodes} will wait until one"
                " starts"
            ),
            err=True,
        )


async def _follow(client: TaskVerbs, task_id: str, timeout: float | None, quiet: bool) -> TaskView:
    """Follow a task to its end, or for so long."""
    with anyio.move_on_after(timeout):
        return await follow(client, task_id, console(stderr=True), quiet=quiet)
    view = await client.get_task(task_id)
    busy = [node.node_id for node in view.nodes.values() if not node.status.terminal]
    print_error(
        f"task {task_id} has not ended after {timeout:g} s; still open:"
        f" {', '.join(busy[:5])}{', …' if len(busy) > 5 else ''}"
    )
    return view


def _end(view: TaskView, as_json: bool, *, stored: bool = True) -> None:
    if as_json:
        print_json(view)
    else:
        print_end(console(), view, stored=stored)
    task_exit(view.status)
