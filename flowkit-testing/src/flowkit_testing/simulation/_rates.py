"""The rule of rates, over all handlers that really begin, by the clock of the simulation."""

from flowkit.graph import RateLimit

ROUNDING_SEC = 1e-6


class RateLedger:
    """The times at which attempts with a rate began."""

    def __init__(self) -> None:
        self._times: dict[str, list[float]] = {}
        self.fault: str | None = None
        """The first rate of which too many attempts began, with their times."""

    def began(self, rate: RateLimit, at: float, what: str) -> None:
        """Record that an attempt begins."""
        since = at - rate.per_sec + ROUNDING_SEC
        times = self._times.setdefault(rate.key, [])
        times.append(at)
        window = [time for time in times if time > since]
        if len(window) > rate.limit and self.fault is None:
            self.fault = (
                f"rate {rate.key!r} ({rate.limit} in {rate.per_sec:g} s) is exceeded by {what}:"
                f" attempts began at {window}"
            )
