"""The ``flowkit`` command with all its verbs."""

from collections.abc import Sequence
from typing import Annotated

import typer

from flowkit import __version__
from flowkit.cli import (
    _bulk_verbs,
    _cache_verbs,
    _change_verbs,
    _dead_letter_verbs,
    _demo,
    _dev_verb,
    _export_verbs,
    _flow_verbs,
    _graph_verbs,
    _installation_verbs,
    _log_verbs,
    _query_verbs,
    _run_verbs,
    _schedule_verbs,
    _service_verbs,
    _trigger_verbs,
    _waiting_verbs,
)
from flowkit.cli._errors import Verbs
from flowkit.cli._verb import Verb, installed_verbs

LOCAL = "Without servers"
PROCESSES = "Processes"
TASKS = "Tasks"
FLOWS = "Flows"
INSTALLATION = "Installation"


_OWN_VERBS = [
    Verb(LOCAL, "demo", _demo.demo),
    Verb(LOCAL, "run", _run_verbs.run),
    Verb(LOCAL, "dev", _dev_verb.dev),
    Verb(PROCESSES, "coordinator", _service_verbs.coordinator),
    Verb(PROCESSES, "worker", _service_verbs.worker),
    Verb(PROCESSES, "workers", _query_verbs.workers),
    Verb(TASKS, "submit", _run_verbs.submit),
    Verb(TASKS, "ls", _query_verbs.ls),
    Verb(TASKS, "show", _query_verbs.show),
    Verb(TASKS, "watch", _query_verbs.watch),
    Verb(TASKS, "nodes", _query_verbs.nodes),
    Verb(TASKS, "logs", _log_verbs.logs),
    Verb(TASKS, "explain", _query_verbs.explain),
    Verb(TASKS, "artifacts", _query_verbs.artifacts),
    Verb(TASKS, "cancel", _change_verbs.cancel),
    Verb(TASKS, "pause", _change_verbs.pause),
    Verb(TASKS, "resume", _change_verbs.resume),
    Verb(TASKS, "retry", _change_verbs.retry),
    Verb(TASKS, "cancel-tasks", _bulk_verbs.cancel_tasks),
    Verb(TASKS, "retry-tasks", _bulk_verbs.retry_tasks),
    Verb(TASKS, "rerun", _change_verbs.rerun),
    Verb(TASKS, "run-now", _change_verbs.run_now),
    Verb(TASKS, "resolve", _change_verbs.resolve),
    Verb(TASKS, "signal", _waiting_verbs.signal),
    Verb(TASKS, "approvals", _waiting_verbs.approvals),
    Verb(TASKS, "decide", _waiting_verbs.decide),
    Verb(TASKS, "dlq ls", _dead_letter_verbs.ls),
    Verb(TASKS, "dlq show", _dead_letter_verbs.show),
    Verb(TASKS, "dlq retry", _dead_letter_verbs.retry),
    Verb(TASKS, "dlq drop", _dead_letter_verbs.drop),
    Verb(FLOWS, "flow put", _flow_verbs.put),
    Verb(FLOWS, "flow ls", _flow_verbs.ls),
    Verb(FLOWS, "flow show", _flow_verbs.show),
    Verb(FLOWS, "flow diff", _flow_verbs.diff),
    Verb(FLOWS, "schedule put", _schedule_verbs.put),
    Verb(FLOWS, "schedule ls", _schedule_verbs.ls),
    Verb(FLOWS, "schedule show", _schedule_verbs.show),
    Verb(FLOWS, "schedule next", _schedule_verbs.coming),
    Verb(FLOWS, "schedule pause", _schedule_verbs.pause),
    Verb(FLOWS, "schedule resume", _schedule_verbs.resume),
    Verb(FLOWS, "schedule trigger", _schedule_verbs.trigger),
    Verb(FLOWS, "schedule backfill", _schedule_verbs.backfill),
    Verb(FLOWS, "schedule rm", _schedule_verbs.rm),
    Verb(FLOWS, "trigger put", _trigger_verbs.put),
    Verb(FLOWS, "trigger ls", _trigger_verbs.ls),
    Verb(FLOWS, "trigger pause", _trigger_verbs.pause),
    Verb(FLOWS, "trigger resume", _trigger_verbs.resume),
    Verb(FLOWS, "trigger rm", _trigger_verbs.rm),
    Verb(FLOWS, "cache rm", _cache_verbs.rm),
    Verb(FLOWS, "graph check", _graph_verbs.check),
    Verb(FLOWS, "graph show", _graph_verbs.show),
    Verb(INSTALLATION, "plugins", _installation_verbs.plugins),
    Verb(INSTALLATION, "doctor", _installation_verbs.doctor),
    Verb(INSTALLATION, "export", _export_verbs.export),
    Verb(INSTALLATION, "import", _export_verbs.import_),
]

PANELS = list(dict.fromkeys(verb.panel for verb in _OWN_VERBS))


def _place(verb: Verb) -> int:
    return PANELS.index(verb.panel) if verb.panel in PANELS else len(PANELS)


VERBS = sorted([*_OWN_VERBS, *installed_verbs()], key=_place)
"""All verbs, also those of installed packages, by panel."""

GROUPS = {
    "cache": "Delete cached results.",
    "dlq": "List, retry and drop dead letters.",
    "flow": "Register flows, and compare their versions.",
    "graph": "Check and draw flows.",
    "schedule": "Make tasks at times.",
    "trigger": "Make tasks for events.",
}

HELP = (
    "Run flows and manage tasks.\n\n"
    "The store and the bus are addresses. Give them with --db and --bus, with db and bus in the"
    " --config file, or with FLOWKIT_DB and FLOWKIT_BUS.\n\n"
    "Exit status: 0 for success, 1 if the task failed, 2 if the command, the configuration or the"
    " graph is invalid.\n"
)


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
    """Options of ``flowkit`` itself."""


def make_app(verbs: Sequence[Verb] = VERBS) -> typer.Typer:
    """Build the command line from these verbs."""
    made = typer.Typer(
        cls=Verbs,
        help=HELP,
        no_args_is_help=True,
        rich_markup_mode="markdown",
        pretty_exceptions_enable=False,
    )
    made.callback(help=HELP)(_options)
    groups: dict[str, typer.Typer] = {}
    for verb in verbs:
        group, _, name = verb.words.rpartition(" ")
        if group and group not in groups:
            groups[group] = typer.Typer(
                help=verb.group or GROUPS[group], no_args_is_help=True, rich_markup_mode="markdown"
            )
            made.add_typer(groups[group], name=group, rich_help_panel=verb.panel)
        owner, panel = (groups[group], None) if group else (made, verb.panel)
        owner.command(name, rich_help_panel=panel)(verb.run)
    return made


app = make_app()
