"""Memory of recent items."""

from flowkit._runtime.concurrency import Recent


def test_the_items_set_last_are_kept() -> None:
    recent: Recent[str, int] = Recent(2)
    for position, key in enumerate("abac"):
        recent[key] = position
    assert dict(recent) == {"a": 2, "c": 3}


def test_an_item_that_is_removed_makes_room() -> None:
    recent: Recent[str, int] = Recent(2)
    recent["a"] = recent["b"] = 1
    assert recent.pop("a") == 1
    recent["c"] = 1
    assert list(recent) == ["b", "c"]
