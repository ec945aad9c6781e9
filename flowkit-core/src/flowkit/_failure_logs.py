"""Log lines about failures whose texts may hold payloads."""

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flowkit._containment import loggable

if TYPE_CHECKING:
    from flowkit.plugins import Plugins


def log_failure(
    logger: logging.Logger,
    plugins: "Plugins",
    message: str,
    *args: object,
    text: str,
    error: BaseException | None = None,
    level: int = logging.WARNING,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log a failure with the text and the traceback of its error.

    If a plugin encodes payloads, both are logged at ``DEBUG`` only: handlers put pieces of their input into errors, and what is
    encrypted in the store should not be readable in a log.
    """
    if plugins.encodes_payloads:
        logger.log(level, message, *args, extra=extra, stacklevel=2)
        level = logging.DEBUG
    if logger.isEnabledFor(level):
        logger.log(level, f"{message}: %s", *args, text, exc_info=loggable(error), extra=extra, stacklevel=2)
