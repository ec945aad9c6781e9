"""Text search in linear time.

Python searches short texts, the ends of long texts, and all texts backwards by comparing the part
at each position. For a long part, one call then takes the product of both lengths and blocks the
interpreter. So a long part is only searched forwards, in a text so long that Python uses its linear
method.
"""

from flowkit._expressions.budget import CHARACTERS_A_STEP, Budget

LONG_PART = 2_500
"""Maximum length of a part that may be compared at each position.

This takes about a millisecond at worst.
"""
PLACES_AT_END = 2_000
"""Positions at the end of a long text at which Python may compare the part."""
COMPARISONS_A_STEP = 512


def charge_search(budget: Budget, text: str, part: str) -> None:
    """Charge the longest search for a part, or for all its occurrences."""
    budget.scan_text(len(text))
    budget.spend(search_steps(len(text), len(part)))


def search_steps(length: int, part: int) -> int:
    """Return the steps of the longest search, without reading the text once."""
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
    """Return the first position of a part from ``start`` on, or -1."""
    rest = len(text) - start
    if len(part) <= LONG_PART or rest >= 4 * len(part) or rest < len(part):
        return text.find(part, start)
    # A match that extends into the padding starts after all others.
    found = (text[start:] + "\0" * (4 * len(part))).find(part)
    return start + found if 0 <= found <= rest - len(part) else -1


def find_last(text: str, part: str) -> int:
    """Return the last position of a part, or -1."""
    found = find(text[::-1], part[::-1], 0)
    return -1 if found < 0 else len(text) - len(part) - found


def count_at_most(text: str, part: str) -> int:
    """Return the number of occurrences of a part, or an upper bound if the part is long."""
    return text.count(part) if len(part) <= LONG_PART else len(text) // len(part)


def split(text: str, separator: str, most: int) -> list[str]:
    """Split a text at the first ``most`` occurrences of a separator."""
    if len(separator) <= LONG_PART:
        return text.split(separator, most)
    pieces: list[str] = []
    start = 0
    while len(pieces) < most and (place := find(text, separator, start)) >= 0:
        pieces.append(text[start:place])
        start = place + len(separator)
    return [*pieces, text[start:]]
