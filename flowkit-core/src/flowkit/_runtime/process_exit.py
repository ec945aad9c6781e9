"""The end of the process, also where threads or child processes would keep it running."""

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flowkit._user_code.child_processes import log_children

logger = logging.getLogger(__name__)

FINAL_LOG_SEC = 1.0
"""Longest wait for the last log lines of the process, and for each of its last calls."""
EXIT_SEC = 2.0
"""Time for a process of the command line to exit when its work is done."""


_last_calls: list[Callable[[], None]] = []
"""Calls to make before :func:`end_process` ends the process."""


@contextmanager
def called_before_exit(call: Callable[[], None]) -> Iterator[None]:
    """Make this call if :func:`end_process` ends the process while the context is open."""
    _last_calls.append(call)
    try:
        yield
    finally:
        _last_calls.remove(call)


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
    """End the process at once, without waiting for its threads.

    The log and the last calls get a second each.
    """

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

    for call in (log, *_last_calls):
        _run_in_thread(call)
    os._exit(status)


def _run_in_thread(call: Callable[[], None]) -> None:
    """Make a call in a thread and wait at most ``FINAL_LOG_SEC``: a blocked thread may hold the
    lock of the log.
    """
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(FINAL_LOG_SEC)
