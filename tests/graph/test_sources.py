"""Graphs as text, including malicious ones."""

import json
import subprocess
import sys
from enum import StrEnum
from typing import Any

import pytest

from flowkit.errors import GraphError
from flowkit.graph import Graph, Limits
from tests.builders import nested

DOCUMENT = {
    "nodes": [
        {"node_id": "a", "type": "reader"},
        {"node_id": "b", "type": "writer", "depends_on": ["a"], "priority": 3},
    ]
}
YAML = """
# a comment
nodes:
  - {node_id: a, type: reader}
  - node_id: b
    type: writer
    depends_on: [a]
    priority: 3
"""


def fault_of(source: Any, **options: Any) -> str:
    with pytest.raises(GraphError) as caught:
        Graph.parse(source, **options)
    (fault,) = caught.value.faults
    return str(fault)


@pytest.mark.parametrize(
    "source",
    [
        json.dumps(DOCUMENT),
        json.dumps(DOCUMENT, indent=2).encode(),
        b"\xef\xbb\xbf" + json.dumps(DOCUMENT).encode(),
        "\ufeff" + json.dumps(DOCUMENT),
        bytearray(json.dumps(DOCUMENT).encode()),
        YAML,
        YAML.encode(),
        Graph.parse(DOCUMENT),
    ],
    ids=[
        "json",
        "json bytes",
        "json bytes with a mark",
        "json with a mark",
        "bytearray",
        "yaml",
        "yaml bytes",
        "graph",
    ],
)
def test_every_form_is_the_same_graph(source: Any) -> None:
    assert Graph.parse(source) == Graph.parse(DOCUMENT)


def test_anchors_in_yaml_are_followed() -> None:
    graph = Graph.parse(
        "nodes:\n- {node_id: a, type: x, labels: &l {team: data}}\n- {node_id: b, type: x, labels:"
        " *l}\n"
    )
    assert [node.labels for node in graph.plan.nodes] == [{"team": "data"}] * 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"nodes": [}', "the document is not JSON: line 1, column 12"),
        (
            '{"nodes": [{"node_id": "a", "node_id": "b"}]}',
            "the document is not JSON: the key 'node_id' is given twice in one object",
        ),
        (
            '{"nodes": [], "deadline_sec": NaN}',
            "the document is not JSON: line 1, column 31: NaN is not a finite number",
        ),
        (
            '{"nodes": [], "deadline_sec": -Infinity}',
            "the document is not JSON: line 1, column 31: -Infinity is not a finite number",
        ),
        (
            '{"nodes": [], "deadline_sec": ' + "9" * 5000 + "}",
            "the document is not JSON: an integer has more than",
        ),
        (b'{"nodes": "\xff"}', "the document is not UTF-8: byte 11 cannot be read"),
        ("", "a graph must be an object with nodes, not null"),
        ("just words", "a graph must be an object with nodes, not a string"),
        ("nodes: [\n", "the document is not YAML: line 2, column 1"),
        (
            "nodes: []\nnodes: []\n",
            (
                "the document is not YAML: line 2, column 1: the key 'nodes' is given twice in one"
                " object"
            ),
        ),
        (
            "x: &x {a: 1}\nnodes: [{<<: *x}]\n",
            (
                "the document is not YAML: line 2, column 10: merge keys (<<) are not supported;"
                " write the fields out"
            ),
        ),
        (
            "nodes: !!python/object/apply:os.system ['true']\n",
            "could not determine a constructor for the tag",
        ),
        ("nodes: []\n---\nnodes: []\n", "the document is not YAML: line 2"),
        ("? [a]\n: 1\n", "the document is not YAML: line 1, column 3: found unhashable key"),
        ("nodes: \x00", "the document is not YAML"),
    ],
)
def test_text_that_is_no_document_is_refused_with_the_place(text: Any, sentence: str) -> None:
    assert sentence in fault_of(text)


def test_a_date_in_yaml_is_its_iso_text() -> None:
    text = "nodes: [{node_id: a, type: x, io: {input_inline: {day: 2026-01-02}}}]"
    assert Graph.parse(text).plan.nodes[0].io.input_inline == {"day": "2026-01-02"}


def test_words_of_an_enum_are_words() -> None:
    class Role(StrEnum):
        READER = "reader"

    graph = Graph.parse({"nodes": [{"node_id": Role.READER, "type": Role.READER}]})
    assert graph.to_dict() == {"nodes": [{"node_id": "reader", "type": "reader"}]}
    assert type(graph.plan.ids[0]) is str


# ---------------------------------------------------------------- limits


