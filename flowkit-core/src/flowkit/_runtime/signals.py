"""SIGTERM, SIGINT and SIGHUP for services. SIGHUP acts like SIGTERM, unless the program ignores or
handles it.

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
import os
import signal
import threading
from collections.abc import Iterator

from flowkit._runtime.signal_watchdog import NUMBERS, OnSignal, SignalListener, Watchdog

ABORT_SEC = 0.5
"""Time for a service to hand back its work after a second signal."""
RETURN_SEC = 3.0
"""Least time for a process to end after ``run()`` of its last service has returned because of a
signal.
"""

_listeners: list[SignalListener] = []
"""A process may run a coordinator and workers side by side, but has one handler per signal."""
_watchdog: Watchdog | None = None


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
    listener = SignalListener(
        asyncio.get_running_loop(), on_signal, on_first_signal, patience_sec, abort_sec
    )
    if _watchdog is not None and not _listeners:
        _watchdog.remove()
        _watchdog = None
    if _watchdog is None:
        watchdog = Watchdog(_listeners, _on_signal)
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
        _watchdog.handled(number)
    for listener in tuple(_listeners):
        with contextlib.suppress(RuntimeError):
            listener.loop.call_soon_threadsafe(listener.on_signal, signal.Signals(number))


def keep_descriptor() -> None:
    """Set the wake-up descriptor again after an event loop has reset it at its end.

    Without a watchdog, and outside of the main thread, this function does nothing.
    """
    if _watchdog is not None and threading.current_thread() is threading.main_thread():
        _watchdog.set_descriptor()


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
