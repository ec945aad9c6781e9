"""Log lines about failures whose texts may contain payloads."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from flowkit._user_code.containment import bounded_traceback, loggable, origin

_INSTALLED = (f"{Path(__file__).parents[1]}{os.sep}", f"{Path(os.__file__).parent}{os.sep}")


class PayloadCodecs(Protocol):
    """Plugins of an installation, which may encode payloads."""

    @property
    def encodes_payloads(self) -> bool: ...


def log_failure(
    logger: logging.Logger,
    plugins: PayloadCodecs,
    message: str,
    *args: object,
    text: str,
    error: BaseException | None = None,
    level: int = logging.WARNING,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log a failure with the text and the traceback of its error.

    If a plugin encodes payloads, both are logged at ``DEBUG`` only: handlers put parts of their
    input into errors, and data that is encrypted in the store must not be readable in a log.
    """
    if plugins.encodes_payloads:
        logger.log(level, message, *args, extra=extra, stacklevel=2)
        level = logging.DEBUG
    if logger.isEnabledFor(level):
        logger.log(
            level,
            f"{message}: %s",
            *args,
            text,
            exc_info=_from_users_code(loggable(error)),
            extra=extra,
            stacklevel=2,
        )


def users_traceback(error: BaseException) -> str:
    """Return the traceback of an error as text. It begins with the user's first frame, if any."""
    error = origin(error)
    return bounded_traceback(error, _users_frames(error)).removesuffix("\n")


def _from_users_code(error: BaseException | None) -> Any:
    """Return the error to log. Its traceback begins with the user's first frame, if any."""
    return None if error is None else (type(error), error, _users_frames(error))


def _users_frames(error: BaseException) -> TracebackType | None:
    """Return the frames of an error from the user's first one on; all if none is the user's."""
    frames = error.__traceback__
    while frames is not None and not is_users(frames.tb_frame.f_code.co_filename):
        frames = frames.tb_next
    return frames or error.__traceback__


def is_users(filename: str) -> bool:
    """Return whether a file belongs to the user.

    Files of FlowKit, of the standard library and of other installed packages do not.
    """
    return not filename.startswith((*_INSTALLED, "<frozen")) and "site-packages" not in filename
