"""Rate limits of requests."""

from collections import OrderedDict


class RateLimit:
    """Limit of the requests of each key: ``burst`` at once, and ``per_sec`` in the long run.

    A key is kept as the time at which all its requests so far would have come at the even pace
    (the generic cell rate algorithm). At most ``most_keys`` are kept.
    """

    def __init__(self, *, per_sec: float, burst: int, most_keys: int = 10_000) -> None:
        self._interval_sec = 1 / per_sec
        self._ahead_sec = burst / per_sec
        self._most_keys = most_keys
        self._even: OrderedDict[str, float] = OrderedDict()

    def wait_sec(self, key: str, now: float) -> float:
        """Count a request, and return 0; or return how long to wait, and do not count it."""
        even = max(self._even.get(key, now), now) + self._interval_sec
        if (ahead_sec := even - now - self._ahead_sec) > 1e-9:
            return ahead_sec
        self._even[key] = even
        self._even.move_to_end(key)
        if len(self._even) > self._most_keys:
            self._even.popitem(last=False)
        return 0.0
