"""Searches for a part of a text in linear time.

Python searches short texts, and the ends of long ones, by comparing the part at each place, and
backwards it always does. For a long part that takes the product of both lengths in one call, which
holds up the interpreter. So a long part is only searched forwards, and in a text so long that
Python uses its linear method.
"""

from flowkit._expressions.budget import CHARACTERS_A_STEP, Budget

LONG_PART = 2_500
"""Comparing a part up to this length at each place where Python may do so takes about a
millisecond.
"""
PLACES_AT_END = 2_000
"""In a long text, Python may compare the part at each of so many last places."""
COMPARISONS_A_STEP = 512


def charge_search(budget: Budget, text: str, part: str) -> None:
    """Charge the longest search for a part, or for all places of it."""
    budget.scan_text(len(text))
    budget.spend(search_steps(len(text), len(part)))


def search_steps(length: int, part: int) -> int:
    """The steps that a search takes at worst, reading the text once not included."""
    places = length - part + 1
    if places <= 0 or part <= 1:
        return 0
    if part > LONG_PART:
        return 5 * part // CHARACTERS_A_STEP
    short = length < LONG_PART or part < 6 or (part < 100 and length < 30_000)
    return (
        part // CHARACTERS_A_STEP
        + part * (places if short else min(places, PLACES_AT_END)) // COMPARISONS_A_STEP
    )


def find(text: str, part: str, start: int) -> int:
    """Return the first place of a part from ``start`` on, or -1."""
    rest = len(text) - start
    if len(part) <= LONG_PART or rest >= 4 * len(part) or rest < len(part):
        return text.find(part, start)
    # A match that reaches into the added characters begins after all others.
    found = (text[start:] + "\0" * (4 * len(part))).find(part)
    return start + found if 0 <= found <= rest - len(part) else -1


def find_last(text: str, part: str) -> int:
    """Return the last place of a part, or -1."""
    found = find(text[::-1], part[::-1], 0)
    return -1 if found < 0 else len(text) - len(part) - found


def count_at_most(text: str, part: str) -> int:
    """Return how often a part is in a text, or more if the part is long."""
    return text.count(part) if len(part) <= LONG_PART else len(text) // len(part)


def split(text: str, separator: str, most: int) -> list[str]:
    """Split a text at the first ``most`` places of a separator."""
    if len(separator) <= LONG_PART:
        return text.split(separator, most)
    pieces: list[str] = []
    start = 0
    while len(pieces) < most and (place := find(text, separator, start)) >= 0:
        pieces.append(text[start:place])
        start = place + len(separator)
    return [*pieces, text[start:]]
