"""Verbs for the installation: ``plugins`` and ``doctor``."""

from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from flowkit.cli import _options as options
from flowkit.cli._checks import check_clock, check_packages, check_python, check_store_and_bus
from flowkit.cli._connection import configuration, run_async
from flowkit.cli._errors import TASK_FAILED
from flowkit.cli._output import console, print_json, table
from flowkit.errors import PluginError
from flowkit.plugins import Plugins
from flowkit.protocols import CheckResult


def plugins(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    as_json: options.Json = False,
) -> None:
    """List what each plugin provides.

    These are hooks, handlers, coordinator functions, input adapters and addresses. If two plugins
    open the same address, the list shows which one is used.
    """
    rows = Plugins().provided(configuration(config, db, bus))
    if as_json:
        print_json([asdict(row) for row in rows])
    else:
        console().print(
            table(
                None, ("plugin", "kind", "name"), [(row.plugin, row.kind, row.name) for row in rows]
            )
        )


def doctor(
    db: options.Db = None,
    bus: options.Bus = None,
    config: options.Config = None,
    max_behind: Annotated[
        int | None,
        typer.Option(
            "--max-behind",
            metavar="N",
            min=0,
            help="Fail if a trigger is more events of its source behind. By default no limit.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Check this installation and its servers or its file, and show how to fix problems.

    The exit status is 1 if a check fails.
    """
    cfg = configuration(config, db, bus)

    async def main() -> list[CheckResult]:
        results = [check_python(), *check_packages(), check_clock()]
        try:
            known = Plugins()
        except PluginError as error:
            return [
                *results,
                CheckResult("plugins", False, str(error), "fix or uninstall that plugin"),
            ]
        results.append(
            CheckResult("plugins", True, f"{len({row.plugin for row in known.provided()})} found")
        )
        return [*results, *await check_store_and_bus(known, cfg, max_behind=max_behind)]

    results = run_async(main)
    if as_json:
        print_json(
            {"ok": all(item.ok for item in results), "checks": [asdict(item) for item in results]}
        )
    else:
        out = console()
        for item in results:
            mark = Text("ok     ", style="green") if item.ok else Text("FAULT  ", style="bold red")
            out.print(
                mark.append(f"{item.name}: ", style="bold").append(item.detail, style="not bold"),
                soft_wrap=True,
            )
            if item.remedy and not item.ok:
                out.print(Text(f"       fix: {item.remedy}", style="yellow"), soft_wrap=True)
    if not all(item.ok for item in results):
        raise typer.Exit(TASK_FAILED)
