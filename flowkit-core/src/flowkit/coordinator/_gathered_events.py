"""Events that come in one by one and are reported together."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice

from anyio.abc import TaskGroup

from flowkit._engine import Event
from flowkit._user_code.containment import awaited
from flowkit.coordinator._logged_failures import failures_logged

MOST_AT_ONCE = 200
"""Tasks whose events are reported together."""


class GatheredEvents:
    """Reports events beside the other work. Those that come in while others are reported are
    reported together after them, in one commit.

    A report that fails is logged: the wake-up of the task, or the check of what it waits for, leads
    to the same event again.
    """

    def __init__(
        self,
        *,
        group: TaskGroup,
        report: Callable[[Mapping[str, Sequence[Event]]], Awaitable[None]],
        leaving: Callable[[], bool],
        message: str,
    ) -> None:
        """``message`` is logged if a report fails. ``leaving`` returns True while the coordinator
        cancels what it runs.
        """
        self._group = group
        self._report = report
        self._leaving = leaving
        self._message = message
        self._events: dict[str, list[Event]] = {}
        self._is_reporting = False

    def add(self, task_id: str, *events: Event) -> None:
        """Report events of a task soon, after those that were added before."""
        self._events.setdefault(task_id, []).extend(events)
        if not self._is_reporting:
            self._is_reporting = True
            self._group.start_soon(self._report_all)

    async def _report_all(self) -> None:
        try:
            while self._events:
                some = dict(islice(self._events.items(), MOST_AT_ONCE))
                for task_id in some:
                    del self._events[task_id]
                names = ", ".join(some)[:200]
                with failures_logged(self._message, action="report_lost", task_id=names):
                    await awaited(self._report(some), ending=self._leaving)
        finally:
            self._is_reporting = False
