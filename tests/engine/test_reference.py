"""The engine against a naive implementation of the same rules, over random graphs and events."""

from typing import Any

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from flowkit.graph import Graph
from tests.engine.flows import Word, graphs, scripts
from tests.engine.random_events import RandomEvents


@settings(
    max_examples=220,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
)
@given(
    graphs(),
    scripts(),
    st.sampled_from([None, None, 60.0]),
    st.sampled_from([1, 2, 512]),
    st.integers(0, 15),
)
def test_the_engine_does_what_the_rules_say(
    document: dict[str, Any],
    script: list[Word],
    deadline_sec: float | None,
    max_in_flight: int,
    letter: int,
) -> None:
    both = RandomEvents(
        Graph.parse(document), deadline_sec=deadline_sec, max_in_flight=max_in_flight
    )
    both.live(script, letter)


@settings(max_examples=80, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(graphs(mostly="waits"), scripts(min_size=12))
def test_the_engine_gives_signals_and_decisions_to_the_nodes_that_the_rules_say(
    document: dict[str, Any], script: list[Word]
) -> None:
    both = RandomEvents(Graph.parse(document), deadline_sec=None, max_in_flight=2)
    both.live(script, script[0][1])


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
)
@given(
    graphs(max_nodes=4, mostly="maps"),
    scripts(min_size=40, max_size=80),
    st.sampled_from([None, None, 60.0]),
    st.sampled_from([1, 2, 3, 512]),
)
def test_the_engine_runs_maps_and_child_tasks_as_the_rules_say(
    document: dict[str, Any], script: list[Word], deadline_sec: float | None, max_in_flight: int
) -> None:
    both = RandomEvents(
        Graph.parse(document), deadline_sec=deadline_sec, max_in_flight=max_in_flight
    )
    both.live(script, script[0][1])


@settings(max_examples=140, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(graphs(max_nodes=3, mostly="loops"), scripts(min_size=30, max_size=60, rounds=True))
def test_the_engine_runs_the_rounds_of_loops_as_the_rules_say(
    document: dict[str, Any], script: list[Word]
) -> None:
    both = RandomEvents(Graph.parse(document), deadline_sec=None, max_in_flight=2)
    both.live(script, script[0][1])
