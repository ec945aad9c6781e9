"""The order of starts: priorities, concurrency keys and the window of running nodes."""

from typing import Any

import pytest

from flowkit.task import NodeStatus, TaskStatus
from tests.engine.drive import FUNCTION, STEADY, Play, graph, started

KEYED: dict[str, Any] = {"concurrency_key": "k"}


def test_the_most_urgent_starts_first_and_the_first_in_the_graph_among_equals():
    play = Play(graph("s -> a b c d", b={"priority": 5}, d={"priority": 5}, a={"priority": -1}))
    assert started(play.succeeds("s")) == ["b", "d", "c", "a"]


def test_no_more_nodes_are_under_way_than_the_window_allows():
    play = Play(graph("s -> a b c d e"), max_in_flight=2)
    assert started(play.succeeds("s")) == ["a", "b"]
    assert started(play.succeeds("b")) == ["c"]
    assert started(play.succeeds("c")) == ["d"]


def test_a_window_of_one_takes_the_most_urgent_at_every_turn():
    play = Play(graph("a b c d", c={"priority": 1}), max_in_flight=1)
    order = [play.marks.index("q")]
    while not play.task.terminal:
        play.succeeds("abcd"[order[-1]])
        order += [index for index, mark in enumerate(play.marks) if mark == "q"]
    assert order == [2, 0, 1, 3]


def test_a_newcomer_that_is_more_urgent_overtakes_those_that_wait():
    play = Play(graph("a b c", "a -> urgent", urgent={"priority": 9}), max_in_flight=1)
    assert started(play.succeeds("a")) == ["urgent"]
    assert started(play.succeeds("urgent")) == ["b"]


def test_a_newcomer_that_is_less_urgent_waits_behind_the_others():
    play = Play(graph("a b c", "a -> later", later={"priority": -9}), max_in_flight=1)
    for name, follower in (("a", "b"), ("b", "c"), ("c", "later")):
        assert started(play.succeeds(name)) == [follower]


def test_a_node_that_is_being_cancelled_is_still_under_way():
    play = Play(graph("a b -> c", c={"fan_in": "any", "on_satisfied": "cancel"}), max_in_flight=2)
    play.starts("b")
    assert started(play.succeeds("a")) == ["c"]
    assert play.status("b") is NodeStatus.CANCELLING
    assert play.task.in_flight == 2


def test_several_that_wait_start_when_the_window_opens():
    play = Play(graph("a b c d e"), max_in_flight=1)
    play.pause()
    play.succeeds("a")
    play.settings = type(play.settings)(max_in_flight=3)
    assert started(play.resume()) == ["b", "c", "d"]
    assert started(play.succeeds("b")) == ["e"]


def test_newcomers_and_those_that_wait_start_in_one_order():
    play = Play(
        graph("a b c d", "a -> x y", x={"priority": 1}, y={"priority": -1}), max_in_flight=1
    )
    play.settings = type(play.settings)(max_in_flight=4)
    assert started(play.succeeds("a")) == ["x", "b", "c", "d"]
    assert started(play.succeeds("d")) == ["y"]


# ---------------------------------------------------------------- max_parallel


def test_at_most_max_parallel_nodes_are_in_flight_by_priority_and_then_in_graph_order():
    play = Play(graph("s -> a b c d", max_parallel=2, c={"priority": 1}))
    assert started(play.succeeds("s")) == ["c", "a"]
    assert started(play.succeeds("a")) == ["b"]
    assert started(play.succeeds("c")) == ["d"]


def test_the_smaller_one_of_max_parallel_and_the_window_limits_the_nodes_in_flight():
    assert Play(graph("a b c d", max_parallel=3), max_in_flight=2).marks == "qqrr"
    assert Play(graph("a b c d", max_parallel=3), max_in_flight=4).marks == "qqqr"


def test_coordinator_functions_count_as_nodes_in_flight():
    play = Play(graph("a b c", max_parallel=2, a=FUNCTION))
    assert play.marks == "uqr"
    assert started(play.returns("a")) == ["c"]


