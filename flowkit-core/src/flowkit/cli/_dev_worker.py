"""Entry point of the worker process of ``flowkit dev``.

The worker stops when its standard input ends, as it does when its parent dies. It tells its parent
over a pipe that its event loop is alive, where its runs failed, and, when it gets ``ASK``, which
line it executes. The standard library answers that signal even if the line is in a loop of native
code.
"""

import asyncio
import contextlib
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from flowkit.cli import run_process
from flowkit.cli._dev_places import place_of_error
from flowkit.cli._errors import lines_of, print_error
from flowkit.cli._loader import load_handlers
from flowkit.cli._log_output import log_dev
from flowkit.cli._service_verbs import run_service
from flowkit.config import WorkerConfig
from flowkit.errors import FlowKitError
from flowkit.worker import Worker

STANDARD_INPUT = 0
ASK = getattr(signal, "SIGUSR2", None)
"""Signal that asks a worker for the line that it executes, where the system has it."""
PULSE_SEC = 0.25
CANNOT_LOAD = 2
"""Exit status of a worker that cannot load its handlers."""
NODE_FAILED = "node_failed"
REPORTED = (NODE_FAILED, "loop_blocked")
"""Actions of log records that the parent reports."""


class Parent:
    """The pipe to the parent process."""

    def __init__(self, pipe: int | None) -> None:
        self._pipe = pipe
        if pipe is not None:
            os.set_inheritable(pipe, False)
            os.set_blocking(pipe, False)
            if ASK is not None:
                faulthandler.register(ASK, file=pipe, all_threads=False)

    def send(self, **message: Any) -> None:
        """Send a message, unless the parent is gone or reads none."""
        if self._pipe is not None:
            with contextlib.suppress(OSError):
                os.write(self._pipe, json.dumps(message).encode() + b"\n")

    async def send_pulses(self) -> None:
        """Send a message at short intervals, while the event loop is not blocked."""
        while True:
            self.send(is_loaded=True)
            await asyncio.sleep(PULSE_SEC)


class FailedRuns(logging.Handler):
    """Handler that sends the places in the user's code where runs failed."""

    def __init__(self, parent: Parent) -> None:
        super().__init__()
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        fields = vars(record)
        if fields.get("action") == NODE_FAILED and record.exc_info is not None:
            place = place_of_error(record.exc_info[2])
            if place is not None:
                run = [fields["task_id"], fields["node_id"], fields["attempt"]]
                self._parent.send(failed=run, place=str(place))


def main(settings: dict[str, Any]) -> None:
    """Load the handlers and run the worker."""
    parent = Parent(settings["pipe"])
    parent.send(is_loaded=False)
    try:
        found = load_handlers(settings["sources"])
        worker = Worker(cfg=WorkerConfig(**settings["config"]), handlers=found)
    except FlowKitError as error:
        print_error(*lines_of(error))
        raise SystemExit(CANNOT_LOAD) from None
    log_dev(REPORTED)
    logging.getLogger("flowkit").addHandler(FailedRuns(parent))

    async def run() -> None:
        pulses = asyncio.create_task(parent.send_pulses())
        try:
            await worker.run()
        finally:
            pulses.cancel()

    run_service(run)


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
    run_process(lambda: main(json.loads(sys.argv[1])))
