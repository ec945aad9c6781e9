"""The command line: ``flowkit``."""

import sys
from collections.abc import Sequence
from typing import Any

from flowkit._runtime.process_exit import end_process_soon

NEEDED = ("typer", "rich")
INTERRUPTED = 130


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and raise ``SystemExit`` with its exit status: 0 done, 1 the task
    failed, 2 usage.
    """
    try:
        from flowkit.cli._app import app

        app(args=args, prog_name="flowkit")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        sys.stderr.write(
            f"flowkit needs {error.name} for its command line: pip install 'flowkit-core[cli]'\n"
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(INTERRUPTED) from None


def run_process() -> None:
    """Run the command line in a process of its own.

    Threads and child processes that handlers have left running do not keep it from ending: it is
    ended two seconds later.
    """
    status: Any = 1
    try:
        main()
    except SystemExit as leaving:
        status = leaving.code
        raise
    finally:
        end_process_soon(status if isinstance(status, int) else int(status is not None))


__all__ = ["main"]
