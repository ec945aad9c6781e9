"""Command line interface ``flowkit``."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

from flowkit._runtime.process_exit import end_process_soon

NEEDED = ("typer", "rich")
INTERRUPTED = 130


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
        raise SystemExit(2) from None
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
        run()
    except SystemExit as leaving:
        status = leaving.code
        raise
    finally:
        end_process_soon(status if isinstance(status, int) else int(status is not None))


__all__ = ["main"]
