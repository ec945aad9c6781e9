"""Verbs for schedules: ``schedule put``, ``ls``, ``show``, ``next`` and so on."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from flowkit._json.documents import DocumentError, read_document_file
from flowkit._json.values import kind_of, short
from flowkit._schedules import Schedule, ScheduleEvent, ScheduleView, next_times
from flowkit._text.redaction import printable
from flowkit._text.validation_errors import message_of
from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._loader import load_flow
from flowkit.cli._output import console, print_facts, print_json, table, time_text
from flowkit.client import Client
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins

ScheduleId = Annotated[str, typer.Argument(metavar="ID", help="Id of the schedule.")]


def put(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Schedule document: JSON, TOML or YAML."),
    ],
    graph: Annotated[
        str | None,
        typer.Option(
            "--graph", metavar="FILE", help="Flow of the schedule, if it is not in the document."
        ),
    ] = None,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Store a schedule, in place of the one with the same id.

    The document has the fields of a `Schedule`: `id`, `graph`, `cron` and so on. A schedule that is
    put again keeps its past.
    """
    fields = _document(file)
    if graph is not None:
        if fields.keys() & {"graph", "flow"}:
            raise ConfigError(f"{file}: it has a graph or flow; leave out --graph")
        fields["graph"] = load_flow(graph, Plugins()).graph
    schedule = _schedule(file, fields)

    async def main() -> ScheduleView:
        async with connected(config, db, bus) as client:
            return await client.put_schedule(schedule)

    _print_line(run_async(main), "is stored", as_json)