def many(count: int) -> dict[str, Any]:
    return {"nodes": [{"node_id": f"n{place}", "type": "x"} for place in range(count)]}


def inline(value: Any) -> dict[str, Any]:
    return {"nodes": [{"node_id": "a", "type": "x", "io": {"input_inline": value}}]}


def test_the_number_of_nodes_is_limited() -> None:
    limits = Limits(max_nodes=3)
    assert len(Graph.parse(many(3), limits=limits).plan.nodes) == 3
    assert (
        fault_of(many(4), limits=limits)
        == "the graph has 4 nodes, above the limit of 3; split the graph"
    )
    assert "above the limit of 20000" in fault_of(many(20_001))


def test_the_number_of_edges_is_limited_wherever_they_are_written() -> None:
    limits = Limits(max_edges=4)
    nodes = [
        {"node_id": "a", "type": "x", "routing": {"on_success": ["b"], "on_failure": ["c"]}},
        {"node_id": "b", "type": "x", "depends_on": ["d"]},
        {"node_id": "c", "type": "x"},
        {"node_id": "d", "type": "x"},
    ]
    graph: dict[str, Any] = {"nodes": nodes, "edges": [["c", "d"]]}
    assert Graph.parse(graph, limits=limits)
    assert "the graph has 5 edges, above the limit of 4; " in fault_of(
        {**graph, "edges_ex": [{"from": "a", "to": "d"}]}, limits=limits
    )
    wide = {
        "nodes": [
            {"node_id": f"n{place}", "type": "x", "depends_on": ["a"] * 60}
            for place in range(9_000)
        ]
    }
    assert "the graph has 540000 edges, above the limit of 100000" in fault_of(wide)


def test_a_graph_that_was_parsed_before_is_checked_against_the_limits_of_this_call() -> None:
    graph = {
        "nodes": [
            {"node_id": "one", "type": "x"},
            {"node_id": "two", "type": "x", "depends_on": ["one"]},
        ],
        "edges": [["one", "two"]],
    }
    size = len(Graph.parse(graph).source)
    assert "the graph has 2 nodes" in fault_of(graph, limits=Limits(max_nodes=1))
    assert "the graph has 2 edges" in fault_of(graph, limits=Limits(max_edges=1))
    assert f"the graph has {size} bytes" in fault_of(graph, limits=Limits(max_bytes=size - 1))
    assert "nested more than 2 levels" in fault_of(graph, limits=Limits(max_depth=2))
    inside = {"graph": inline(nested(10))}
    outer = {"nodes": [{"node_id": "s", "type": "subflow", "io": inside}]}
    assert Graph.parse(outer)
    assert "nested more than 8 levels" in fault_of(outer, limits=Limits(max_depth=8))
    assert Graph.parse(graph).plan.ids == ("one", "two")


def test_the_size_in_bytes_is_limited_in_every_form() -> None:
    size = len(Graph.parse(inline("x" * 100)).to_json())
    limits = Limits(max_bytes=size)
    assert Graph.parse(inline("x" * 100), limits=limits)
    assert (
        fault_of(inline("x" * 101), limits=limits)
        == f"the graph has {size + 1} bytes, above the limit of {size} bytes"
    )
    assert "the graph is larger than" in fault_of(inline("x" * 1000), limits=limits)
    assert "is above the limit of" in fault_of(json.dumps(inline("x" * 1000)), limits=limits)
    assert "is above the limit of" in fault_of("# " + "x" * 1000, limits=limits)


def test_the_size_counts_bytes_and_not_characters() -> None:
    assert "above the limit of" in fault_of(inline("€" * 100), limits=Limits(max_bytes=250))


def test_the_depth_is_limited_in_every_form() -> None:
    limits = Limits(max_depth=10)
    assert Graph.parse(inline(nested(6)), limits=limits)
    assert Graph.parse(json.dumps(inline(nested(6))), limits=limits)
    for source in (
        inline(nested(7)),
        json.dumps(inline(nested(7))),
        "nodes: " + "[" * 11 + "]" * 11,
    ):
        assert "more than 10 levels deep" in fault_of(source, limits=limits)


def chained(graphs: int, value: Any = 1) -> dict[str, Any]:
    """Return a graph with graphs inside of each other, the innermost of which has this value."""
    graph = inline(value)
    for _ in range(graphs):
        graph = {"nodes": [{"node_id": "s", "type": "subflow", "io": {"graph": graph}}]}
    return graph


