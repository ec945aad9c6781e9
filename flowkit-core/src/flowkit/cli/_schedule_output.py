"""Output of schedules: facts, tables and lines. Their times are in their own time zones."""

from datetime import datetime

import typer

from flowkit._schedules import Schedule, ScheduleEvent, ScheduleView, zone_of
from flowkit._text.redaction import printable
from flowkit.cli._output import compact, console, labels_text, print_facts, print_json, table


def zoned_text(at: datetime | None, schedule: Schedule) -> str:
    """Format a time in the time zone of a schedule: ``2026-01-01T02:30:00+01:00``."""
    return "" if at is None else at.astimezone(zone_of(schedule.timezone)).isoformat()


def print_schedules(views: list[ScheduleView]) -> None:
    """Print a table of schedules."""
    rows = [
        (
            view.id,
            _times_text(view.schedule),
            _work_text(view.schedule),
            "paused" if view.paused else "active" if view.next_at else "ended",
            zoned_text(view.next_at, view.schedule),
            _event_text(view.history[-1], view.schedule) if view.history else "",
        )
        for view in views
    ]
    columns = ("schedule", "times", "runs", "state", "next", "last")
    console().print(table(None, columns, rows) if rows else "no schedules")


def print_schedule(view: ScheduleView) -> None:
    """Print the fields of a schedule, its state and its history."""
    out, schedule = console(), view.schedule
    window, deadline = schedule.catch_up_window_sec, schedule.deadline_sec
    facts = {
        "schedule": view.id,
        "times": _times_text(schedule),
        "from": zoned_text(schedule.start_at, schedule),
        "until": zoned_text(schedule.end_at, schedule),
        "jitter": f"up to {schedule.jitter_sec:g} s" if schedule.jitter_sec else "",
        "paused": "yes" if view.paused else "no",
        "next": zoned_text(view.next_at, schedule),
        "runs": _work_text(schedule),
        "params": compact(schedule.params or None, 1_000),
        "pipeline": schedule.pipeline,
        "labels": labels_text(schedule.labels),
        "priority": str(schedule.priority or ""),
        "deadline": "" if deadline is None else f"{deadline:g} s",
        "overlap": schedule.overlap,
        "catch up": schedule.catch_up + ("" if window is None else f", of the last {window:g} s"),
        "open tasks": ", ".join(view.open_tasks),
        "waiting": ", ".join(zoned_text(at, schedule) for at in view.waiting),
        "backfills": f"{view.backfills} not ended" if view.backfills else "",
    }
    print_facts(out, facts)
    if view.history:
        rows = [(zoned_text(one.at, schedule), _event_text(one, schedule)) for one in view.history]
        out.print(table(None, ("time", "history"), rows))


def print_line(view: ScheduleView, what: str, as_json: bool) -> None:
    """Print what was done with a schedule, and its next time; with ``as_json``, the schedule."""
    if as_json:
        print_json(view)
        return
    coming = zoned_text(view.next_at, view.schedule)
    following = f"; the next time is {coming}" if coming else ""
    typer.echo(printable(f"schedule {view.id} {what}{following}"))


def _times_text(schedule: Schedule) -> str:
    if schedule.cron is not None:
        return f"{schedule.cron} ({schedule.timezone})"
    if schedule.every_sec is not None:
        return f"every {schedule.every_sec:g} s"
    return f"at {zoned_text(schedule.at, schedule)}"


def _work_text(schedule: Schedule) -> str:
    if schedule.flow is None:
        return "a graph of its own"
    version = "latest version" if schedule.version is None else f"version {schedule.version}"
    return f"flow {schedule.flow}, {version}"


def _event_text(event: ScheduleEvent, schedule: Schedule) -> str:
    if event.kind == "started":
        return f"task {event.task_id}"
    if event.kind == "refused":
        return f"refused: {event.error}"
    if event.count == 1:
        return f"skipped: {event.reason}"
    until = zoned_text(event.until, schedule)
    return f"skipped until {until} ({event.count} times): {event.reason}"
