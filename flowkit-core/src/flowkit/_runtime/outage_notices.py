"""Log lines about outages: one at the beginning, one per minute, and one at the end."""

import logging
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from flowkit._user_code.containment import loggable, message, origin
from flowkit.protocols import Clock

EVERY_SEC = 60.0
SAME_TROUBLE_SEC = 5.0
"""An outage that returns within this time is the same one: its end and return are not logged."""


@dataclass(slots=True)
class _Trouble:
    what: str
    since: float
    logged_at: float
    over_at: float | None = None
    announced: bool = True


class Notices:
    """Log lines about outages: at the beginning, at most once per minute, and at the end."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._troubles: dict[Hashable, _Trouble] = {}
        self.open: set[Hashable] = set()
        """Causes of the outages that are not over. If it is empty, there is no need to call
        :meth:`over`.
        """

    def trouble(
        self,
        logger: logging.Logger,
        cause: Hashable,
        what: str,
        error: object = None,
        *,
        action: str,
        level: int = logging.WARNING,
        **extra: Any,
    ) -> None:
        """Log ``what`` and the error if this cause is new, or was last logged a minute ago.

        An exception is logged with its traceback if the level is ERROR or higher.
        """
        now = self._monotonic()
        self.open.add(cause)
        trouble = self._troubles.get(cause)
        if trouble is None or (
            trouble.over_at is not None and now - trouble.over_at >= SAME_TROUBLE_SEC
        ):
            self._troubles[cause] = trouble = _Trouble(what, since=now, logged_at=now)
        else:
            if trouble.over_at is not None:
                trouble.over_at, trouble.announced = None, False
            if now - trouble.logged_at < EVERY_SEC:
                return
            trouble.logged_at, trouble.announced = now, True
        lasting = f" (for {now - trouble.since:.0f} s)" if now > trouble.since else ""
        shown = (
            ""
            if error is None
            else f": {message(origin(error)) if isinstance(error, BaseException) else error}"
        )
        traceback = (
            loggable(error) if level >= logging.ERROR and isinstance(error, BaseException) else None
        )
        logger.log(
            level,
            "%s%s%s",
            what,
            lasting,
            shown,
            exc_info=traceback,
            extra={"action": action, **extra},
        )

    def over(self, logger: logging.Logger, cause: Hashable) -> None:
        """Log the end of this trouble, if there was any."""
        if cause not in self.open:
            return
        self.open.discard(cause)
        trouble = self._troubles[cause]
        trouble.over_at = self._monotonic()
        if trouble.announced:
            lasted = trouble.over_at - trouble.since
            logger.info(
                "Over after %.0f s: %s", lasted, trouble.what, extra={"action": "trouble_over"}
            )


_of_clocks: WeakKeyDictionary[Clock, Notices] = WeakKeyDictionary()


def notices_of(clock: Clock) -> Notices:
    """Return the notices of all parts of a process that share this clock."""
    notices = _of_clocks.get(clock)
    if notices is None:
        notices = _of_clocks[clock] = Notices(clock.monotonic)
    return notices
