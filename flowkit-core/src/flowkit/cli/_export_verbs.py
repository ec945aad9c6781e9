"""Verbs that move data between stores: ``export`` and ``import``."""

import os
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer
from anyio import to_thread

from flowkit import __version__
from flowkit._exports.export import Exported, Exporter, Selection
from flowkit._exports.export_reader import ExportReader
from flowkit._exports.import_report import Imported
from flowkit._exports.importer import Importer
from flowkit._exports.lines import HeaderLine
from flowkit.cli import _options as options
from flowkit.cli._connection import (
    configuration,
    require_store,
    run_async,
    warn_of_memory,
    without_creation,
)
from flowkit.cli._errors import TASK_FAILED, print_error
from flowkit.cli._log_output import log_verb
from flowkit.cli._output import print_json
from flowkit.config import CoordinatorConfig
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins
from flowkit.protocols import Store


def export(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to this file, not to stdout. It replaces an existing one once complete.",
        ),
    ] = None,
    task_id: Annotated[
        list[str] | None,
        typer.Option("--task-id", metavar="ID", help="Only this task; repeatable."),
    ] = None,
    status: options.Statuses = None,
    pipeline: options.Pipeline = None,
    label: options.Labels = None,
    created_after: options.CreatedAfter = None,
    created_before: options.CreatedBefore = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
) -> None:
    """Export ended tasks, registered flows, schedules and triggers as lines of JSON.

    Tasks are exported with their artifacts and dead letters. Those that have not ended are left out
    and counted on stderr. With a selection, only the tasks that match are exported; without one,
    also all other dead letters, the registered flows, the schedules, and the triggers with the ends
    of tasks that they have not handled. Data that a plugin has
    encoded stays encoded. The exit status is 1 if something could not be read, or if a task of
    --task-id has not ended.
    """
    if task_id and (status or pipeline or label or created_after or created_before):
        raise typer.BadParameter("cannot be used with another selection", param_hint="--task-id")
    selection = Selection(
        task_ids=tuple(task_id or ()),
        statuses=tuple(status or ()),
        pipeline=pipeline,
        labels=options.labels(label),
        created_after=_seconds(created_after, "--created-after"),
        created_before=_seconds(created_before, "--created-before"),
    )

    async def main() -> Exported:
        cfg = configuration(config, db, bus)
        async with _opened(without_creation(cfg)) as (store, plugins):
            with _written(output) as out:
                header = HeaderLine(flowkit=__version__, encoded=plugins.encodes_payloads)
                exporter = Exporter(store, out, header=header, report=print_error)
                return await exporter.run(selection)

    has_file = output is not None and output.is_file()
    done = run_async(main)
    if done.running:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(done.running.items()))
        count = _counted(done.running.total(), "task")
        verb = "has" if done.running.total() == 1 else "have"
        typer.echo(f"left out {count} that {verb} not ended: {counts}", err=True)
    replaced = f"; replaced {output}" if has_file else ""
    typer.echo(f"exported {_contents(done)}{replaced}", err=True)
    if done.failed or (task_id and done.running):
        raise typer.Exit(TASK_FAILED)


def import_(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="Export to read; default: stdin.")
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Import the tasks, flows, schedules and triggers of an export.

    Nothing that is in the store is changed. What is there already is skipped. If it differs, it is
    named on stderr, and the exit status is 1. Flows keep the numbers of their versions. Schedules
    continue after the times that they have handled, and triggers with the ends of tasks that they
    have not handled. After an interruption, the same import can be run again, and completes what is
    missing.
    """

    async def main() -> Imported:
        cfg = configuration(config, db, bus)
        with _read(file) as source:
            reader = ExportReader(source)
            header = await to_thread.run_sync(reader.header, abandon_on_cancel=True)
            async with _opened(cfg) as (store, plugins):
                return await Importer(store, plugins, header, report=print_error).run(reader)

    done = run_async(main)
    if as_json:
        print_json(asdict(done))
    else:
        typer.echo(f"imported {_contents(done)}; skipped {done.skipped:,} already stored")
    if done.refused:
        raise typer.Exit(TASK_FAILED)


def _contents(done: Exported | Imported) -> str:
    """Return the numbers of what was exported or imported."""
    return (
        f"{_counted(done.tasks, 'task')}, {_counted(done.artifacts, 'artifact')},"
        f" {_counted(done.dead_letters, 'dead letter')},"
        f" {_counted(done.flow_versions, 'flow version')}, {_counted(done.schedules, 'schedule')},"
        f" {_counted(done.triggers, 'trigger')} and"
        f" {_counted(done.trigger_events, 'waiting event')}"
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _seconds(text: str | None, option: str) -> float | None:
    """Return a time in seconds since 1970."""
    time = options.time(text, option)
    return None if time is None else time.timestamp()


@asynccontextmanager
async def _opened(cfg: CoordinatorConfig) -> AsyncIterator[tuple[Store, Plugins]]:
    """Open the store of this configuration, without the codec of the plugins."""
    require_store(cfg)
    warn_of_memory(cfg)
    log_verb()
    plugins = Plugins()
    async with plugins.open_store(cfg.db, cfg) as store:
        yield store, plugins


@contextmanager
def _written(output: Path | None) -> Iterator[BinaryIO]:
    """Yield stdout, or a file that replaces ``output`` once it is complete.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        if output is None:
            yield sys.stdout.buffer
        elif output.exists() and not output.is_file():  # a pipe or a device
            with output.open("wb") as file:
                yield file
        else:
            with _replacing(output) as file:
                yield file
    except BrokenPipeError:
        # The interpreter would fail to flush stdout when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise ConfigError("stdout was closed before the export was complete") from None
    except OSError as error:
        raise ConfigError(f"{output or 'stdout'} cannot be written: {error.strerror}") from None


@contextmanager
def _replacing(output: Path) -> Iterator[BinaryIO]:
    """Yield a new file for the user alone, which replaces ``output`` once it is complete."""
    with tempfile.NamedTemporaryFile(
        dir=output.parent, prefix=f"{output.name}.", delete=False
    ) as file:
        part = Path(file.name)
        try:
            yield cast("BinaryIO", file)
            file.flush()
            os.fsync(file.fileno())
            part.replace(output)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _read(file: Path | None) -> Iterator[BinaryIO]:
    """Yield a file, or stdin.

    Raises:
        ConfigError: it cannot be read.
    """
    if file is None:
        if sys.stdin.isatty():
            raise ConfigError("name a file, or pipe an export into the command")
        yield sys.stdin.buffer
        return
    try:
        source = file.open("rb")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from None
    with source:
        yield source
