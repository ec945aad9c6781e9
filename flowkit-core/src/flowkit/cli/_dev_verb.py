"""Verb ``dev``: a coordinator, and a worker that follows changes of the user's files."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import anyio
import typer

from flowkit.cli import _options as options
from flowkit.cli._connection import run_async
from flowkit.cli._dev_changes import ClientChanges
from flowkit.cli._dev_lines import REPORTED, Lines
from flowkit.cli._dev_other_workers import OtherWorkers
from flowkit.cli._dev_process import STOP_GRACE_SEC
from flowkit.cli._dev_waiting import WaitingTasks
from flowkit.cli._dev_workers import DevWorkers
from flowkit.cli._embedded import interrupts, storage
from flowkit.cli._loader import DOCUMENTS
from flowkit.cli._log_output import log_dev
from flowkit.cli._output import console
from flowkit.config import CoordinatorConfig
from flowkit.coordinator import Coordinator
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit.task import TaskStatus

FOLDER = Path(".flowkit")
MOST_COUNTED = 100
ADDRESS = f"sqlite:///{FOLDER.as_posix()}/flowkit.db"


def dev(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="Python file (.py) or module with handlers, and perhaps flows."
        ),
    ] = None,
    handlers: options.Handlers = None,
    db: Annotated[
        str, typer.Option("--db", metavar="ADDRESS", help="File of the store and the bus.")
    ] = ADDRESS,
    metrics_port: options.MetricsPort = None,
) -> None:
    """Run a coordinator and a worker for development, without a server.

    If flowkit-web is installed, it also serves the web page, and prints its address.


    Handlers come from FILE (its variable `handlers`, or else its functions decorated with
    @handler) and from --handlers, or else from plugins. The worker is a process of its own. If a
    Python file in the current directory or the directory of FILE changes, a new worker loads the
    handlers. When it is ready, it takes over, and the old one has 10 seconds to end its runs. If
    it cannot load them, the error is printed and the old worker continues.


    A worker that dies is replaced at once, and its nodes run again. A worker whose event loop a
    handler blocks is reported after 5 seconds, and replaced after 15. A worker of another process
    that serves the same roles, such as that of a second `flowkit dev`, is reported.


    Submit tasks in another terminal, with the --db that is printed. Tasks are kept in the file:
    those that have not ended when this command ends, or is killed, continue when it runs again.


    Ctrl-C stops the worker, which gives its runs 10 seconds to end. A second Ctrl-C ends
    everything at once.
    """
    if file is not None and file.lower().endswith(DOCUMENTS):
        raise typer.BadParameter(
            f"{file} is a graph and has no handlers; give a Python file or a module, and submit the"
            f" graph with flowkit submit {quote(file)} --db {quote(db)}",
            param_hint="FILE",
        )
    if db == ADDRESS:
        _make_folder()
    plugins = Plugins()
    with storage(db, plugins) as settings:
        log_dev(REPORTED)
        sources = [*([file] if file else ()), *(handlers or ())]
        run_async(lambda: _serve(sources, plugins, settings, metrics_port))


def _make_folder() -> None:
    """Create the folder of the file, which Git ignores."""
    ignored = FOLDER / ".gitignore"
    try:
        FOLDER.mkdir(exist_ok=True)
        if not ignored.exists():
            ignored.write_text("*\n", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the folder {FOLDER} cannot be created here ({error.strerror}); use --db"
            " sqlite:///path for a file elsewhere"
        ) from None


async def _serve(
    sources: list[str], plugins: Plugins, settings: Mapping[str, Any], metrics_port: int | None
) -> None:
    roles = [] if sources else list(plugins.handlers)
    lines = Lines(console(), lambda *attempt: workers.place_of_failure(*attempt))
    workers = DevWorkers(sources, roles, settings, lines.say)
    # A worker that does not respond is reported and replaced before it is silent for this long.
    silent_sec = CoordinatorConfig().heartbeat_hard_sec
    cfg = CoordinatorConfig(heartbeat_soft_sec=silent_sec, metrics_port=metrics_port, **settings)
    with interrupts(workers.stop, notice="stopping", patience_sec=2 * STOP_GRACE_SEC):
        async with (
            Coordinator(cfg=cfg, plugins=[lines]) as coordinator,
            plugins.open_page(cfg) or nullcontext() as page,
        ):
            if page is not None:
                lines.say("page", page)
            lines.say("store", str(cfg.db))
            lines.say("submit", f"flowkit submit FILE --db {quote(str(cfg.db))}")
            if unfinished := await _unfinished(coordinator):
                lines.say("tasks", f"unfinished: {unfinished}; they continue now")
            async with anyio.create_task_group() as group:
                group.start_soon(ClientChanges(coordinator, lines.print_change).watch)
                if sources or roles:
                    waiting = WaitingTasks(coordinator, lambda: workers.roles, lines.say)
                    group.start_soon(waiting.watch)
                    others = OtherWorkers(
                        coordinator.store, lambda: workers.roles, workers.is_own, lines.say
                    )
                    group.start_soon(others.watch)
                    await workers.run(coordinator)
                else:
                    lines.say(
                        "worker", "none, because there are no handlers: give a FILE or --handlers"
                    )
                    await workers.stopped.wait()
                group.cancel_scope.cancel()
            if unfinished := await _unfinished(coordinator):
                lines.say("tasks", f"unfinished: {unfinished}; they continue when this runs again")


async def _unfinished(coordinator: Coordinator) -> str:
    """Return how many tasks have not ended, or an empty text."""
    statuses = [status for status in TaskStatus if not status.terminal]
    page = await coordinator.list_tasks(status=statuses, limit=MOST_COUNTED)
    more = " or more" if page.next else ""
    return f"{len(page.items)}{more}" if page.items else ""
