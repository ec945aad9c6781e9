"""Event loop of the services of the command line: uvloop, where it is installed.

uvloop differs in two ways that matter to FlowKit. It resets the wake-up descriptor of
:func:`signal.set_wakeup_fd` when it ends, from which the watchdog learns of signals. And the
traceback of an exit in a callback does not show the context of the callback, so
:func:`report_exit` cannot know who scheduled it.
"""

import inspect
import traceback

import uvloop

from flowkit._runtime.signals import keep_descriptor
from flowkit._user_code.exit_requests import report_foreign_exit

_COROUTINE = inspect.CO_COROUTINE | inspect.CO_ITERABLE_COROUTINE
_HANDLES = "cbhandles.pyx"
_INTERRUPT = "_on_sigint"
"""The signal handler of :class:`asyncio.Runner`, which raises ``KeyboardInterrupt``."""


class ServiceLoop(uvloop.Loop):
    """Event loop that leaves the signals to the watchdog when it ends, and reports exits of
    callbacks.

    FlowKit schedules no callback that exits. So such a callback in a process of FlowKit is that of
    a handler, function or plugin.
    """

    def run_forever(self) -> None:
        try:
            super().run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            if _is_of_callback(error):
                report_foreign_exit(error)
            raise

    def close(self) -> None:
        super().close()
        keep_descriptor()


def _is_of_callback(exits: BaseException) -> bool:
    """Return whether a callback raised this, not a task and not a signal handler."""
    codes = [frame.f_code for frame, _ in traceback.walk_tb(exits.__traceback__)]
    handles = [place for place, code in enumerate(codes) if code.co_filename.endswith(_HANDLES)]
    if not handles:
        return False
    called = codes[handles[-1] + 1 :]
    return not called or not (
        called[0].co_flags & _COROUTINE or any(code.co_name == _INTERRUPT for code in called)
    )
