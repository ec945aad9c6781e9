"""The proof that a coordinator has read the reports of workers, before a time limit ends a run."""

import math
from collections.abc import Awaitable, Callable

from flowkit._runtime.concurrency import within
from flowkit.coordinator._worker_watch import WorkerWatch
from flowkit.errors import FlowKitError
from flowkit.protocols import Clock

PROOF_SEC = 2.0
"""Time for a proof. The wake-ups of other tasks wait for it."""


class Hearing:
    """Knows since when this coordinator hears the workers.

    A report cannot arrive while the store accepts no changes, while the bus is away, and while no
    coordinator runs. Without this, a run would exceed its time limit although its heartbeat, or
    even its success, only waits.
    """

    def __init__(
        self,
        *,
        watch: WorkerWatch,
        clock: Clock,
        longest_sec: float,
        read_reports: Callable[[], Awaitable[object]],
    ) -> None:
        """``read_reports`` returns when the reports that are on the bus were read. If they cannot
        be read for ``longest_sec``, limits apply without them.
        """
        self._watch = watch
        self._clock = clock
        self._longest_sec = longest_sec
        self._read_reports = read_reports
        self._read_since = clock.now()
        self._unread_since = math.inf

    @property
    def since(self) -> float:
        """The time since which no report was delayed by an outage."""
        # The clock may have been set back.
        return min(max(self._watch.accepted_since, self._read_since), self._clock.now())

    async def prove(self) -> None:
        """Prove that this coordinator hears the workers. Otherwise it hears them from now on."""
        if not await self._in_time(self._watch.renew_session):
            self._read_since = self._clock.now()
        elif await self._in_time(self._read_reports):
            self._unread_since = math.inf
        else:
            now = self._clock.now()
            self._unread_since = min(self._unread_since, now)
            if now - self._unread_since < self._longest_sec:
                self._read_since = now

    async def _in_time(self, call: Callable[[], Awaitable[object]]) -> bool:
        try:
            return await within(PROOF_SEC, call, clock=self._clock)
        except FlowKitError:
            return False
