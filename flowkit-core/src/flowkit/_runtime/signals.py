"""Signals that end a process: SIGTERM and SIGINT.

Python hands a signal to the main thread, between two of its instructions. Where a handler blocks
the event loop, or native code does not return, nothing else happens there. So a thread of its own
reads the wake-up descriptor as well, which Python writes to when the signal arrives, and ends the
process if it does not end in time: also where the event loop is blocked, or where threads,
executors or child processes keep the interpreter from ending after the service has returned.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit._user_code.child_processes import log_children

logger = logging.getLogger(__name__)

NUMBERS = (signal.SIGTERM, signal.SIGINT)
LINGER_SEC = 30.0
"""How much longer than its patience a service may take to stop while the event loop answers."""
HURRY_SEC = 0.5
"""Time for a service to hand back its work after a second signal."""
NOTICE_SEC = 0.5
"""A first signal that the event loop has not seen for this long is logged by the watchdog."""
ANSWER_SEC = 1.0
"""Time for the event loop to answer before the process is ended."""
LOOKS = 10
"""The wait is split into this many steps, so that a pause of the whole process does not count as
silence.
"""
LAST_WORDS_SEC = 1.0
RETURN_SEC = 3.0
"""Least time for a process to end after ``run()`` of its last service has returned because of a
signal.
"""
LEAVE_SEC = 2.0
"""Time for a process of the command line to end when its work is done."""
CATCH_UP_SEC = 5.0
"""Longest wait of a service that ends for the watchdog to take earlier signals."""
_STOP, _LEFT, _CATCH_UP = 0, 255, 254
"""Sent to the watchdog in place of a signal: end; the last service has returned because of a
signal; say that all before is taken.
"""

Obey = Callable[[signal.Signals], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    """A service that obeys signals."""

    loop: asyncio.AbstractEventLoop
    obey: Obey
    answer: Obey
    patience_sec: float
    hurry_sec: float


_listeners: list[_Listener] = []
"""A process may run a coordinator and workers side by side, and has one handler a signal."""
_watchdog: "_Watchdog | None" = None


def _no_answer(number: signal.Signals) -> None:
    pass


@contextlib.contextmanager
def signals_heard(
    obey: Obey,
    *,
    patience_sec: float,
    hurry_sec: float = 0.0,
    return_sec: float | None = None,
    answer: Obey = _no_answer,
) -> Iterator[None]:
    """Call ``obey`` in the event loop with each signal, and end the process if it does not end
    itself.

    ``answer`` is called with the first signal in a thread, also where the event loop is blocked.
    After this signal the process may take ``patience_sec``, and more while the event loop answers.
    It is ended ``hurry_sec`` after the second signal, and at once by the third. The exit status is
    then 128 plus the signal's number.

    If a signal came, this holds after the context has ended too: the next signal ends the process.
    With ``return_sec``, it is also ended when ``patience_sec`` is over, but not before
    ``return_sec``. A later use of this function cancels that. Outside of the main thread this does
    nothing: Python has no signals there.
    """
    global _watchdog
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listener = _Listener(asyncio.get_running_loop(), obey, answer, patience_sec, hurry_sec)
    if _watchdog is not None and not _listeners:
        _watchdog.remove()
        _watchdog = None
    if _watchdog is None:
        watchdog = _Watchdog()
        watchdog.install()
        _watchdog = watchdog
    _listeners.append(listener)
    try:
        yield
    finally:
        if _watchdog is not None and _watchdog.signalled:
            _watchdog.catch_up()  # the patience of this service holds for the signals that came while it ran
        _listeners.remove(listener)
        if not _listeners and _watchdog is not None:
            if _watchdog.signalled:
                _watchdog.stay(return_sec)
            else:
                _watchdog.remove()
                _watchdog = None


def _on_signal(number: int, frame: object) -> None:
    if _watchdog is not None:
        _watchdog.signalled = True
    for listener in tuple(_listeners):
        with contextlib.suppress(RuntimeError):
            listener.loop.call_soon_threadsafe(listener.obey, signal.Signals(number))


class _Watchdog(threading.Thread):
    """Reads the wake-up descriptor, and ends the process when its time is up."""

    signalled = False

    def __init__(self) -> None:
        super().__init__(name="flowkit signals", daemon=True)
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._before: dict[signal.Signals, Any] = {}
        self._forward_to = -1
        self._return_sec: float | None = None
        self._caught_up = threading.Event()
        self._last = self._count = 0
        self._patient_until = 0.0
        self._due: float | None = None
        self._final = False
        """The process ends when the time is up, even if the event loop answers."""

    def install(self) -> None:
        self._forward_to = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in NUMBERS:
            self._before[number] = signal.signal(number, _on_signal)
            if hasattr(signal, "siginterrupt"):
                signal.siginterrupt(number, False)
        self.start()

    def remove(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._forward_to)
        self._writer.send(bytes([_STOP]))

    def catch_up(self) -> None:
        """Wait until the signals that came until now are taken."""
        self._caught_up.clear()
        self._writer.send(bytes([_CATCH_UP]))
        self._caught_up.wait(CATCH_UP_SEC)

    def stay(self, return_sec: float | None) -> None:
        """Watch the rest of the process's life. The event loop that other signals were forwarded to
        may be closed meanwhile.
        """
        self._forward_to = -1
        self._return_sec = return_sec
        self._writer.send(bytes([_LEFT]))

    def forget(self) -> None:
        """In a forked child: the signals do what they do in any process."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        self._reader.close()
        self._writer.close()

    def run(self) -> None:
        while True:
            self._reader.settimeout(
                None if self._due is None else max(0.001, self._due - time.monotonic())
            )
            try:
                data = self._reader.recv(64)
            except TimeoutError:
                self._time_is_up()
                continue
            if self._forward_to >= 0:
                with contextlib.suppress(OSError):
                    os.write(self._forward_to, data)
            for number in data:
                if number == _STOP:
                    self._reader.close()
                    self._writer.close()
                    return
                if number == _CATCH_UP:
                    self._caught_up.set()
                elif number == _LEFT:
                    self._left()
                elif number in NUMBERS:
                    self._take(number)

    def _take(self, number: int) -> None:
        self._last, self._count = number, self._count + 1
        listeners = tuple(_listeners)
        if self._count == 1:
            patience_sec = min(
                max((one.patience_sec for one in listeners), default=0.0), threading.TIMEOUT_MAX / 2
            )
            self._due = self._patient_until = time.monotonic() + patience_sec
            threading.Thread(
                target=_answer, args=(number, listeners, patience_sec), daemon=True
            ).start()
            return
        hurry_sec = (
            max((one.hurry_sec for one in listeners), default=0.0) if self._count == 2 else 0.0
        )
        if not hurry_sec:
            end_process(128 + number, f"got {signal.Signals(number).name} again")
        self._due, self._final = time.monotonic() + hurry_sec, True

    def _left(self) -> None:
        self._final = True
        if self._count == 1:
            self._due = (
                None
                if self._return_sec is None
                else max(self._patient_until, time.monotonic() + self._return_sec)
            )

    def _time_is_up(self) -> None:
        if self._final or not _loops_answer(ANSWER_SEC):
            end_process(
                128 + self._last,
                f"got {signal.Signals(self._last).name}, and does not end by itself",
            )
        self._due, self._final = time.monotonic() + LINGER_SEC, True


