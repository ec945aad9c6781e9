"""Log lines about trouble that lasts: one when it begins, one a minute while it goes on, one when it is over."""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

EVERY_SEC = 60.0


@dataclass(slots=True)
class _Trouble:
    since: float
    logged: float
    what: str


class Notices:
    """Counts as one trouble what has one cause, and logs it at the change and then at most once a minute."""

    def __init__(self, logger: logging.Logger, monotonic: Callable[[], float]) -> None:
        self._logger = logger
        self._monotonic = monotonic
        self._troubles: dict[Hashable, _Trouble] = {}

    def warn(self, cause: Hashable, what: str, error: object = "", *, action: str, **extra: Any) -> None:
        """Log ``what``, with the error, unless this cause was logged within the last minute."""
        now = self._monotonic()
        trouble = self._troubles.get(cause)
        if trouble is not None and now - trouble.logged < EVERY_SEC:
            return
        if trouble is None:
            self._troubles[cause] = trouble = _Trouble(now, now, what)
        trouble.logged = now
        lasting = f" (for {now - trouble.since:.0f} s)" if now > trouble.since else ""
        text = f"{what}{lasting}: {error}" if error else f"{what}{lasting}"
        self._logger.warning("%s", text, extra={"action": action, **extra})

    def over(self, cause: Hashable, *, action: str = "trouble_over", **extra: Any) -> None:
        """Log that a trouble is over, if there was one."""
        trouble = self._troubles.pop(cause, None)
        if trouble is not None:
            self._logger.info("Over after %.0f s: %s", self._monotonic() - trouble.since, trouble.what, extra={"action": action, **extra})
