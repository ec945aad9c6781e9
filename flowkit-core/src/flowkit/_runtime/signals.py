"""SIGTERM and SIGINT for services.

Python runs a signal handler in the main thread, between two steps of it: not while that thread
waits for a lock or calls into C, and the event loop sees nothing while a handler blocks it. The
wake-up descriptor of :func:`signal.set_wakeup_fd` is written to even then. So a watchdog thread
reads it. The thread learns in every case that a signal has arrived, and ends the process if it does
not end in time: also where the event loop is blocked, or where threads, executors or child
processes keep the interpreter running after the service has returned.

anyio's ``open_signal_receiver`` cannot replace this. On asyncio each receiver replaces the handler
of the one before and removes it at its end, so that a coordinator and a worker in one process
cannot both receive a signal. It also takes the wake-up descriptor for the event loop, and so learns
nothing while the event loop is blocked.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit._runtime.process_exit import end_process

logger = logging.getLogger(__name__)

NUMBERS = (signal.SIGTERM, signal.SIGINT)
LINGER_SEC = 30.0
"""Time that a service may take to stop, beyond its patience, while the event loop answers."""
ABORT_SEC = 0.5
"""Time for a service to hand back its work after a second signal."""
NOTICE_SEC = 0.5
"""A first signal that the event loop has not seen for this long is logged by the watchdog."""
ANSWER_SEC = 1.0
"""Time for the event loop to answer before the process is ended."""
ANSWER_CHECKS = 10
"""The wait for an answer is split into this many steps, so that a pause of the whole process does
not count as silence.
"""
RETURN_SEC = 3.0
"""Least time for a process to end after ``run()`` of its last service has returned because of a
signal.
"""
CATCH_UP_SEC = 5.0
"""Longest wait of an ending service for the watchdog to read earlier signals."""
_STOP, _LEFT, _CATCH_UP = 0, 255, 254
"""Written to the descriptor in place of a signal: end the watchdog; the last service has returned
because of a signal; confirm that everything before is read.
"""

OnSignal = Callable[[signal.Signals], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Listener:
    """A service that receives signals."""

    loop: asyncio.AbstractEventLoop
    on_signal: OnSignal
    on_first_signal: OnSignal
    patience_sec: float
    abort_sec: float


_listeners: list[_Listener] = []
"""A process may run a coordinator and workers side by side, but has one handler per signal."""
_watchdog: "_Watchdog | None" = None


def _ignore(number: signal.Signals) -> None:
    pass


@contextlib.contextmanager
def signals_received(
    on_signal: OnSignal,
    *,
    patience_sec: float,
    abort_sec: float = 0.0,
    return_sec: float | None = None,
    on_first_signal: OnSignal = _ignore,
) -> Iterator[None]:
    """Call ``on_signal`` in the event loop with each signal, and end the process if it does not end
    by itself.

    ``on_first_signal`` is called in a thread, also where the event loop is blocked. After the first
    signal the process may take ``patience_sec``, and longer while the event loop answers. It is
    ended ``abort_sec`` after the second signal, and at once by the third. The exit status is then
    128 plus the signal's number.

    If a signal has arrived, this holds after the context has ended too: the next signal ends the
    process. With ``return_sec``, the process is also ended when ``patience_sec`` is over, but not
    before ``return_sec``. A later use of this function cancels that. Outside of the main thread
    this function does nothing: Python handles signals in the main thread only.
    """
    global _watchdog
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    listener = _Listener(
        asyncio.get_running_loop(), on_signal, on_first_signal, patience_sec, abort_sec
    )
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
            # This service's patience holds for the signals that arrived while it ran.
            _watchdog.catch_up()
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
            listener.loop.call_soon_threadsafe(listener.on_signal, signal.Signals(number))


class _Watchdog(threading.Thread):
    """Thread that reads the wake-up descriptor, and ends the process when its time is up."""

    signalled = False

    def __init__(self) -> None:
        super().__init__(name="flowkit signals", daemon=True)
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._forward_to = -1
        self._return_sec: float | None = None
        self._caught_up = threading.Event()
        self._last = self._count = 0
        """The number of the last signal, and how many have arrived."""
        self._patient_until = 0.0
        self._due: float | None = None
        """The time at which to end the process or check the event loop; None: never."""
        self._final = False
        """True: the process is ended when the time is up, even if the event loop answers."""

    def install(self) -> None:
        self._forward_to = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        for number in NUMBERS:
            self._old_handlers[number] = signal.signal(number, _on_signal)
            if hasattr(signal, "siginterrupt"):
                signal.siginterrupt(number, False)
        self.start()

    def remove(self) -> None:
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._forward_to)
        self._writer.send(bytes([_STOP]))

    def catch_up(self) -> None:
        """Wait until the signals that have arrived so far are read."""
        self._caught_up.clear()
        self._writer.send(bytes([_CATCH_UP]))
        self._caught_up.wait(CATCH_UP_SEC)

    def stay(self, return_sec: float | None) -> None:
        """Watch until the process ends, and forward no more signals: the event loop that received
        them may be closed.
        """
        self._forward_to = -1
        self._return_sec = return_sec
        self._writer.send(bytes([_LEFT]))

    def forget(self) -> None:
        """Restore the default handlers in a forked child process."""
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
                self._end_or_wait()
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
                    self._count_signal(number)

    def _count_signal(self, number: int) -> None:
        self._last, self._count = number, self._count + 1
        listeners = tuple(_listeners)
        if self._count == 1:
            patience_sec = min(
                max((one.patience_sec for one in listeners), default=0.0), threading.TIMEOUT_MAX / 2
            )
            self._due = self._patient_until = time.monotonic() + patience_sec
            threading.Thread(
                target=_announce, args=(number, listeners, patience_sec), daemon=True
            ).start()
            return
        abort_sec = (
            max((one.abort_sec for one in listeners), default=0.0) if self._count == 2 else 0.0
        )
        if not abort_sec:
            end_process(128 + number, f"got {signal.Signals(number).name} again")
        self._due, self._final = time.monotonic() + abort_sec, True

    def _left(self) -> None:
        self._final = True
        if self._count == 1:
            self._due = (
                None
                if self._return_sec is None
                else max(self._patient_until, time.monotonic() + self._return_sec)
            )

    def _end_or_wait(self) -> None:
        if self._final or not _loops_answer(ANSWER_SEC):
            end_process(
                128 + self._last,
                f"got {signal.Signals(self._last).name}, and does not end by itself",
            )
        self._due, self._final = time.monotonic() + LINGER_SEC, True


def _announce(number: int, listeners: Sequence[_Listener], patience_sec: float) -> None:
    """Announce a first signal from a thread, because a blocked event loop has not seen it yet."""
    for listener in listeners:
        listener.on_first_signal(signal.Signals(number))
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
    """Return whether the event loops of all services answer in time."""
    answers = []
    for loop in {one.loop for one in tuple(_listeners)}:
        answer = threading.Event()
        answers.append(answer)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(answer.set)
    return any(
        all(answer.wait(within_sec / ANSWER_CHECKS) for answer in answers)
        for _ in range(ANSWER_CHECKS)
    )


# ---------------------------------------------------------------- forked children

_masks = threading.local()


def _before_fork() -> None:
    """Block signals during a fork: the child process would write an early one to the descriptor of
    its parent.
    """
    if _watchdog is not None:
        _masks.old = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)


def _after_fork() -> None:
    old = _masks.__dict__.pop("old", None)
    if old is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


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