def test_a_node_that_waits_for_its_retry_is_not_in_flight_and_then_waits_for_a_place():
    play = Play(graph("a b c", max_parallel=1, a={"retry_policy": STEADY}))
    assert started(play.fails("a")) == ["b"]
    assert started(play.later(10)) == []
    assert play.marks == "rqr"
    assert started(play.succeeds("b")) == ["a"]


def test_a_node_that_is_being_cancelled_keeps_its_place():
    play = Play(
        graph("a b -> c", "d", max_parallel=2, c={"fan_in": "any", "on_satisfied": "cancel"})
    )
    play.starts("b")
    assert started(play.succeeds("a")) == ["c"]
    assert play.marks == "Fcqr"
    assert started(play.stops("b")) == ["d"]


def test_a_retry_and_a_resumed_task_keep_to_max_parallel():
    play = Play(graph("a b c", max_parallel=1, on_node_failure="continue"))
    play.pause()
    play.breaks("a")
    assert started(play.resume()) == ["b"]
    play.breaks("b")
    play.breaks("c")
    assert (started(play.retry()), play.marks) == (["a"], "qrr")


def test_a_reader_leaves_the_last_place_to_the_node_that_it_reads_from():
    play = Play(graph("a => b", "c", max_parallel=1, a={"retry_policy": STEADY}))
    play.stores_a_batch("a")
    assert play.marks == "urr"
    assert started(play.fails("a")) == ["c"]
    assert started(play.succeeds("c")) == []
    assert started(play.later(10)) == ["a"]
    assert started(play.succeeds("a")) == ["b"]


def test_a_reader_of_a_reader_leaves_the_last_place_too():
    play = Play(graph("a => b", "b => c", max_parallel=2, a={"retry_policy": STEADY}))
    play.stores_a_batch("a")
    play.fails("a")
    play.stores_a_batch("b")
    assert play.marks == "dur"
    assert started(play.later(10)) == ["a"]
    assert started(play.succeeds("a")) == ["c"]


def test_a_reader_that_need_not_wait_for_all_it_pulls_from_leaves_the_last_place():
    pulls = {"io": {"input_inline": {"input_adapter": "pull.from_artifacts"}}, "priority": 9}
    play = Play(graph("a b -> c", max_parallel=1, c={"fan_in": "any", **pulls}))
    assert started(play.succeeds("a")) == ["b"]
    assert started(play.succeeds("b")) == ["c"]


def test_a_reader_starts_with_a_node_that_it_reads_from_if_there_is_a_place_for_both():
    play = Play(graph("a => b", "x", max_parallel=3, a={"retry_policy": STEADY}, b={"priority": 9}))
    play.pause()
    play.stores_a_batch("a")
    play.fails("a")
    assert started(play.resume()) == ["b"]
    assert started(play.later(10)) == ["a"]


def test_a_node_that_reads_nothing_takes_the_last_place_before_its_other_parents_have_ended():
    play = Play(graph("a b -> c", max_parallel=1, c={"fan_in": "any", "priority": 9}))
    assert started(play.succeeds("a")) == ["c"]


@pytest.mark.parametrize("max_parallel", [1, 2, 3])
def test_streams_of_nodes_that_fail_at_first_come_to_their_end(max_parallel: int):
    fields = {"retry_policy": STEADY}
    play = Play(
        graph(
            *(f"a{number} => b{number}" for number in range(3)),
            *(f"b{number} => c{number}" for number in range(3)),
            max_parallel=max_parallel,
            **{f"{letter}{number}": fields for letter in "abc" for number in range(3)},
        )
    )
    plan, failed = play.task.spec.plan, set[int]()
    while not play.task.terminal:
        marks = play.marks
        assert sum(mark in "qu" for mark in marks) <= max_parallel
        for index, mark in enumerate(marks):
            name, sources = plan.ids[index], plan.sources[index]
            if mark != "q" and mark != "u":
                continue
            if index not in failed:
                play.stores_a_batch(name)
                play.fails(name)
                failed.add(index)
                break
            if all(marks[source] == "F" for source in sources):
                play.succeeds(name)
                break
        else:
            assert "d" in marks, f"no node can go on: {marks}"
            play.later(10)


