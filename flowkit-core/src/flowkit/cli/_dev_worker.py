"""Entry point of the worker process of ``flowkit dev``: a ``flowkit worker`` that also stops when
its standard input ends, as it does when its parent dies.
"""

import os
import signal
import threading
from pathlib import Path

from flowkit.cli import run_process

STANDARD_INPUT = 0


def _take_input() -> int:
    """Return the pipe of the parent. Handlers that read the standard input find it empty."""
    pipe = os.dup(STANDARD_INPUT)
    with Path(os.devnull).open("rb") as empty:
        os.dup2(empty.fileno(), STANDARD_INPUT)
    return pipe


def _stop_at_end_of_input(pipe: int) -> None:
    while os.read(pipe, 1024):
        pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_at_end_of_input, args=[_take_input()], daemon=True).start()
    run_process()
