"""Collecting what is wrong with a graph."""

from collections.abc import Collection, Iterable
from difflib import get_close_matches

from flowkit._json.values import short
from flowkit.errors import Fault

MAX_COMPARISONS = 20_000
"""Looking for a similar name takes a while: after so many comparisons, unknown names are reported
without one.
"""


class Faults:
    """The faults found so far."""

    def __init__(self) -> None:
        self.found: dict[Fault, None] = {}
        self._comparisons = 0

    def add(self, node_id: str | None, message: str) -> None:
        """Note a fault; the same one twice is one."""
        self.found[Fault(node_id, message)] = None

    def suggestion(self, word: str, known: Collection[str], otherwise: str = "") -> str:
        """The end of a sentence about an unknown word: a similar known one, or else what to do."""
        if known and len(word) <= 200 and self._comparisons < MAX_COMPARISONS:
            self._comparisons += len(known)
            near = get_close_matches(word, known, n=1, cutoff=0.6)
            if near:
                return f"; did you mean {short(near[0])}?"
        return f"; {otherwise}" if otherwise else ""

    def in_order(self, ids: Iterable[str]) -> list[Fault]:
        """Those of the graph itself first, then those of its nodes in the order of the document."""
        places: dict[str | None, int] = {}
        for number, node_id in enumerate(ids):
            places.setdefault(node_id, number)
        return sorted(self.found, key=lambda fault: places.get(fault.node_id, -1))
