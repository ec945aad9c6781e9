"""Texts that databases and brokers confuse, and a check that they are kept apart."""

from collections.abc import Awaitable, Callable, Sequence

ENDINGS = ("e", "E", "e ", "é", "e\u0301", "%", "_", "*")

Keep = Callable[[str, int], Awaitable[object]]
"""Function that stores a number under a text."""
Find = Callable[[str], Awaitable[Sequence[int]]]
"""Function that returns the numbers stored under a text."""
Forget = Callable[[str], Awaitable[object]]
"""Function that deletes the numbers stored under a text."""


def similar_texts(unique: str) -> list[str]:
    """Return texts that a store may confuse.

    They differ by case, spaces, accents, Unicode normal form or the way a number is written, or one
    is a pattern that matches another.
    """
    number = int(unique, 16)
    return [*(f"{unique}{ending}" for ending in ENDINGS), f" {unique}e", f"{number}", f"0{number}"]


async def assert_kept_apart(
    unique: str, keep: Keep, find: Find, forget: Forget | None = None
) -> None:
    """Store a number under each of the similar texts, and check that each is found, and deleted,
    under its own text only.
    """
    texts = similar_texts(unique)
    for number, text in enumerate(texts):
        assert list(await find(text)) == [], (
            f"found under {text!r} before anything was stored there"
        )
        await keep(text, number)
    for number, text in enumerate(texts):
        assert list(await find(text)) == [number], f"found under {text!r}"
    for number, text in enumerate(texts if forget is not None else ()):
        assert list(await find(text)) == [number], f"found under {text!r} after others were deleted"
        assert forget is not None
        await forget(text)
        assert list(await find(text)) == [], f"found under {text!r} after it was deleted"
