"""The system's clock."""

import time
from datetime import datetime

import anyio

from flowkit.protocols import utc


class SystemClock:
    """The :class:`~flowkit.protocols.Clock` of production."""

    def now(self) -> float:
        return time.time()

    def now_dt(self) -> datetime:
        return utc(time.time())

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(max(seconds, 0))
