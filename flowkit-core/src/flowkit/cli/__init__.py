"""The command line: ``flowkit``."""

import sys
from collections.abc import Sequence

NEEDED = ("typer", "rich")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit status: 0 done, 1 the task failed, 2 usage."""
    try:
        from flowkit.cli._app import app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in NEEDED:
            raise
        sys.stderr.write(f"flowkit needs {error.name} for its command line: pip install 'flowkit-core[cli]'\n")
        raise SystemExit(2) from None
    app(args=args, prog_name="flowkit")


__all__ = ["main"]
