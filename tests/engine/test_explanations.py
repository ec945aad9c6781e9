"""The sentences that say why a node is not running, for states of a task that are hard to reach."""

from flowkit._tasks.explanations import explain_node
from tests.engine.drive import Play, graph

OPTIONAL = {"optional": True}


def explained(play: Play, name: str) -> str:
    index = play.index(name)
    return explain_node(play.task, index, play.task.records, now=play.now)


def test_a_node_that_waits_for_ends_names_the_parents_that_have_not_ended():
    play = Play(graph("a b c -> d", on_node_failure="continue", d={"fan_in": "ended"}))
    play.breaks("a")
    assert explained(play, "d") == "'d' waits for the end of 'b', 'c'."


def test_a_node_that_failed_before_its_first_attempt_says_so():
    play = Play(graph("a", a={"when": "vars.x > 1"}))
    play.condition("a", error="there is no key 'x'")
    assert explained(play, "a") == (
        "'a' failed before its first attempt (bad_condition: there is no key 'x')."
    )


def test_an_optional_failure_and_the_nodes_skipped_without_its_data_are_explained():
    play = Play(graph("a -> b", "e -> o", "o -> p", a=OPTIONAL, e=OPTIONAL, o=OPTIONAL))
    play.breaks("a")
    assert explained(play, "a") == (
        "'a' failed after 1 attempt (boom: it broke). It is optional, so the task goes on without"
        " its data."
    )
    assert explained(play, "b") == (
        "'b' was skipped: its parents ended without data, and 'a' is optional and failed."
    )


def test_a_count_that_an_optional_failure_leaves_short_is_explained():
    optional = {"a": OPTIONAL, "c": {"fan_in": "count:2"}}
    play = Play(graph("a b -> c", **optional))
    play.breaks("a")
    play.starts("b")
    play.succeeds("b")
    assert explained(play, "c") == (
        "'c' was skipped: too few of its parents ended with data, and 'a' is optional and failed."
    )


def test_the_failure_above_an_optional_node_is_named_for_it_and_not_below_it():
    play = Play(graph("e -> a", "a -> b", on_node_failure="continue", a=OPTIONAL))
    play.breaks("e")
    assert explained(play, "a") == "'a' was skipped because 'e', which it depends on, failed."
    assert explained(play, "b") == (
        "'b' was skipped: its parents ended without data, and 'a' is optional and was skipped"
        " because of a failure."
    )


def test_a_node_that_waits_for_a_place_names_max_parallel():
    play = Play(graph("a b c", max_parallel=2))
    assert explained(play, "c") == "'c' waits because max_parallel nodes (2) are in flight."


def test_a_reader_that_leaves_the_last_place_to_its_source_says_so():
    play = Play(graph("a => b", max_parallel=1))
    play.stores_a_batch("a")
    assert explained(play, "b") == "'b' waits because max_parallel nodes (1) are in flight."
    play.fails("a")
    assert explained(play, "b") == (
        "'b' reads from nodes that are not in flight, and leaves them the last place: max_parallel"
        " is 1."
    )


OVER_ARTIFACTS = {"map": {"over": {"artifacts": "p"}}}


def test_a_reader_that_is_stopped_without_data_and_the_children_of_a_map_say_why():
    play = Play(graph("p -> m", p=OPTIONAL, m=OVER_ARTIFACTS))
    play.stores_a_batch("p")
    play.grows("m", 2)
    play.starts("m[0]")
    play.breaks("p")
    why = "the parents of 'm' ended without data"
    assert explained(play, "m") == (
        f"'m' is being cancelled: {why}. 1 of its 2 children have not ended."
    )
    assert explained(play, "m[1]") == f"'m[1]' was cancelled: {why}."
    play.stops("m[0]")
    assert explained(play, "m") == (
        "'m' was skipped: its parents ended without data, and 'p' is optional and failed."
    )


def test_a_map_that_a_failure_stopped_and_its_children_name_the_failed_parent():
    play = Play(graph("p -> m", on_node_failure="continue", m=OVER_ARTIFACTS))
    play.stores_a_batch("p")
    play.grows("m", 1)
    play.breaks("p")
    for name in ("m", "m[0]"):
        assert explained(play, name) == (
            f"{name!r} was cancelled: 'p', which 'm' depends on, failed."
        )


def test_a_child_that_was_stopped_because_its_map_fails_says_why_the_map_fails():
    play = Play(graph("p -> m", m=OVER_ARTIFACTS))
    play.stores_a_batch("p")
    play.grows("m", 2)
    play.starts("m[0]")
    play.map_fails("m", "map_too_large")
    assert explained(play, "m[1]") == (
        f"'m[1]' was cancelled: 'm' fails with map_too_large: {play.record('m').error}."
    )
