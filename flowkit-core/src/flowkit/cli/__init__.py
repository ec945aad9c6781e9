"""Command line interface ``flowkit``."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flowkit._runtime.process_exit import end_process_soon

NEEDED = ("typer", "rich")
INTERRUPTED = 130
USAGE = 2


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and raise ``SystemExit`` with its exit status.

    The status is 0 for success, 1 for a failed task and 2 for invalid usage.
    """
    try:
        from flowkit.cli._app import app

        app(args=args, prog_name="flowkit")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        sys.stderr.write(
            f"the flowkit command needs {error.name}; run: pip install 'flowkit-core[cli]'\n"
        )
        raise SystemExit(USAGE) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(INTERRUPTED) from None


def run_process(run: Callable[[], None] = main) -> None:
    """Run the command line, or another command, as the main program of this process.

    The process exits two seconds after the command at the latest, even if handlers left threads or
    child processes running.
    """
    status: Any = 1
    try:
        _open_closed_streams()
        _check_folder()
        run()
    except SystemExit as leaving:
        status = leaving.code
        raise
    finally:
        end_process_soon(status if isinstance(status, int) else int(status is not None))


def _open_closed_streams() -> None:
    """Write to nowhere, and read nothing, if a standard stream is closed.

    Otherwise the next file that is opened gets its number, and texts are written into that file.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def _check_folder() -> None:
    """Check that the current folder exists, because relative paths and imports need it."""
    try:
        Path.cwd()
    except OSError:
        sys.stderr.write("error: the current folder was deleted; change to another one\n")
        raise SystemExit(USAGE) from None


__all__ = ["main"]
