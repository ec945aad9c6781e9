"""Faults found in a graph."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from flowkit._json.values import short
from flowkit.errors import Fault

MAX_COMPARISONS = 20_000
"""Maximum number of names compared to find a suggestion.

Finding a similar name is slow. Above this limit, unknown names are reported without a suggestion.
"""


class Faults:
    """Collector of the faults of one graph, without duplicates."""

    def __init__(self) -> None:
        self.found: dict[Fault, None] = {}
        self._comparisons = 0

    def add(self, node_id: str | None, message: str) -> None:
        """Add a fault, unless it was added before."""
        self.found[Fault(node_id, message)] = None

    def suggestion(self, word: str, known: Collection[str], otherwise: str = "") -> str:
        """Return the end of a sentence about an unknown word: a similar one, or ``otherwise``."""
        if known and len(word) <= 200 and self._comparisons < MAX_COMPARISONS:
            self._comparisons += len(known)
            near = get_close_matches(word, known, n=1, cutoff=0.6)
            if near:
                return f"; did you mean {short(near[0])}?"
        return f"; {otherwise}" if otherwise else ""

    def in_order(self, ids: Iterable[str]) -> list[Fault]:
        """Return the faults of the graph, then those of its nodes in document order."""
        places: dict[str | None, int] = {}
        for number, node_id in enumerate(ids):
            places.setdefault(node_id, number)
        return sorted(self.found, key=lambda fault: places.get(fault.node_id, -1))