@pytest.mark.parametrize("form", [dict, json.dumps])
def test_graphs_are_nested_32_deep_and_each_has_its_own_limit_of_values(form: Any) -> None:
    limits = Limits(max_depth=10)
    assert Graph.parse(form(chained(32, nested(6))), limits=limits)
    for graphs in (1, 31):
        too_deep = fault_of(form(chained(graphs, nested(7))), limits=limits)
        assert "node 's': io.graph: " in too_deep
        assert "more than 10 levels deep" in too_deep
    for graphs in (33, 39):
        assert fault_of(form(chained(graphs))) == (
            f"node 's': io.graph: graphs are nested {graphs} deep, above the limit of 32; move"
            " nodes of inner graphs to outer ones"
        )
    assert "levels deep" in fault_of(form(chained(100)), limits=limits)


def test_a_graph_that_was_parsed_before_is_too_deep_inside_of_others() -> None:
    inner = chained(31)
    assert Graph.parse(inner)
    outer = {"nodes": [{"node_id": "t", "type": "subflow", "io": {"graph": inner}}]}
    assert Graph.parse(outer)
    loop = {"graph": outer, "max_iterations": 1, "until": "true"}
    whole = {"nodes": [{"node_id": "a", "type": "x"}]} | {
        "finally": [{"node_id": "f", "type": "loop", "io": loop}]
    }
    assert fault_of(whole).startswith("node 'f': io.graph: graphs are nested 33 deep")


def test_a_generous_depth_still_ends_before_the_readers_give_up() -> None:
    limits = Limits(max_depth=100_000)
    assert Graph.parse(inline(nested(120)), limits=limits)
    for source in (inline(nested(190)), inline(nested(50_000)), json.dumps(inline(nested(190)))):
        assert "more than 190 levels deep" in fault_of(source, limits=limits)
    assert "more than 128 levels deep" in fault_of(inline(nested(130)), limits=limits)


def test_a_value_that_contains_itself_is_refused() -> None:
    circle: dict[str, Any] = {}
    circle["again"] = circle
    assert "levels deep" in fault_of(inline(circle))


def test_a_value_that_multiplies_is_refused_before_it_does() -> None:
    bomb: Any = "x"
    for _ in range(25):
        bomb = [bomb] * 10
    assert fault_of(inline(bomb)).startswith("the graph is larger than 8388608 bytes")


def test_yaml_that_multiplies_is_refused_before_it_does() -> None:
    lines = ["a0: &a0 x"] + [
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 25)
    ]
    assert fault_of("\n".join(lines)).startswith("the graph is larger than 8388608 bytes")


@pytest.mark.parametrize(
    "text",
    [
        '{"nodes":' + "[" * 200_000,
        '{"nodes":' * 100_000,
        "nodes: " + "[" * 200_000,
        "nodes: " + "{a: " * 100_000,
        "- " * 100_000,
        "\n".join(" " * depth + "a:" for depth in range(2_000)),
        "nodes: &a [*a]",
        "!!set " * 100,
        "%YAML 9.9\n---\n",
    ],
    ids=range(9),
)
def test_hostile_text_is_refused(text: str) -> None:
    with pytest.raises(GraphError):
        Graph.parse(text)


def test_the_error_for_deep_json_asks_for_less_depth() -> None:
    for text in ('{"nodes":' + "[" * 200_000, '{"nodes":' * 100_000):
        assert (
            fault_of(text)
            == "values are nested more than 160 levels deep; make the document flatter"
        )


def test_yaml_of_too_many_parts_is_refused_before_it_is_built() -> None:
    assert (
        "the document has more than 500000 parts; write a document of this size as JSON"
        in fault_of("[" + "1," * 500_001 + "]")
    )


def test_yaml_without_pyyaml_is_an_error_that_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['yaml'] = None\n"
        "from flowkit.graph import Graph\n"
        'assert Graph.parse(\'{"nodes": [{"node_id": "a", "type": "x"}]}\')\n'
        "try:\n    Graph.parse('nodes: []')\n"
        "except Exception as error:\n    print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert (
        result.stdout.strip()
        == "the document is not JSON, and YAML needs PyYAML: pip install 'flowkit-core[cli]'"
    )


def test_no_library_for_yaml_is_loaded_before_it_is_needed() -> None:
    program = (
        "import sys, flowkit.graph; print([name for name in ('yaml',) if name in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_a_graph_shares_nothing_with_what_it_was_read_from() -> None:
    source = inline({"items": [1, 2]})
    graph = Graph.parse(source)
    source["nodes"][0]["io"]["input_inline"]["items"].append(3)
    assert graph.plan.nodes[0].io.input_inline == {"items": [1, 2]}
