"""The watchdog thread, which ends a process that does not end after a signal."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flowkit._runtime.process_exit import end_process

logger = logging.getLogger(__name__)

HANGUP: signal.Signals | None = getattr(signal, "SIGHUP", None)
"""The signal of a terminal that is closed, which Windows does not have."""
NUMBERS = (signal.SIGTERM, signal.SIGINT, *((HANGUP,) if HANGUP is not None else ()))
LINGER_SEC = 30.0
"""Time that a service may take to stop, beyond its patience, while the event loop answers."""
NOTICE_SEC = 0.5
"""A first signal that the event loop has not seen for this long is logged by the watchdog."""
ANSWER_SEC = 1.0
"""Time for the event loop to answer before the process is ended."""
ANSWER_CHECKS = 10
"""The wait for an answer is split into this many steps, so that a pause of the whole process does
not count as silence.
"""
CATCH_UP_SEC = 5.0
"""Longest wait of an ending service for the watchdog to read earlier signals."""
_STOP, _LEFT, _CATCH_UP = 0, 255, 254
"""Written to the descriptor in place of a signal: end the watchdog; the last service has returned
because of a signal; confirm that everything before is read.
"""
_HANDLED = 128
"""Added to the number of a signal that its handler writes to the descriptor."""

OnSignal = Callable[[signal.Signals], None]


@dataclass(frozen=True, slots=True, eq=False)
class SignalListener:
    """A service that receives signals."""

    loop: asyncio.AbstractEventLoop
    on_signal: OnSignal
    on_first_signal: OnSignal
    patience_sec: float
    abort_sec: float


class Watchdog(threading.Thread):
    """Thread that reads the wake-up descriptor, and ends the process when its time is up."""

    signalled = False
    """Whether a signal has arrived."""

    def __init__(
        self, listeners: Sequence[SignalListener], handler: Callable[[int, object], None]
    ) -> None:
        """``listeners`` are the services that receive signals now; ``handler`` is the signal
        handler.
        """
        super().__init__(name="flowkit signals", daemon=True)
        self._listeners = listeners
        self._handler = handler
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._old_handlers: dict[signal.Signals, Any] = {}
        self._forward_to = -1
        self._return_sec: float | None = None
        self._caught_up = threading.Event()
        self._last = self._count = 0
        """The number of the last signal, and how many have arrived."""
        self._unhandled = Counter[int]()
        """Signals read from the descriptor whose handler has not run yet."""
        self._patient_until = 0.0
        self._due: float | None = None
        """The time at which to end the process or check the event loop; None: never."""
        self._final = False
        """True: the process is ended when the time is up, even if the event loop answers."""

    def install(self) -> None:
        """Install the signal handler and the wake-up descriptor, and start the thread."""
        self._forward_to = self.set_descriptor()
        for number in NUMBERS:
            if number == HANGUP and signal.getsignal(number) != signal.SIG_DFL:
                continue  # nohup ignores it, and a program may reload its configuration
            self._old_handlers[number] = signal.signal(number, self._handler)
            if hasattr(signal, "siginterrupt"):
                signal.siginterrupt(number, False)
        self.start()

    def set_descriptor(self) -> int:
        """Set the wake-up descriptor, and return the one of before."""
        return signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)

    def handled(self, number: int) -> None:
        """Tell the thread that the handler of a signal runs.

        The signal itself is perhaps not written to this descriptor: an event loop of uvloop sets
        its own when it runs, and resets it when it ends.
        """
        current = self.set_descriptor()
        if current != self._writer.fileno():
            signal.set_wakeup_fd(current, warn_on_full_buffer=False)
            self._forward_to = -1  # the event loop that had it before is closed, or has another
        with contextlib.suppress(BlockingIOError):  # full of signals: the thread counts those
            self._writer.send(bytes([_HANDLED + number]))

    def remove(self) -> None:
        """Restore the handlers and the descriptor of before, and end the thread.

        The descriptor of an event loop that runs since then stays.
        """
        for number, handler in self._old_handlers.items():
            signal.signal(number, handler)
        current = self.set_descriptor()
        is_own = current == self._writer.fileno()
        signal.set_wakeup_fd(self._forward_to if is_own else current, warn_on_full_buffer=False)
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
        for number in self._old_handlers:
            default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, default)
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
                    os.write(self._forward_to, bytes(one for one in data if 0 < one < _HANDLED))
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
                    self._unhandled[number] += 1
                    self._count_signal(number)
                elif self._unhandled[number - _HANDLED]:
                    self._unhandled[number - _HANDLED] -= 1
                elif number - _HANDLED in NUMBERS:
                    self._count_signal(number - _HANDLED)

    def _count_signal(self, number: int) -> None:
        """Set the time at which the process ends after this signal, or end it at once."""
        self._last, self._count = number, self._count + 1
        listeners = tuple(self._listeners)
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
        """Set the time at which the process ends after its last service has returned."""
        self._final = True
        if self._count == 1:
            self._due = (
                None
                if self._return_sec is None
                else max(self._patient_until, time.monotonic() + self._return_sec)
            )

    def _end_or_wait(self) -> None:
        """End the process, or wait ``LINGER_SEC`` longer if the event loop answers."""
        if self._final or not _loops_answer(self._listeners, ANSWER_SEC):
            end_process(
                128 + self._last,
                f"got {signal.Signals(self._last).name}, and does not end by itself",
            )
        self._due, self._final = time.monotonic() + LINGER_SEC, True


def _announce(number: int, listeners: Sequence[SignalListener], patience_sec: float) -> None:
    """Announce a first signal from a thread, because a blocked event loop has not seen it yet."""
    for listener in listeners:
        listener.on_first_signal(signal.Signals(number))
    if not _loops_answer(listeners, NOTICE_SEC):
        logger.error(
            "The event loop of process %d is blocked and has not seen %s. If it stays blocked, the"
            " process is ended in %.0f s; a second signal ends it at once",
            os.getpid(),
            signal.Signals(number).name,
            patience_sec,
            extra={"action": "loop_blocked"},
        )


def _loops_answer(listeners: Sequence[SignalListener], within_sec: float) -> bool:
    """Return whether the event loops of all services answer in time."""
    answers = []
    for loop in {one.loop for one in tuple(listeners)}:
        answer = threading.Event()
        answers.append(answer)
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(answer.set)
    return any(
        all(answer.wait(within_sec / ANSWER_CHECKS) for answer in answers)
        for _ in range(ANSWER_CHECKS)
    )
