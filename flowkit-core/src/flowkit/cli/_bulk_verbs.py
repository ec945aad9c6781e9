"""Verbs that change all tasks that match: ``cancel-tasks``, ``retry-tasks``."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from flowkit.cli import _options as options
from flowkit.cli._connection import connected, run_async
from flowkit.cli._errors import TASK_FAILED, print_error
from flowkit.cli._output import print_json
from flowkit.client import Client
from flowkit.task import BulkProgress

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
        (config, db, bus),
        as_json,
    )


def _run(
    bulk: Bulk, done: str, places: tuple[Path | None, str | None, str | None], as_json: bool
) -> None:
    """Change the tasks, with progress on stderr, and print how many were changed."""
    last = BulkProgress()

    def report(progress: BulkProgress) -> None:
        nonlocal last
        for task_id, why in progress.refused.items():
            if task_id not in last.refused:
                print_error(why if repr(task_id) in why else f"task {task_id}: {why}")
        if progress.found:
            typer.echo(f"{done} {progress.changed:,} of {progress.found:,} tasks", err=True)
        last = progress

    async def main() -> int:
        async with connected(*places) as client:
            try:
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
