"""Log lines about failures whose texts may hold payloads."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from flowkit._user_code.containment import loggable

_INSTALLED = (f"{Path(__file__).parents[1]}{os.sep}", f"{Path(os.__file__).parent}{os.sep}")


class PayloadCodecs(Protocol):
    """The plugins of an installation: this module only asks whether they encode payloads."""

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

    If a plugin encodes payloads, both are logged at ``DEBUG`` only: handlers put pieces of their
    input into errors, and what is encrypted in the store should not be readable in a log.
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


def _from_users_code(error: BaseException | None) -> Any:
    """Return what to log of an error: its traceback begins with the first frame of the user's, if
    there is one.
    """
    if error is None:
        return None
    traceback = error.__traceback__
    while traceback is not None and not _is_users(traceback.tb_frame.f_code.co_filename):
        traceback = traceback.tb_next
    return type(error), error, traceback or error.__traceback__


def _is_users(filename: str) -> bool:
    """Whether a file is neither FlowKit's nor of the standard library or another installed
    package.
    """
    return not filename.startswith((*_INSTALLED, "<frozen")) and "site-packages" not in filename
