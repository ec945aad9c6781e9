"""Parts of the verbs that run a coordinator and a worker in this process."""

import errno
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import typer

from flowkit import _embedded
from flowkit._runtime.signals import signals_received
from flowkit.cli._loader import LoadedFlow
from flowkit.config import STORE_AND_BUS
from flowkit.errors import ConfigError
from flowkit.plugins import Plugins, spelling_advice


def storage(db: str | None, plugins: Plugins) -> AbstractContextManager[dict[str, Any]]:
    """Return the settings of a store and a bus at ``db``, or in a file that is removed at the end.

    Raises:
        BadParameter: ``db`` needs a server.
        ConfigError: no plugin opens the address; the message names the package to install.
    """
    if db is not None and not db.startswith(STORE_AND_BUS):
        raise typer.BadParameter(
            "expected sqlite:///path or memory://name"
            + (spelling_advice(db) or "; for a store on a server use flowkit submit"),
            param_hint="--db",
        )
    return _embedded.storage(db, plugins)


@contextmanager
def interrupts(stop: Callable[[], None], *, notice: str, patience_sec: float) -> Iterator[None]:
    """Call ``stop`` with each SIGINT, SIGTERM or SIGHUP, and print what the first one causes.

    The second one ends the process.
    """

    def on_signal(number: signal.Signals) -> None:
        _leave_closed_terminal()
        stop()

    def print_notice(number: signal.Signals) -> None:
        _leave_closed_terminal()
        typer.echo(f"interrupted: {notice}; interrupt again to exit at once", err=True)

    with signals_received(on_signal, on_first_signal=print_notice, patience_sec=patience_sec):
        yield


def _leave_closed_terminal() -> None:
    """Write to nowhere instead of a terminal that is closed, which would be an error."""
    for stream in (1, 2):
        try:
            os.get_terminal_size(stream)
        except OSError as error:
            if error.errno == errno.EIO:
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def handlers_for(flow: LoadedFlow, given: Mapping[str, Any], plugins: Plugins) -> dict[str, Any]:
    """Return the handler for each role of the flow; all handlers if it runs registered flows, whose
    roles are known when the task is submitted.

    A handler given on the command line takes precedence over one in the flow's own file, and that
    over one of a plugin.

    Raises:
        ConfigError: a role has no handler.
    """
    known = {**plugins.handlers, **flow.handlers, **given}
    missing = [
        f"role {role!r} ({_nodes(nodes)})"
        for role, nodes in flow.roles.items()
        if role not in known
    ]
    if missing:
        raise ConfigError(f"no handler for {', '.join(missing)}; use --handlers module:attr")
    return known if flow.graph.flow_uses else {role: known[role] for role in flow.roles}


def _nodes(node_ids: Sequence[str]) -> str:
    shown = ", ".join(map(repr, node_ids[:3]))
    return f"node{'s' if len(node_ids) > 1 else ''} {shown}{', …' if len(node_ids) > 3 else ''}"
