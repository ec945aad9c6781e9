"""Exits of the process that foreign code requests in a callback of the event loop.

The event loop does not stop ``SystemExit`` and ``KeyboardInterrupt`` of a callback: they end
``asyncio.run()`` and cancel all tasks. No code can contain that, so it is logged, and the exit
status shows that the process did not end in order.
"""

import asyncio
import logging
import traceback

from flowkit._user_code.foreign_contexts import is_foreign

logger = logging.getLogger(__name__)

FAILED = 1
_REPORTED = "FlowKit: code that it called ended the event loop."

Exit = SystemExit | KeyboardInterrupt


def exit_of(error: BaseException) -> Exit | None:
    """Return the exit in progress when a task gets this ``CancelledError``."""
    context: BaseException | None = error
    while context is not None and not isinstance(context, SystemExit | KeyboardInterrupt):
        context = context.__context__
    return context


def _is_foreign(exits: Exit) -> bool:
    """Return whether the callback that raised this was scheduled by foreign code."""
    owners = (frame.f_locals.get("self") for frame, _ in traceback.walk_tb(exits.__traceback__))
    return any(
        is_foreign(getattr(owner, "_context", None))
        for owner in owners
        if isinstance(owner, asyncio.Handle)
    )


def report_exit(exits: Exit) -> None:
    """Log an exit once if foreign code requested it, and give it a status that is not 0.

    The program's own exits are not changed.
    """
    if _is_foreign(exits):
        report_foreign_exit(exits)


def report_foreign_exit(exits: Exit) -> None:
    """Log an exit that foreign code requested, unless that was done before, and give it a status
    that is not 0.
    """
    if _REPORTED in getattr(exits, "__notes__", ()):
        return
    exits.add_note(_REPORTED)
    shown = f"{type(exits).__name__}({', '.join(map(repr, exits.args))})"
    logger.critical(
        "The event loop is ended by %s of a handler, function or plugin",
        shown,
        extra={"action": "loop_ended"},
    )
    if isinstance(exits, SystemExit) and not exits.code:
        exits.code = FAILED
