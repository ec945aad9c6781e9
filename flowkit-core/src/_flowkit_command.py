"""Entry point of the command ``flowkit``.

It is outside of the package, because the import of the package takes a second in which Ctrl-C must
not end in a traceback.
"""

import sys

INTERRUPTED = 130


def main() -> None:
    """Run the command line, and end quietly if it is interrupted."""
    try:
        from flowkit.cli import run_process

        run_process()
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(INTERRUPTED) from None