# ---------------------------------------------------------------- keys


def test_one_node_at_a_time_holds_a_key():
    play = Play(graph("a b c", "free", a=KEYED, b=KEYED, c=KEYED))
    assert play.marks == "qddq"
    assert started(play.succeeds("a")) == ["b"]
    assert started(play.succeeds("b")) == ["c"]


def test_other_keys_do_not_matter():
    assert Play(graph("a b", a=KEYED, b={"concurrency_key": "other"})).marks == "qq"


def test_the_most_urgent_gets_the_key():
    play = Play(graph("a b c", a=KEYED, b=KEYED, c={**KEYED, "priority": 1}))
    assert play.marks == "ddq"
    assert started(play.succeeds("c")) == ["a"]


def test_a_key_is_free_between_two_attempts():
    play = Play(graph("a b", a={**KEYED, "retry_policy": STEADY}, b=KEYED))
    assert started(play.fails("a")) == ["b"]
    play.starts("b")
    assert started(play.later(10)) == []
    assert started(play.succeeds("b")) == ["a"]


def test_a_key_is_held_until_the_run_has_stopped():
    play = Play(graph("a b", "x -> y", "b -> z", a=KEYED, b=KEYED))
    play.starts("a")
    play.cancel()
    assert play.keys is not None
    assert play.keys.holders == {"k": [(0, 1)]}
    play.stops("a")
    assert play.keys.holders == {}


def test_a_key_is_handed_over_with_what_is_handed_back():
    play = Play(graph("a b", a=KEYED, b={**KEYED, "priority": 1}))
    assert play.marks == "dq"
    assert started(play.is_released("b")) == ["a"]
    assert started(play.succeeds("a")) == ["b"]


def test_a_function_holds_a_key_too():
    play = Play(graph("f a", f={**FUNCTION, **KEYED}, a=KEYED))
    assert started(play.returns("f")) == ["a"]


def test_those_that_were_cancelled_while_they_waited_are_passed_over():
    play = Play(
        graph(
            "a b c",
            "w b -> j",
            a=KEYED,
            b=KEYED,
            c=KEYED,
            j={"fan_in": "any", "on_satisfied": "cancel"},
        )
    )
    play.succeeds("w")
    assert play.status("b") is NodeStatus.CANCELLED
    assert started(play.succeeds("a")) == ["c"]


def test_a_node_that_is_cancelled_before_it_takes_its_key_passes_it_on():
    play = Play(
        graph(
            "a b c",
            "x b => j",
            a=KEYED,
            b=KEYED,
            c=KEYED,
            j={"fan_in": "any", "on_satisfied": "cancel"},
        )
    )
    play.stores_a_batch("x")
    play.pause()
    play.succeeds("a")
    play.succeeds("x")
    assert play.status("b") is NodeStatus.CANCELLED
    assert started(play.resume()) == ["c"]


def test_a_node_that_succeeds_before_it_takes_its_key_passes_it_on():
    keyed = {**KEYED, "retry_policy": {**STEADY, "max": 3}}
    play = Play(graph("a b c", a=keyed, b=keyed, c=keyed))
    play.fails("a")
    play.later(10)
    assert play.marks == "dqd"
    play.pause()
    play.succeeds("a", attempt=1)
    assert play.marks == "Fqd"
    play.succeeds("b")
    assert play.marks == "FFr"
    assert started(play.resume()) == ["c"]


@pytest.mark.parametrize("max_in_flight", [1, 2, 100])
def test_a_task_of_keyed_nodes_comes_to_its_end(max_in_flight: int):
    names = [f"n{index}" for index in range(20)]
    flow = graph(
        " ".join(names),
        **{name: {"concurrency_key": f"k{index % 3}"} for index, name in enumerate(names)},
    )
    play = Play(flow, max_in_flight=max_in_flight)
    while not play.task.terminal:
        assert play.marks.count("q") <= min(max_in_flight, 3)
        play.succeeds(names[play.marks.index("q")])
    assert play.task.status is TaskStatus.FINISHED
