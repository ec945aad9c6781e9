"""The output of a graph, in documents and in Python."""

from typing import Any

import pytest

from flowkit import Graph, flow
from flowkit.graph._nodes_read import output_needed, output_needed_at_once
from tests.builders import graph, node

OUTPUT = {"n": "${results.a.n}", "rows": ["${params.rows}", 1, None]}


@pytest.mark.parametrize("output", ["${results.a}", "a ${1} $${b}", OUTPUT, {}, {"x": 1}])
def test_an_output_is_an_expression_or_an_object(output: Any) -> None:
    parsed = Graph.parse(graph(node("a"), output=output))
    assert parsed.plan.output == output
    assert parsed.to_dict()["output"] == output
    assert Graph.parse(parsed.to_json()) == parsed
    assert Graph.restore(parsed.source).plan.output == output
    assert parsed != Graph.parse(graph(node("a"), output="${1}"))


def test_a_graph_in_python_has_an_output() -> None:
    built = Graph(output=OUTPUT)
    built.node("a", "work")

    @flow(output=OUTPUT)
    def described(g: Graph) -> None:
        g.node("a", "work")

    assert built == described() == Graph.parse(graph(node("a"), output=OUTPUT))


def test_without_an_output_a_graph_has_none() -> None:
    for parsed in (Graph.parse(graph(node("a"))), Graph.parse(graph(node("a"), output=None))):
        assert parsed.plan.output is None
        assert "output" not in parsed.to_dict()


def test_the_output_is_below_all_nodes() -> None:
    document = graph(
        node("a"),
        node("b", "work", "a"),
        node("c"),
        output={"x": "${results.b}", "y": "${errors.map(name, name)}"},
    )
    plan = Graph.parse(document).plan
    assert output_needed(plan) == {"results": [1], "errors": [0, 1, 2]}
    assert output_needed_at_once(plan) == output_needed(plan)
