"""Nodes that have got a place of their key, and the limits of the nodes in flight."""

from flowkit._engine import KeyGranted, KeyQueued
from tests.engine.drive import STEADY, Play, effects, graph
from tests.engine.test_maps import mapped

KEYED = {"concurrency_key": "k"}


def queued(play: Play, index: int) -> None:
    """Put a node that asks for its key in the queue."""
    play.do(KeyQueued(index, number(play, index)))


def granted(play: Play, index: int) -> list[str]:
    return effects(play.do(KeyGranted(index, number(play, index))))


def number(play: Play, index: int) -> int:
    claim = play.task.record(index).key
    assert claim is not None
    return claim.number


def test_a_node_that_gets_its_place_starts_although_another_one_asks() -> None:
    play = Play(graph("a b", a=KEYED, b=KEYED, max_parallel=1), keys=False)
    queued(play, 0)
    assert play.marks == "dk"
    assert granted(play, 0) == ["run a"]
    assert play.marks == "qk"
    assert granted(play, 1) == ["return the key of b"]
    assert play.marks == "qr"
    assert effects(play.succeeds("a")) == ["return the key of a", "ask for the key of b"]
    assert granted(play, 1) == ["run b"]


def test_a_node_of_the_window_starts_although_another_one_asks() -> None:
    play = Play(graph("a b", a=KEYED, b=KEYED), keys=False, max_in_flight=1)
    queued(play, 0)
    assert granted(play, 0) == ["run a"]
    assert granted(play, 1) == ["return the key of b"]
    assert play.marks == "qr"


def test_a_child_that_gets_its_place_starts_although_another_one_asks() -> None:
    play = Play(graph("m", m=mapped(max_parallel=1) | KEYED), keys=False)
    play.opens("m", 2)
    first, second = play.task.children_of(0)
    queued(play, first)
    assert play.marks == "mdk"
    assert granted(play, first) == ["run m[0]"]
    assert granted(play, second) == ["return the key of m[1]"]
    assert play.marks == "mqr"
    play.succeeds("m[0]")
    assert granted(play, second) == ["run m[1]"]


def test_readers_leave_the_last_place_to_a_source_that_only_asks() -> None:
    keyed = {**KEYED, "retry_policy": STEADY}
    play = Play(graph("a => b c", max_parallel=2, a=keyed, b=keyed, c=keyed), keys=False)
    granted(play, 0)
    play.stores_a_batch("a")
    queued(play, 1)
    queued(play, 2)
    play.fails("a")
    assert effects(play.later(10)) == ["ask for the key of a"]
    assert granted(play, 1) == ["run b"]
    assert granted(play, 2) == ["return the key of c"]
    assert play.marks == "kqr"
    assert granted(play, 0) == ["run a"]
