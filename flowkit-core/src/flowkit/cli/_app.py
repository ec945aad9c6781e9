"""The verbs, put together."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from flowkit import __version__
from flowkit.cli import (
    _change_verbs,
    _dead_letter_verbs,
    _demo,
    _graph_verbs,
    _installation_verbs,
    _query_verbs,
    _run_verbs,
    _service_verbs,
)
from flowkit.cli._errors import Verbs

HERE, PROCESSES, TASKS, FLOWS, INSTALLATION = (
    "Here and now",
    "Processes",
    "Tasks",
    "Flows",
    "Installation",
)

VERBS: list[tuple[str, str, Callable[..., Any]]] = [
    (HERE, "demo", _demo.demo),
    (HERE, "run", _run_verbs.run),
    (PROCESSES, "coordinator", _service_verbs.coordinator),
    (PROCESSES, "worker", _service_verbs.worker),
    (TASKS, "submit", _run_verbs.submit),
    (TASKS, "ls", _query_verbs.ls),
    (TASKS, "show", _query_verbs.show),
    (TASKS, "watch", _query_verbs.watch),
    (TASKS, "explain", _query_verbs.explain),
    (TASKS, "artifacts", _query_verbs.artifacts),
    (TASKS, "cancel", _change_verbs.cancel),
    (TASKS, "pause", _change_verbs.pause),
    (TASKS, "resume", _change_verbs.resume),
    (TASKS, "retry", _change_verbs.retry),
    (TASKS, "dlq ls", _dead_letter_verbs.ls),
    (TASKS, "dlq show", _dead_letter_verbs.show),
    (TASKS, "dlq retry", _dead_letter_verbs.retry),
    (TASKS, "dlq drop", _dead_letter_verbs.drop),
    (FLOWS, "graph check", _graph_verbs.check),
    (FLOWS, "graph show", _graph_verbs.show),
    (INSTALLATION, "plugins", _installation_verbs.plugins),
    (INSTALLATION, "doctor", _installation_verbs.doctor),
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
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Options of the whole command."""


def make_app() -> typer.Typer:
    """The command line."""
    made = typer.Typer(
        cls=Verbs,
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    made.callback(help=HELP)(_options)
    groups: dict[str, typer.Typer] = {}
    for panel, words, verb in VERBS:
        group, _, name = words.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(
                help=GROUPS[group], no_args_is_help=True, rich_markup_mode="markdown"
            )
            made.add_typer(groups[group], name=group, rich_help_panel=panel)
        (groups[group] if group else made).command(name, rich_help_panel=None if group else panel)(
            verb
        )
    return made


app = make_app()
