"""The verbs, put together."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from flowkit import __version__
from flowkit.cli import changing, dead_letters, demo, graphs, installation, looking, running, services
from flowkit.cli._errors import Verbs

HERE, PROCESSES, TASKS, FLOWS, INSTALLATION = "Here and now", "Processes", "Tasks", "Flows", "Installation"

VERBS: list[tuple[str, str, Callable[..., Any]]] = [
    (HERE, "demo", demo.demo),
    (HERE, "run", running.run),
    (PROCESSES, "coordinator", services.coordinator),
    (PROCESSES, "worker", services.worker),
    (TASKS, "submit", running.submit),
    (TASKS, "ls", looking.ls),
    (TASKS, "show", looking.show),
    (TASKS, "watch", looking.watch),
    (TASKS, "explain", looking.explain),
    (TASKS, "artifacts", looking.artifacts),
    (TASKS, "cancel", changing.cancel),
    (TASKS, "pause", changing.pause),
    (TASKS, "resume", changing.resume),
    (TASKS, "retry", changing.retry),
    (TASKS, "dlq ls", dead_letters.ls),
    (TASKS, "dlq show", dead_letters.show),
    (TASKS, "dlq retry", dead_letters.retry),
    (TASKS, "dlq drop", dead_letters.drop),
    (FLOWS, "graph check", graphs.check),
    (FLOWS, "graph show", graphs.show),
    (INSTALLATION, "plugins", installation.plugins),
    (INSTALLATION, "doctor", installation.doctor),
]

GROUPS = {"dlq": "Work that was given up.", "graph": "Check and draw flows."}

HELP = """Run flows, and look after them.

Stores and buses are given as addresses: --db and --bus, or db and bus in the file of --config, or FLOWKIT_DB and FLOWKIT_BUS.

The exit status is 0 if all is done, 1 if the task failed, 2 if the command, a configuration or a graph is wrong.
"""


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flowkit {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Options of the whole command."""


def make_app() -> typer.Typer:
    """The command line."""
    made = typer.Typer(cls=Verbs, help=HELP, no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    made.callback(help=HELP)(_options)
    groups: dict[str, typer.Typer] = {}
    for panel, words, verb in VERBS:
        group, _, name = words.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(help=GROUPS[group], no_args_is_help=True, rich_markup_mode="markdown")
            made.add_typer(groups[group], name=group, rich_help_panel=panel)
        (groups[group] if group else made).command(name, rich_help_panel=None if group else panel)(verb)
    return made


app = make_app()
