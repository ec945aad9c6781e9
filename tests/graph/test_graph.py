"""Graphs as values: built in Python, written, read again and compared."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowkit.errors import GraphError
from flowkit.flows import flow
from flowkit.graph import Graph, NodeSpec, RetryPolicy, Routing, Timeouts

PUBLISHED = {
    "quick example": {
        "nodes": [
            {
                "node_id": "process_data",
                "type": "processor",
                "io": {"input_inline": {"data": "hello world"}},
            }
        ],
        "edges": [],
    },
    "every kind of edge at once": {
        "schema_version": "1.0",
        "nodes": [
            {
                "node_id": "extract",
                "type": "extractor",
                "depends_on": [],
                "fan_in": "all",
                "io": {"input_inline": {"rows": 100}},
            },
            {
                "node_id": "transform",
                "type": "transformer",
                "depends_on": ["extract"],
                "fan_in": "any",
                "retry_policy": {"max": 3, "backoff_sec": 5},
                "io": {
                    "start_when": "first_batch",
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts.rechunk:size",
                        "input_args": {
                            "from_nodes": ["extract"],
                            "poll_ms": 200,
                            "size": 3,
                            "meta_list_key": "items",
                        },
                    },
                },
            },
            {
                "node_id": "combine",
                "type": "coordinator_fn",
                "depends_on": ["extract", "transform"],
                "io": {
                    "fn": "merge.generic",
                    "fn_args": {
                        "from_nodes": ["extract", "transform"],
                        "target": {"key": "merged"},
                    },
                },
            },
            {
                "node_id": "load",
                "type": "loader",
                "depends_on": ["combine"],
                "labels": {"team": "data"},
                "priority": 5,
            },
        ],
        "edges": [
            ["extract", "transform"],
            ["extract", "combine"],
            ["transform", "combine"],
            ["combine", "load"],
        ],
        "edges_ex": [
            {"from": "extract", "to": "transform", "mode": "async", "trigger": "on_batch"}
        ],
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_graph_is_read_and_written_and_read_again(name: str) -> None:
    graph = Graph.parse(PUBLISHED[name])
    for again in (
        Graph.parse(graph.to_dict()),
        Graph.parse(graph.to_json()),
        Graph.restore(graph.to_json()),
        Graph.parse(graph),
    ):
        assert again == graph
        assert again.plan == graph.plan
    assert graph.to_dict() == json.loads(graph.to_json())


def test_given_retries_of_control_nodes_are_written_although_they_are_the_default_of_handlers() -> (
    None
):
    io = {"graph": {"nodes": [{"node_id": "x", "type": "x"}]}}
    given = {"node_id": "s", "type": "subflow", "io": io, "retry_policy": {"max": 2}}
    graph = Graph.parse({"nodes": [given]})
    assert graph.to_dict() == {"nodes": [given]}
    assert Graph.parse(graph.to_dict()).plan.nodes[0].retry_policy.max == 2


def test_what_is_written_is_short_and_says_each_edge_once() -> None:
    assert Graph.parse(PUBLISHED["quick example"]).to_dict() == {
        "nodes": PUBLISHED["quick example"]["nodes"]
    }
    graph = Graph.parse(
        {
            "nodes": [
                {"node_id": name, "type": "x", "priority": 0, "retry_policy": {"jitter": 0.1}}
                for name in "abcd"
            ],
            "edges": [["a", "b"], ["a", "b"], ["a", "c"], ["b", "c"], ["c", "d"]],
            "edges_ex": [
                {"from": "b", "to": "c", "mode": "async"},
                {"from": "a", "to": "b", "mode": "sync"},
            ],
            "on_node_failure": "stop",
            "schema_version": "1",
        }
    )
    assert graph.to_dict() == {
        "nodes": [
            {"node_id": "a", "type": "x"},
            {"node_id": "b", "type": "x", "depends_on": ["a"]},
            {"node_id": "c", "type": "x", "depends_on": ["a"]},
            {"node_id": "d", "type": "x", "depends_on": ["c"]},
        ],
        "edges": [{"from": "b", "to": "c", "trigger": "on_batch"}],
    }


def test_each_target_of_a_route_is_written_once() -> None:
    first = {"node_id": "a", "type": "x"}
    others = [{"node_id": name, "type": "x"} for name in "bcd"]
    given = {"on_success": ["b", "c", "b"], "on_failure": ["d", "d"]}
    routing = {"on_success": ["b", "c"], "on_failure": ["d"]}
    graph = Graph.parse({"nodes": [{**first, "routing": given}, *others]})
    assert graph.to_dict() == {"nodes": [{**first, "routing": routing}, *others]}


def test_graphs_that_mean_the_same_are_equal() -> None:
    nodes = [{"node_id": "a", "type": "x"}, {"node_id": "b", "type": "x"}]
    by_edges = Graph.parse({"nodes": nodes, "edges": [["a", "b"]]})
    by_name = Graph.parse({"nodes": [nodes[0], {**nodes[1], "depends_on": ["a"]}]})
    assert by_edges == by_name
    assert by_edges != Graph.parse({"nodes": nodes})
    assert by_edges != by_edges.to_dict()


# ---------------------------------------------------------------- random graphs

names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8)
keys_of_labels = names.filter(lambda name: "=" not in name)
seconds = st.floats(min_value=0, max_value=1e6) | st.integers(0, 100)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**80), 2**80)
    | st.floats(allow_nan=False, allow_infinity=False)
    | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "max": st.integers(0, 9),
        "backoff_sec": seconds,
        "jitter": st.floats(0, 1),
        "permanent_on": st.lists(names, max_size=2),
    },
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    ids = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    nodes, edges, edges_ex = [], [], []
    for place, node_id in enumerate(ids):
        above = draw(st.lists(st.sampled_from(ids[:place]), max_size=4)) if place else []
        node: dict[str, Any] = {"node_id": node_id, "type": "worker"}
        node |= draw(
            st.fixed_dictionaries(
                {},
                optional={
                    "retry_policy": policies,
                    "timeouts": st.fixed_dictionaries(
                        {}, optional={"heartbeat_sec": st.floats(0.1, 100)}
                    ),
                    "io": st.fixed_dictionaries(
                        {},
                        optional={"input_inline": st.lists(values, max_size=3), "input_ref": names},
                    ),
                    "when": st.sampled_from(["true", "vars.x == 'y'", "size(results) > 1"]),
                    "labels": st.dictionaries(keys_of_labels, names, max_size=2),
                    "priority": st.integers(-5, 5),
                    "on_batch_failure": st.sampled_from(["fail", "skip"]),
                },
            )
        )
        if above:
            node["fan_in"] = draw(st.sampled_from(["all", "any", "count:1"]))
            if node["fan_in"] != "all":
                node["on_satisfied"] = draw(st.sampled_from(["leave", "cancel"]))
        for parent in above:
            match draw(st.sampled_from(["name", "pair", "object", "stream", "both"])):
                case "name":
                    node.setdefault("depends_on", []).append(parent)
                case "pair":
                    edges.append([parent, node_id])
                case "object":
                    edges_ex.append({"from": parent, "to": node_id})
                case "stream":
                    edges.append({"from": parent, "to": node_id, "mode": "async"})
                case "both":
                    edges.append([parent, node_id])
                    edges_ex.append({"from": parent, "to": node_id, "trigger": "on_batch"})
        nodes.append(node)
    routes = {
        node["node_id"]: draw(st.sampled_from(["on_success", "on_failure", ""])) for node in nodes
    }
    streaming = {
        (edge["from"], edge["to"]) for edge in [*edges, *edges_ex] if isinstance(edge, dict)
    }
    for place, node in enumerate(nodes[:-1]):
        below = nodes[place + 1]["node_id"]
        if routes[node["node_id"]] and (node["node_id"], below) not in streaming:
            node["routing"] = {routes[node["node_id"]]: [below]}
    return {
        "nodes": nodes,
        "edges": edges,
        "edges_ex": edges_ex,
        "on_node_failure": draw(st.sampled_from(["stop", "continue"])),
    }


@given(documents())
@settings(max_examples=150, deadline=None)
def test_any_graph_survives_being_written_and_read(document: dict[str, Any]) -> None:
    graph = Graph.parse(document)
    assert Graph.parse(graph.to_dict()) == graph
    assert Graph.parse(graph.to_dict()).plan == graph.plan
    assert Graph.parse(graph.to_json()) == graph
    assert Graph.parse(json.dumps(document)) == graph
    assert Graph.parse(graph.to_dict()).to_dict() == graph.to_dict()


@given(
    st.recursive(
        values,
        lambda inner: st.dictionaries(
            st.sampled_from(["nodes", "node_id", "type", "edges", "io"]), inner
        ),
        max_leaves=20,
    )
)
@settings(max_examples=300, deadline=None)
def test_values_that_are_not_graphs_raise_a_graph_error_and_no_other_error(value: Any) -> None:
    with pytest.raises(GraphError) as caught:
        Graph.parse(value if isinstance(value, dict) else {"nodes": value})
    assert caught.value.faults


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    below = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(place for key, part in below for place in places(part, (*path, key)))]


@given(st.sampled_from(sorted(PUBLISHED)), st.data())
@settings(max_examples=300, deadline=None)
def test_a_graph_with_something_else_in_some_place_is_read_or_refused(
    name: str, data: st.DataObject
) -> None:
    document = json.loads(json.dumps(PUBLISHED[name]))
    for path in data.draw(st.lists(st.sampled_from(places(document)[1:]), min_size=1, max_size=3)):
        inside: Any = document
        try:
            for step in path[:-1]:
                inside = inside[step]
            inside[path[-1]] = data.draw(
                values
                | st.just(float("nan"))
                | st.just({1: "\ud800"})
                | st.sampled_from(["extract", b"", 10**999])
            )
        except (LookupError, TypeError):
            continue  # an earlier change removed this position
    with suppress(GraphError):
        graph = Graph.parse(document)
        assert Graph.parse(graph.to_dict()) == graph


# ---------------------------------------------------------------- building

BUILT = {
    "nodes": [
        {
            "node_id": "extract",
            "type": "reader",
            "io": {"input_inline": {"url": "x"}},
            "routing": {"on_failure": ["alarm"]},
        },
        {
            "node_id": "clean",
            "type": "cleaner",
            "depends_on": ["extract"],
            "io": {"start_when": "first_batch"},
        },
        {
            "node_id": "count",
            "type": "coordinator_fn",
            "depends_on": ["clean"],
            "io": {"fn": "vars.incr", "fn_args": {"key": "n"}},
        },
        {
            "node_id": "alarm",
            "type": "mailer",
            "retry_policy": {"max": 9},
            "timeouts": {"heartbeat_sec": 5},
        },
        {"node_id": "report", "type": "writer", "depends_on": ["clean", "count"], "fan_in": "any"},
    ],
    "edges": [{"from": "extract", "to": "report", "trigger": "on_batch"}],
    "on_node_failure": "continue",
    "deadline_sec": 60,
}


def described(g: Graph) -> None:
    extract = g.node("extract", "reader", input_inline={"url": "x"}, on_failure=["alarm"])
    clean = g.node("clean", "cleaner", after=extract, start_when="first_batch")
    count = g.node(
        "count", "coordinator_fn", after=[clean], io={"fn": "vars.incr"}, fn_args={"key": "n"}
    )
    g.node("alarm", "mailer", retry_policy=RetryPolicy(max=9), timeouts=Timeouts(heartbeat_sec=5))
    report = g.node("report", "writer", after=["clean", count], fan_in="any")
    g.edge(extract, report, trigger="on_batch")


def test_a_graph_built_in_python_is_the_same_as_the_document() -> None:
    graph = Graph(on_node_failure="continue", deadline_sec=60)
    described(graph)
    assert graph == Graph.parse(graph) == Graph.parse(BUILT)
    assert graph.to_dict() == Graph.parse(BUILT).to_dict()
    assert graph.plan == Graph.parse(BUILT).plan


def test_a_decorated_function_is_the_same_as_the_document() -> None:
    nightly = flow(on_node_failure="continue", deadline_sec=60)(described)
    assert Graph.parse(nightly) == nightly() == Graph.parse(BUILT)
    assert nightly.__name__ == "described"


def test_a_flow_may_have_parameters() -> None:
    @flow
    def wide(g: Graph, width: int = 2) -> None:
        """Return a graph of independent nodes."""
        last = g.node("last", "x")
        [g.node(f"n{place}", "x") for place in range(width)] >> last

    assert Graph.parse(wide).plan.ids == ("last", "n0", "n1")
    assert len(wide(width=5).plan.parents[0]) == 5
    assert wide.__doc__ == "Return a graph of independent nodes."


def test_an_async_function_is_no_flow() -> None:
    async def waiting(g: Graph) -> None: ...

    with pytest.raises(TypeError, match="@flow: waiting is an async function"):
        flow(waiting)


def test_arrows_draw_edges() -> None:
    graph = Graph()
    a, b, c, d = (graph.node(name, "x") for name in "abcd")
    assert a >> b is b
    a >> [b, c] >> d
    assert {
        name: [graph.plan.ids[edge.node] for edge in graph.plan.parents[graph.plan.index[name]]]
        for name in "abcd"
    } == {
        "a": [],
        "b": ["a"],
        "c": ["a"],
        "d": ["b", "c"],
    }


def test_faults_of_a_built_graph_are_raised_when_it_is_read() -> None:
    graph = Graph()
    graph.node("a", "x", after=["b"], retrys=3, on_success="c")
    for read in (
        lambda: graph.plan,
        graph.to_dict,
        graph.to_json,
        lambda: Graph.parse(graph),
        lambda: graph == Graph(),
    ):
        with pytest.raises(GraphError) as caught:
            read()
        assert str(caught.value).startswith("node 'a': unknown field 'retrys'")
        assert len(caught.value.faults) == 3
    assert repr(graph) == "<Graph of 1 nodes>"


def test_fields_given_whole_and_in_part_are_put_together() -> None:
    graph = Graph()
    graph.node("b", "x")
    graph.node("c", "x")
    graph.node(
        "a",
        "x",
        input_ref="s3://x",
        io={"batching": {"size": 2}},
        routing=Routing(on_failure=("c",)),
        on_success=["b"],
    )
    spec = graph.plan.nodes[2]
    assert spec == NodeSpec.model_validate(
        {
            "node_id": "a",
            "type": "x",
            "io": {"input_ref": "s3://x", "batching": {"size": 2}},
            "routing": {"on_success": ("b",), "on_failure": ("c",)},
        }
    )


def test_a_graph_that_was_read_can_be_extended() -> None:
    graph = Graph.parse(BUILT)
    graph.node("after", "x", after=["report"])
    assert graph.plan.ids[-1] == "after"
    assert Graph.parse(BUILT) != graph
    graph.edge("extract", "after")
    assert len(graph.plan.parents[-1]) == 2
    assert repr(graph) == "<Graph of 6 nodes>"


def test_what_is_neither_text_nor_a_graph_is_refused() -> None:
    for source in (3, None, object(), Graph, [BUILT]):
        with pytest.raises(GraphError, match="a graph must be an object with nodes, not"):
            Graph.parse(source)


def test_segments_that_are_off_need_no_quotes_in_yaml():
    graph = Graph.parse("segments: off\nnodes: [{node_id: a, type: work}]")
    assert graph.to_dict()["segments"] == "off"
