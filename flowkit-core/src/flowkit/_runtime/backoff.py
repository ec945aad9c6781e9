"""How long to wait before trying again."""

FIRST_PAUSE_SEC = 0.05
LONGEST_PAUSE_SEC = 5.0


class Backoff:
    """Pauses that double up to a longest one."""

    def __init__(
        self, *, first_sec: float = FIRST_PAUSE_SEC, longest_sec: float = LONGEST_PAUSE_SEC
    ) -> None:
        self._next = first_sec
        self._longest = longest_sec

    def next_sec(self) -> float:
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return pause