def ls(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List all schedules."""

    async def main() -> list[ScheduleView]:
        async with connected(config, db, bus) as client:
            return await client.list_schedules()

    views = run_async(main)
    if as_json:
        print_json({"items": views})
        return
    rows = [
        (
            view.id,
            _times_text(view.schedule),
            "paused" if view.paused else "",
            time_text(view.next_at),
            _event_text(view.history[-1]) if view.history else "",
        )
        for view in views
    ]
    out = console()
    out.print(table(None, ("schedule", "times", "", "next", "last"), rows) if rows else "none")


def show(
    schedule_id: ScheduleId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show a schedule and the end of its history."""
    view = _get(schedule_id, config, db, bus)
    if as_json:
        print_json(view)
        return
    out = console()
    fields = {
        "schedule": view.id,
        "times": _times_text(view.schedule),
        "paused": "yes" if view.paused else "no",
        "next": time_text(view.next_at),
        "overlap": view.schedule.overlap,
        "catch up": view.schedule.catch_up,
        "open tasks": ", ".join(view.open_tasks),
        "waiting": ", ".join(map(time_text, view.waiting)),
        "backfills": str(view.backfills or ""),
    }
    print_facts(out, fields)
    if view.history:
        rows = [(time_text(one.at), _event_text(one)) for one in view.history]
        out.print(table(None, ("time", "history"), rows))


def coming(
    schedule_id: ScheduleId,
    count: Annotated[int, typer.Option("--count", min=1, max=1000, help="Number of times.")] = 10,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Print the next nominal times of a schedule, in its time zone.

    The times of a paused schedule are printed as if it were resumed now.
    """
    view = _get(schedule_id, config, db, bus)
    times = next_times(view.schedule, datetime.now().astimezone(), count)
    if as_json:
        print_json({"schedule": schedule_id, "times": times})
        return
    for at in times:
        typer.echo(at.isoformat())


def pause(
    schedule_id: ScheduleId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Pause a schedule: make no tasks for its times from now on."""
    view = _change(schedule_id, lambda client: client.pause_schedule, config, db, bus)
    _print_line(view, "is paused", as_json)


def resume(
    schedule_id: ScheduleId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """End the pause of a schedule."""
    view = _change(schedule_id, lambda client: client.resume_schedule, config, db, bus)
    _print_line(view, "is resumed", as_json)


def trigger(
    schedule_id: ScheduleId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Make a task of a schedule now, and print its id."""

    async def main() -> str:
        async with connected(config, db, bus) as client:
            return await client.trigger_schedule(schedule_id)

    _print_ids([run_async(main)], schedule_id, as_json)


def backfill(
    schedule_id: ScheduleId,
    start: Annotated[
        str, typer.Option("--start", metavar="TIME", help="First nominal time, included.")
    ],
    end: Annotated[str, typer.Option("--end", metavar="TIME", help="Last nominal time, included.")],
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="Most of these tasks at once.")
    ] = 10,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Make the tasks of past nominal times that have none, and print the ids of all of them.

    Coordinators make the tasks above --limit when others have ended.
    """
    first, last = options.time(start, "--start"), options.time(end, "--end")
    assert first is not None
    assert last is not None

    async def main() -> list[str]:
        async with connected(config, db, bus) as client:
            return await client.backfill(schedule_id, first, last, limit=limit)

    _print_ids(run_async(main), schedule_id, as_json)


def rm(
    schedule_id: ScheduleId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Delete a schedule with its history. Its tasks stay."""

    async def main() -> None:
        async with connected(config, db, bus) as client:
            await client.delete_schedule(schedule_id)

    run_async(main)
    if as_json:
        print_json({"schedule": schedule_id, "deleted": True})
    else:
        typer.echo(printable(f"schedule {schedule_id} is deleted"))


# ---------------------------------------------------------------- helpers


def _document(file: Path) -> dict[str, Any]:
    try:
        found = read_document_file(file)
    except DocumentError as error:
        raise ConfigError(f"{file}: {error}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: a schedule is an object with the fields id, graph, cron, …")
    for key in found:
        if not isinstance(key, str):
            raise ConfigError(f"{file}: the key {short(key)} is {kind_of(key)}; keys are strings")
    return found


def _schedule(file: Path, fields: dict[str, Any]) -> Schedule:
    try:
        return Schedule(**fields)
    except ValidationError as error:
        faults = [
            ": ".join([*map(str, item["loc"]), message_of(item)])
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise ConfigError(f"{file}: {'; '.join(faults)}") from None


def _get(schedule_id: str, config: Path | None, db: str | None, bus: str | None) -> ScheduleView:
    async def main() -> ScheduleView:
        async with connected(config, db, bus) as client:
            return await client.get_schedule(schedule_id)

    return run_async(main)


def _change(
    schedule_id: str,
    verb: Callable[[Client], Callable[[str], Awaitable[None]]],
    config: Path | None,
    db: str | None,
    bus: str | None,
) -> ScheduleView:
    async def main() -> ScheduleView:
        async with connected(config, db, bus) as client:
            await verb(client)(schedule_id)
            return await client.get_schedule(schedule_id)

    return run_async(main)


def _print_line(view: ScheduleView, what: str, as_json: bool) -> None:
    if as_json:
        print_json(view)
        return
    following = f"; the next time is {time_text(view.next_at)}" if view.next_at else ""
    typer.echo(printable(f"schedule {view.id} {what}{following}"))


def _print_ids(task_ids: list[str], schedule_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"schedule": schedule_id, "task_ids": task_ids})
        return
    for task_id in task_ids:
        typer.echo(printable(task_id))


def _times_text(schedule: Schedule) -> str:
    if schedule.cron is not None:
        return f"{schedule.cron} ({schedule.timezone})"
    if schedule.every_sec is not None:
        return f"every {schedule.every_sec:g} s"
    return f"at {time_text(schedule.at)}"


def _event_text(event: ScheduleEvent) -> str:
    if event.kind == "started":
        return f"task {event.task_id}"
    if event.kind == "refused":
        return f"refused: {event.error}"
    span = "" if event.count == 1 else f" until {time_text(event.until)} ({event.count} times)"
    return f"skipped{span}: {event.reason}"
