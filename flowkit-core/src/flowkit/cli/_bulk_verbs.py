"""Verbs that change all tasks that match: ``cancel-tasks``, ``retry-tasks``."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._errors import TASK_FAILED, print_error
from flowkit.cli._output import print_json
from flowkit.client import Client
from flowkit.client._bulk import RETRIED
from flowkit.client._task_filters import OPEN
from flowkit.task import BulkProgress

MOST_COUNTED = 10_000
"""Number at which the tasks are not counted further before they are changed."""
Bulk = Callable[[Client, Callable[[BulkProgress], None]], Awaitable[int]]


@options.filtered
def cancel_tasks(
    filters: dict[str, Any],
    reason: Annotated[
        str, typer.Option("--reason", help="Reason for the cancellations; handlers can read it.")
    ] = "",
    force: Annotated[
        bool, typer.Option("--force", help="End their undos and the nodes of finally, too.")
    ] = False,
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Cancel all tasks that match all filters and have not ended.

    At least one filter is needed; `flowkit ls` with the same ones shows the tasks. After an
    interruption, the same command cancels the rest. The exit status is 1 if a task could not be
    cancelled.
    """
    _run(
        lambda client, report: client.cancel_tasks(
            reason=reason, force=force, on_progress=report, **filters
        ),
        "cancelled",
        _of(OPEN, filters),
        (config, db, bus),
        as_json,
    )


@options.filtered
def retry_tasks(
    filters: dict[str, Any],
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """Retry all failed and cancelled tasks that match all filters.

    At least one filter is needed; `flowkit ls` with the same ones shows the tasks. After an
    interruption, the same command retries the rest. The exit status is 1 if a task could not be
    retried.
    """
    _run(
        lambda client, report: client.retry_tasks(on_progress=report, **filters),
        "retried",
        _of(RETRIED, filters),
        (config, db, bus),
        as_json,
    )


def _of(statuses: Collection[str], filters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the filters of the tasks that a verb changes: those with these statuses alone."""
    options.check_filters(filters)
    chosen = filters.get("status") or statuses
    return {**filters, "status": [one for one in statuses if one in chosen]}


def _run(
    bulk: Bulk,
    done: str,
    changed_filters: Mapping[str, Any],
    places: tuple[Path | None, str | None, str | None],
    as_json: bool,
) -> None:
    """Change the tasks, with progress on stderr, and print how many were changed."""
    last, total = BulkProgress(), 0

    def report(progress: BulkProgress) -> None:
        nonlocal last
        for task_id, why in progress.refused.items():
            if task_id not in last.refused:
                print_error(why if repr(task_id) in why else f"task {task_id}: {why}")
        if progress.found:
            more = "+" if progress.found <= total == MOST_COUNTED else ""
            of = f"{max(progress.found, total):,}{more}"
            typer.echo(f"{done} {progress.changed:,} of {of} tasks", err=True)
        last = progress

    async def main() -> int:
        nonlocal total
        async with connected(*places) as client:
            try:
                if changed_filters["status"]:
                    total = await client.count_tasks(most=MOST_COUNTED, **changed_filters)
                return await bulk(client, report)
            except ValueError as error:
                raise typer.BadParameter(str(error)) from None

    changed = run_async(main)
    if as_json:
        print_json({done: changed, "found": last.found, "refused": dict(last.refused)})
    else:
        typer.echo(f"{done} {changed:,} task{'' if changed == 1 else 's'}")
    if last.refused:
        raise typer.Exit(TASK_FAILED)
