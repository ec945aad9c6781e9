"""Verb ``dev``: a coordinator, and a worker that follows changes of the user's files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from flowkit.cli import _options as options
from flowkit.cli._connection import run_async
from flowkit.cli._dev_workers import STOP_GRACE_SEC, DevWorkers
from flowkit.cli._embedded import interrupts, storage
from flowkit.cli._loader import DOCUMENTS
from flowkit.cli._log_output import Level, log_service
from flowkit.cli._output import console, duration, seconds_text, status_text
from flowkit.config import CoordinatorConfig
from flowkit.coordinator import Coordinator
from flowkit.errors import ConfigError
from flowkit.hookspecs import hookimpl
from flowkit.plugins import Plugins
from flowkit.task import TaskStatus, TaskView

FOLDER = Path(".flowkit")
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
) -> None:
    """Run a coordinator and a worker for development, without a server.

    Handlers come from FILE (its variable `handlers`, or else its functions decorated with
    @handler) and from --handlers, or else from plugins. The worker is a process of its own, and is
    restarted if it dies. If a Python file in the current directory or the directory of FILE
    changes, a new worker loads the handlers, and the old one ends its runs. If the new one cannot
    load them, the error is printed and the old worker continues.


    Submit tasks in another terminal, with the --db that is printed. Tasks are kept in the file:
    those that have not ended when this command ends, or is killed, continue when it runs again.


    Ctrl-C stops the worker, which gives its runs 10 seconds to end. A second Ctrl-C ends
    everything at once.
    """
    if file is not None and file.lower().endswith(DOCUMENTS):
        raise typer.BadParameter(
            f"{file} is a graph and has no handlers; give a Python file or a module, and submit the"
            f" graph with flowkit submit {file} --db {db}",
            param_hint="FILE",
        )
    if db == ADDRESS:
        _make_folder()
    plugins = Plugins()
    with storage(db, plugins) as settings:
        log_service(Level.WARNING, as_json=False)
        sources = [*([file] if file else ()), *(handlers or ())]
        run_async(lambda: _serve(sources, plugins, settings))


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


async def _serve(sources: list[str], plugins: Plugins, settings: Mapping[str, Any]) -> None:
    out = console()

    def say(sentence: str) -> None:
        out.print(Text(sentence), soft_wrap=True)

    cfg = CoordinatorConfig(**settings)
    roles = list(plugins.handlers)
    workers = DevWorkers(sources, () if sources else roles, settings, say)
    with interrupts(workers.stop, notice="stopping", patience_sec=2 * STOP_GRACE_SEC):
        async with Coordinator(cfg=cfg, plugins=[_TaskLines(out)]) as coordinator:
            say(f"store     {cfg.db}")
            say(f"submit    flowkit submit FILE --db {cfg.db}")
            if sources or roles:
                await workers.run(coordinator.store)
            else:
                say("no worker, because there are no handlers: give a FILE or --handlers")
                await workers.stopped.wait()


class _TaskLines:
    """Plugin that prints a line when a task starts, and one when it ends."""

    def __init__(self, out: Console) -> None:
        self._out = out

    @hookimpl
    def flowkit_task_changed(self, before: TaskView | None, after: TaskView) -> None:
        if after.status == TaskStatus.RUNNING and (before is None or before.started_at is None):
            self._print(after, Text(f" (pipeline {after.pipeline})" if after.pipeline else ""))
        elif after.status.terminal:
            took = seconds_text(duration(after))
            self._print(after, Text(f" in {took}" if took else ""))
            if after.error:
                self._out.print(Text(f"          {after.error}", style="red"), soft_wrap=True)

    def _print(self, view: TaskView, beside: Text) -> None:
        line = Text("task      ").append(view.id).append(" ").append_text(status_text(view.status))
        self._out.print(line.append_text(beside), soft_wrap=True)
