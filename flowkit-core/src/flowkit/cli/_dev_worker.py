"""Entry point of the worker process of ``flowkit dev``: a ``flowkit worker`` that also stops when
its standard input ends, as it does when its parent dies.
"""

import os
import signal
import threading

from flowkit.cli import run_process

STANDARD_INPUT = 0


def _stop_at_end_of_input() -> None:
    # Not sys.stdin: its lock would keep the interpreter from ending while this thread reads.
    while os.read(STANDARD_INPUT, 1024):
        pass
    signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    run_process()
