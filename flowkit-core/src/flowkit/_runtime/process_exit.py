"""The end of the process, also where threads or child processes would keep it running."""

import logging
import os
import sys
import threading
from collections.abc import Callable

from flowkit._user_code.child_processes import log_children

logger = logging.getLogger(__name__)

FINAL_LOG_SEC = 1.0
"""Longest wait for the last log lines of the process."""
EXIT_SEC = 2.0
"""Time for a process of the command line to exit when its work is done."""


def end_process_soon(status: int) -> threading.Event:
    """End the process after ``EXIT_SEC``, for the case that threads, executors or child processes
    keep it running.

    Set the returned event to call this off.
    """
    called_off = threading.Event()

    def end() -> None:
        if not called_off.wait(EXIT_SEC):
            end_process(
                status, "has nothing more to do, but threads or child processes keep it from ending"
            )

    threading.Thread(target=end, name="flowkit end", daemon=True).start()
    return called_off


def end_process(status: int, reason: str) -> None:
    """End the process at once, without waiting for its threads."""

    def log() -> None:
        log_children(f"process {os.getpid()}")
        logger.critical(
            "Process %d %s: it is ended with status %d",
            os.getpid(),
            reason,
            status,
            extra={"action": "process_ended"},
        )
        sys.stdout.flush()
        sys.stderr.flush()

    _run_in_thread(log)
    os._exit(status)


def _run_in_thread(log: Callable[[], None]) -> None:
    """Log from a thread and wait at most ``FINAL_LOG_SEC``: a blocked thread may hold the lock of
    the log.
    """
    thread = threading.Thread(target=log, daemon=True)
    thread.start()
    thread.join(FINAL_LOG_SEC)
