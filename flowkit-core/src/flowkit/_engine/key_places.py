"""Places of concurrency keys, rates and the keys of caches: who holds them, and who gets those that
are free.

A rate is a key whose places come back by time. An attempt holds a place from the grant until it is
known to have begun. From then on it counts as begun, for as long as the window of the rate.

The key of a cache has one place, and its holder computes the value that is stored in it.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple


class Claimant(NamedTuple):
    """Claim of a node or task to a place of a key, or of a node to one of a rate."""

    task_id: str
    node: int
    """Index of the node, or ``WHOLE_TASK``."""
    number: int
    """Number of the claim among those of the node or task."""


class Holder(NamedTuple):
    """Holder of a place, since a time."""

    claimant: Claimant
    since: float


class Candidate(NamedTuple):
    """Claim that asks for a place, in the order in which places are given."""

    is_patient: bool
    """It waits until a holder ends. Others come before it, because the place is freed for them:
    claims that have the task of the oldest holder cancelled; and claims to the key of a cache by
    nodes that run in the place of a key, because the holder may wait for that one.
    """
    minus_priority: int
    asked_at: float
    claimant: Claimant
    limit: int
    """Most holders that the claim allows, itself included."""
    per_sec: float | None = None
    """For a rate: the time in which at most ``limit`` attempts begin."""

    def fits(self, held: int, begun: int) -> bool:
        """Return whether there is a free place for the claim."""
        if self.per_sec is None:
            return held < self.limit
        return held < min(self.limit - begun, MOST_UNBEGUN)


class Begun(NamedTuple):
    """Attempts that began in the window of a rate."""

    name: str
    """Unique name. Each coordinator counts the time from when it first saw it."""
    at: float
    """Time at which that was known."""
    attempts: int


class Value(NamedTuple):
    """Result that is stored under the key of a cache, until a time."""

    result: Any
    until: float


class KeyState(NamedTuple):
    """State of a key, a rate or the key of a cache. ``contended``: there may be claims in its
    queue.
    """

    holders: tuple[Holder, ...] = ()
    contended: bool = False
    begun: tuple[Begun, ...] = ()
    """For a rate: attempts that began in the window, in the order in which that was known."""
    window_sec: float = 0.0
    """The longest ``per_sec`` of the claims since the record exists."""
    value: Value | None = None
    """For the key of a cache: the result that is stored."""
    stale: bool = False
    """For the key of a cache: the result that is computed now is not to be stored."""
    left: tuple[tuple[str, int], ...] = ()
    """For batches of claims in the queue, how many of the first claims of each have left it."""

    @property
    def is_unused(self) -> bool:
        """Whether the record is not needed any more."""
        return not (self.holders or self.contended or self.begun)

    def holds(self, claimant: Claimant) -> bool:
        """Return whether a claim has a place."""
        return claimant in [holder.claimant for holder in self.holders]

    def without(self, claimants: Collection[Claimant]) -> "KeyState":
        """Return the state after these claims have given their places back."""
        kept = [holder for holder in self.holders if holder.claimant not in claimants]
        return self.held_by(kept) if len(kept) < len(self.holders) else self

    def held_by(self, holders: Collection[Holder]) -> "KeyState":
        """Return the state with these holders. This is faster than ``_replace``."""
        _, contended, begun, window_sec, value, stale, left = self
        return KeyState(tuple(holders), contended, begun, window_sec, value, stale, left)

    def after(
        self, returned: Collection[Claimant], values: Mapping[Claimant, Value], now: float
    ) -> "KeyState":
        """Return the state after these claims have given their places back, some with a value. A
        value that has expired is gone.
        """
        kept = self.without(returned) if returned and self.holders else self
        if self.value is None and not values and not self.stale:
            return kept
        if self.value is not None and self.value.until <= now:
            kept = kept._replace(value=None)
        for claimant, value in values.items():
            if self.holds(claimant) and not self.stale:
                kept = kept._replace(value=value)
        return kept if kept.holders or not kept.stale else kept._replace(stale=False)

    def forgotten(self) -> "KeyState":
        """Return the state without its value, and without the one that is computed now."""
        return self._replace(value=None, stale=bool(self.holders))

    def with_begun(self, one: Begun) -> "KeyState":
        """Return the state after attempts began. The list is kept short: those closest together
        count as if they had begun at the later of both times.
        """
        begun = [*self.begun, one]
        if len(begun) > MOST_TIMES:
            gaps = [later.at - earlier.at for earlier, later in pairwise(begun)]
            place = gaps.index(min(gaps))
            earlier, later = begun[place : place + 2]
            together = earlier.attempts + later.attempts
            begun[place : place + 2] = [later._replace(attempts=together)]
        return self._replace(begun=tuple(begun))


FREE = KeyState()
"""State of a key or a rate that is not stored."""
TURN_SEC = 30.0
"""Time that the holder of the key of a cache has to get its concurrency key, before another one may
compute the result. If all of them wait for their keys, they take turns, and no faster than this.
"""
MOST_UNBEGUN = 200
"""Places of a rate that attempts hold at a time before they begin. It bounds the record."""
MOST_TIMES = 100
"""Times that the record of a rate distinguishes."""


def none_begun(per_sec: float) -> int:
    """Return the number of attempts that began in a time, for a key: its places do not count."""
    return 0


def admit(
    state: KeyState,
    candidates: Collection[Candidate],
    now: float,
    begun: Callable[[float], int] = none_begun,
) -> tuple[KeyState, Sequence[Candidate], Sequence[Candidate]]:
    """Give the free places to candidates in their order. Return the new state, the candidates that
    have a place, and the others. ``begun`` returns how many attempts began in the last seconds.

    The limit of the first candidate without a place decides: no later one passes it.
    """
    if not candidates:
        return state, (), ()
    in_order = sorted(candidates) if len(candidates) > 1 else list(candidates)
    holders = list(state.holders)
    admitted: list[Candidate] = []
    left: list[Candidate] = []
    holding = {holder.claimant for holder in holders}
    for place, one in enumerate(in_order):
        if one.claimant in holding:
            admitted.append(one)
        elif one.fits(len(holders), begun(one.per_sec or 0.0)):
            holders.append(Holder(one.claimant, now))
            holding.add(one.claimant)
            admitted.append(one)
        else:
            left = in_order[place:]
            break
    after = state.held_by(holders) if len(holders) > len(state.holders) else state
    return after, admitted, left
