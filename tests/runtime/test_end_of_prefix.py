"""The end of the range of the texts with a prefix."""

import pytest

from flowkit.adapters import end_of_prefix

LAST = chr(0x10FFFF)


@pytest.mark.parametrize(
    ("prefix", "end"),
    [
        ("", None),
        ("a", "b"),
        ("ab/", "ab0"),
        ("a\ud7ff", "a\ue000"),
        (f"a{LAST}", "b"),
        (f"a{LAST}{LAST}", "b"),
        (LAST, None),
    ],
)
def test_it_is_the_successor_of_the_prefix(prefix: str, end: str | None) -> None:
    assert end_of_prefix(prefix) == end
    for rest in ("", "\x00", LAST):
        assert end is None or f"{prefix}{rest}" < end