def _answer(number: int, listeners: Sequence[_Listener], patience_sec: float) -> None:
    """Answer a first signal, which its receiver sees only when the event loop is free."""
    for listener in listeners:
        listener.answer(signal.Signals(number))
    if not _loops_answer(NOTICE_SEC):
        logger.error(
            "The event loop of process %d is blocked and has not seen %s. If it stays blocked, the"
            " process is ended in %.0f s; a second signal ends it at once",
            os.getpid(),
            signal.Signals(number).name,
            patience_sec,
            extra={"action": "loop_blocked"},
        )


def _loops_answer(within_sec: float) -> bool:
    answers = []
    for loop in {one.loop for one in tuple(_listeners)}:
        answer = threading.Event()
        answers.append(answer)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(answer.set)
    return any(all(answer.wait(within_sec / LOOKS) for answer in answers) for _ in range(LOOKS))


def end_process_soon(status: int) -> threading.Event:
    """End the process in a while, if what it still does keeps it from ending: threads, executors,
    child processes.

    Set the event that is returned, and this does not happen.
    """
    called_off = threading.Event()

    def end() -> None:
        if not called_off.wait(LEAVE_SEC):
            end_process(
                status, "has nothing more to do, but threads or child processes keep it from ending"
            )

    threading.Thread(target=end, name="flowkit end", daemon=True).start()
    return called_off


def end_process(status: int, why: str) -> None:
    """End the process at once, whatever its threads do."""

    def say() -> None:
        log_children(f"process {os.getpid()}")
        logger.critical(
            "Process %d %s: it is ended with status %d",
            os.getpid(),
            why,
            status,
            extra={"action": "process_ended"},
        )
        sys.stdout.flush()
        sys.stderr.flush()

    _in_thread(say)
    os._exit(status)


def _in_thread(log: Callable[[], None]) -> None:
    """Log something in a thread, and do not wait long for it: the thread that is stuck may hold the
    lock of the log.
    """
    logging_thread = threading.Thread(target=log, daemon=True)
    logging_thread.start()
    logging_thread.join(LAST_WORDS_SEC)


# ---------------------------------------------------------------- forked children

_masks = threading.local()


def _before_fork() -> None:
    """Hold signals back: one that comes to the child too early would be written to the descriptor
    of the parent.
    """
    if _watchdog is not None:
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)


def _after_fork() -> None:
    before = _masks.__dict__.pop("before", None)
    if before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _after_fork_in_child() -> None:
    global _watchdog
    if _watchdog is not None:
        _watchdog.forget()
        _watchdog = None
        _listeners.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child
    )
