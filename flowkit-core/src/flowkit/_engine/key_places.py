"""Places of concurrency keys: who holds them, and who gets those that are free."""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class Claimant(NamedTuple):
    """Claim of a node or task to a place of a key."""

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

    minus_priority: int
    asked_at: float
    claimant: Claimant
    limit: int
    """Most holders that the claim allows, itself included."""
    cancels: bool = False
    """The task of the oldest holder is cancelled if no place is free."""


class KeyState(NamedTuple):
    """State of a key. ``contended``: there may be claims in its queue."""

    holders: tuple[Holder, ...] = ()
    contended: bool = False

    def holds(self, claimant: Claimant) -> bool:
        """Return whether a claim has a place."""
        return any(holder.claimant == claimant for holder in self.holders)

    def without(self, claimants: Collection[Claimant]) -> "KeyState":
        """Return the state after these claims have given their places back."""
        kept = (holder for holder in self.holders if holder.claimant not in claimants)
        return self._replace(holders=tuple(kept))


FREE = KeyState()
"""State of a key that is not stored."""


def admit(
    state: KeyState, candidates: Iterable[Candidate], now: float
) -> tuple[KeyState, Sequence[Candidate], Sequence[Candidate]]:
    """Give the free places to candidates in their order. Return the new state, the candidates that
    have a place, and the others.

    The limit of the first candidate without a place decides: no later one passes it.
    """
    holders, admitted = list(state.holders), []
    in_order = sorted(candidates)
    for place, one in enumerate(in_order):
        if any(holder.claimant == one.claimant for holder in holders):
            admitted.append(one)
        elif len(holders) < one.limit:
            holders.append(Holder(one.claimant, now))
            admitted.append(one)
        else:
            return state._replace(holders=tuple(holders)), admitted, in_order[place:]
    return state._replace(holders=tuple(holders)), admitted, ()
