"""Windows of rates: how many attempts began in the last seconds, as one coordinator has seen it."""

from collections.abc import Callable, Sequence

from flowkit._engine.key_places import Begun, Candidate, KeyState
from flowkit.clock import LONGEST_ANSWER_SEC, StoreClock
from flowkit.coordinator._key_work import KeyWork
from flowkit.protocols import Clock

SLACK_SEC = 0.001
"""Added to the time of a timer, because two clocks are rounded differently."""


class RateWindows:
    """Times at which this coordinator first saw that attempts had begun, by its monotonic clock.

    An attempt has begun before any coordinator sees that, so a place that is counted from then
    comes back too late rather than too early, even if the clocks of the processes disagree. Where
    all of them use the clock of the store's server, the stored times count: then a new coordinator
    does not wait for a whole window.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[str, dict[str, float]] = {}
        """For each rate that is in use, the times by name."""

    def renewed(
        self, key: str, state: KeyState, work: KeyWork, queue: Sequence[Candidate], name: str
    ) -> KeyState:
        """Return the state of a rate without attempts that are older than its window, and with
        those that are newly known to have begun, under this name.
        """
        now, known = self._clock.monotonic(), self._seen.pop(key, {})
        claims = [*queue, *(ask.candidate for ask in work.asks)]
        window = max([state.window_sec, *(one.per_sec or 0.0 for one in claims)])
        seen = {one.name: known.get(one.name, now - self._age(one)) for one in state.begun}
        kept = tuple(one for one in state.begun if now - seen[one.name] < window)
        state = state._replace(begun=kept, window_sec=window)
        if count := sum(holder.claimant in work.begun for holder in state.holders):
            state = state.with_begun(Begun(name, self._clock.now(), count))
            seen[name] = now
        if state.begun:
            self._seen[key] = seen
        return state

    def counter(self, key: str, state: KeyState) -> Callable[[float], int]:
        """Return a function that counts the attempts that began in the last seconds."""
        now, seen = self._clock.monotonic(), self._seen.get(key, {})
        return lambda per_sec: sum(
            one.attempts for one in state.begun if now - seen[one.name] < per_sec
        )

    def next_at(self, key: str, state: KeyState, waiting: Candidate | None) -> float:
        """Return when the next place of a rate becomes free for a claim that waits. If none waits,
        return when the last one does, because then the record is deleted.
        """
        now, seen = self._clock.monotonic(), self._seen[key]
        ages = [now - seen[one.name] for one in state.begun]
        left = state.window_sec - min(ages)
        if waiting is not None and waiting.per_sec is not None:
            per_sec = waiting.per_sec
            left = min((per_sec - age for age in ages if age < per_sec), default=left)
        return self._clock.now() + left + SLACK_SEC

    def _age(self, one: Begun) -> float:
        """Return the least age of attempts that this coordinator sees for the first time. Each of
        two clocks may be wrong by half of the time that a measurement takes.
        """
        if isinstance(self._clock, StoreClock) and self._clock.is_measured:
            return max(self._clock.now() - one.at - LONGEST_ANSWER_SEC, 0.0)
        return 0.0
