"""Verbs for schedules: ``schedule put``, ``ls``, ``show``, ``next`` and so on."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from flowkit._schedules import Schedule, ScheduleView, next_times, zone_of
from flowkit._text.redaction import printable
from flowkit.cli import _options as options
from flowkit.cli._connection import configuration, connected, run_async
from flowkit.cli._definition_documents import read_definition
from flowkit.cli._output import print_json
from flowkit.cli._schedule_output import print_line, print_schedule, print_schedules
from flowkit.client import Client

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
    schedule = read_definition(file, graph, Schedule, configuration(config, db, bus).limits)

    async def main() -> ScheduleView:
        async with connected(config, db, bus) as client:
            return await client.put_schedule(schedule)

    view = run_async(main)
    print_line(view, "is stored, and paused" if view.paused else "is stored", as_json)


def ls(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List all schedules. The times are in the time zone of each."""

    async def main() -> list[ScheduleView]:
        async with connected(config, db, bus) as client:
            return await client.list_schedules()

    views = run_async(main)
    if as_json:
        print_json({"items": views})
    else:
        print_schedules(views)


def show(
    schedule_id: ScheduleId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Show a schedule and the end of its history. The times are in its time zone."""
    view = _get(schedule_id, config, db, bus)
    if as_json:
        print_json(view)
    else:
        print_schedule(view)


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
    if not times:
        typer.echo(printable(f"schedule {schedule_id} has ended: no time is left"), err=True)
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
    print_line(view, "is paused", as_json)


def resume(
    schedule_id: ScheduleId,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """End the pause of a schedule."""
    view = _change(schedule_id, lambda client: client.resume_schedule, config, db, bus)
    print_line(view, "is resumed", as_json)


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

    A time without a zone is in the time zone of the schedule, and a day means its midnight.
    Coordinators make the tasks above --limit when others have ended.
    """

    async def main() -> list[str]:
        async with connected(config, db, bus) as client:
            zone = zone_of((await client.get_schedule(schedule_id)).schedule.timezone)
            first = options.required_time(start, "--start", zone)
            last = options.required_time(end, "--end", zone)
            return await client.backfill(schedule_id, first, last, limit=limit)

    made = run_async(main)
    if not made:
        typer.echo("there is no nominal time in this span", err=True)
    _print_ids(made, schedule_id, as_json)


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


def _print_ids(task_ids: list[str], schedule_id: str, as_json: bool) -> None:
    if as_json:
        print_json({"schedule": schedule_id, "task_ids": task_ids})
        return
    for task_id in task_ids:
        typer.echo(printable(task_id))
