"""Execution plan of a graph."""

from typing import Any

import pytest

from flowkit.graph import Edge, Graph, Plan, Route, UndoSpec
from flowkit.graph._expanded_plan import child_id, split_child_id


def plan_of(nodes: dict[str, dict[str, Any]], **graph: Any) -> Plan:
    return Graph.parse(
        {
            "nodes": [{"node_id": name, "type": "x", **fields} for name, fields in nodes.items()],
            **graph,
        }
    ).plan


def test_graphs_that_are_written_the_same_share_their_plan() -> None:
    document = {"nodes": [{"node_id": "shared", "type": "x"}]}
    first = Graph.parse(document)
    assert Graph.parse(document).plan is first.plan
    first.node("more", "x")
    assert first.plan.ids == ("shared", "more")
    assert Graph.parse(document).plan.ids == ("shared",)


def edges(plan: Plan) -> dict[str, str]:
    """Return every edge as ``a>b`` with its route, seen from the parents.

    Both directions of the plan must agree.
    """
    down = {
        (place, edge.node): (edge.route, edge.streams)
        for place, children in enumerate(plan.children)
        for edge in children
    }
    up = {
        (edge.node, place): (edge.route, edge.streams)
        for place, parents in enumerate(plan.parents)
        for edge in parents
    }
    assert down == up
    return {
        f"{plan.ids[a]}>{plan.ids[b]}": route.name.lower() + (" streams" if streams else "")
        for (a, b), (route, streams) in down.items()
    }


def test_a_single_node_is_root_and_leaf() -> None:
    plan = plan_of({"a": {}}, deadline_sec=5, on_node_failure="continue")
    assert (plan.ids, plan.index, plan.children, plan.parents, plan.order) == (
        ("a",),
        {"a": 0},
        ((),),
        ((),),
        (0,),
    )
    assert (plan.need, plan.roots, plan.leaves, plan.streamed) == ((0,), (0,), (0,), (False,))
    assert (plan.on_node_failure, plan.deadline_sec) == ("continue", 5.0)
    two = plan_of({"a": {}, "b": {}}, deadline_sec=5, on_node_failure="continue")
    assert (two.on_node_failure, two.deadline_sec, two.roots, two.leaves) == (
        "continue",
        5.0,
        (0, 1),
        (0, 1),
    )


def test_edges_in_all_places_are_united() -> None:
    plan = plan_of(
        {"a": {}, "b": {"depends_on": ["a", "a"]}, "c": {"depends_on": ["a"]}, "d": {}},
        edges=[["a", "b"], {"from": "b", "to": "c"}, ["c", "d"]],
        edges_ex=[
            {"from": "a", "to": "b"},
            {"from": "b", "to": "d", "mode": "sync", "trigger": "on_done"},
        ],
    )
    assert edges(plan) == dict.fromkeys(["a>b", "a>c", "b>c", "b>d", "c>d"], "always")
    assert plan.need == (0, -1, -1, -1)
    assert plan.roots == (0,)
    assert plan.leaves == (3,)
    assert plan.order == (0, 1, 2, 3)
    assert not any(plan.streamed)


def test_edges_ex_adds_to_an_edge_that_is_there_already() -> None:
    nodes: dict[str, dict[str, Any]] = {
        "a": {},
        "b": {"depends_on": ["a"]},
        "c": {"depends_on": ["b"]},
    }
    plan = plan_of(
        nodes,
        edges=[["a", "b"]],
        edges_ex=[{"from": "a", "to": "b", "mode": "async", "trigger": "on_batch"}],
    )
    assert edges(plan) == {"a>b": "always streams", "b>c": "always"}
    assert plan.streamed == (True, False, False)


@pytest.mark.parametrize(
    ("mode", "trigger", "streams"),
    [
        (None, None, False),
        ("sync", None, False),
        ("async", None, True),
        (None, "on_done", False),
        ("sync", "on_done", False),
        ("async", "on_done", False),
        (None, "on_batch", True),
        ("async", "on_batch", True),
    ],
)
def test_an_edge_streams_by_its_trigger_or_else_by_its_mode(
    mode: str | None, trigger: str | None, streams: bool
) -> None:
    edge = {"from": "a", "to": "b", "mode": mode, "trigger": trigger}
    plan = plan_of(
        {"a": {}, "b": {}}, edges=[{key: value for key, value in edge.items() if value is not None}]
    )
    assert plan.children[0] == (Edge(1, Route.ALWAYS, streams),)
    assert plan_of({"a": {}, "b": {}}, edges=[edge]) == plan


def test_a_node_that_starts_on_the_first_batch_streams_from_all_parents_but_routes() -> None:
    plan = plan_of(
        {
            "a": {},
            "b": {"routing": {"on_success": ["c"]}},
            "c": {"depends_on": ["a"], "io": {"start_when": "first_batch"}},
        }
    )
    assert edges(plan) == {"a>c": "always streams", "b>c": "on_success"}
    assert plan.streamed == (True, False, False)


def test_routes_are_edges_and_stand_above_plain_ones() -> None:
    plan = plan_of(
        {
            "a": {"routing": {"on_success": ["b", "b"], "on_failure": ["c"]}},
            "b": {"depends_on": ["a"]},
            "c": {},
            "d": {"depends_on": ["b", "c"], "fan_in": "any"},
        },
        edges=[["a", "c"]],
    )
    assert edges(plan) == {
        "a>b": "on_success",
        "a>c": "on_failure",
        "b>d": "always",
        "c>d": "always",
    }
    assert plan.roots == (0,)


def test_fan_in_says_how_many_parents_are_needed() -> None:
    parents: dict[str, dict[str, Any]] = {"a": {}, "b": {}, "c": {}}
    above = {"depends_on": ["a", "b", "c"]}
    plan = plan_of(
        {
            **parents,
            "all": above,
            "any": {**above, "fan_in": "any"},
            "two": {**above, "fan_in": "count:2"},
            "three": {**above, "fan_in": "count:3"},
            "root": {},
        }
    )
    assert plan.need == (0, 0, 0, -1, 1, 2, 3, 0)
    assert plan.roots == (0, 1, 2, 7)


def test_the_order_has_every_node_after_its_parents() -> None:
    plan = plan_of(
        {
            "d": {"depends_on": ["c", "b"]},
            "c": {"depends_on": ["a"]},
            "b": {"depends_on": ["a"]},
            "a": {},
        }
    )
    places = {node: place for place, node in enumerate(plan.order)}
    assert sorted(places) == [0, 1, 2, 3]
    assert all(
        places[edge.node] < places[node]
        for node, parents in enumerate(plan.parents)
        for edge in parents
    )


def test_node_ids_may_look_like_anything_readable() -> None:
    names = ["a.b", "$set", "узел", "with space", "x[0]", "🎈", "__proto__", "a" * 200]
    plan = plan_of({name: {"depends_on": names[:place]} for place, name in enumerate(names)})
    assert plan.ids == tuple(names)
    assert Graph.parse(
        Graph.parse({"nodes": [{"node_id": name, "type": "x"} for name in names]}).to_json()
    ).plan.ids == tuple(names)


def test_ten_thousand_nodes_out_and_in_make_a_plan() -> None:
    count = 10_000
    middle = [f"n{place}" for place in range(count)]
    plan = plan_of(
        {
            "first": {},
            **{name: {"depends_on": ["first"]} for name in middle},
            "last": {"depends_on": middle},
        }
    )
    assert len(plan.children[0]) == len(plan.parents[count + 1]) == count
    assert plan.leaves == (count + 1,)


def test_a_chain_of_ten_thousand_nodes_makes_a_plan() -> None:
    count = 10_000
    plan = plan_of(
        {f"n{place}": {} for place in reversed(range(count))},
        edges=[[f"n{place}", f"n{place + 1}"] for place in range(count - 1)],
    )
    assert plan.order == tuple(reversed(range(count)))


def test_nodes_of_finally_and_undos_follow_the_others() -> None:
    graph = Graph(on_node_failure="continue")
    first = graph.node("a", "work", undo={"type": "undo"})
    graph.node("b", "work", after=[first], undo=UndoSpec(type="undo"))
    tidy = graph.finally_node("tidy", "tidy", input_inline=1)
    graph.finally_node("tell", "tell", after=[tidy])
    plan = graph.plan
    assert plan.ids == ("a", "b", "tidy", "tell", "a~undo", "b~undo")
    assert (plan.roots, plan.leaves) == ((0,), (1,))
    assert plan.ends is not None
    assert (plan.ends.main, plan.ends.undo_of) == (2, {0: 4, 1: 5})
    for same in (Graph.parse(graph.to_dict()), Graph.restore(graph.source)):
        assert same == graph
        assert same.plan == plan
    assert [node["node_id"] for node in graph.to_dict()["finally"]] == ["tidy", "tell"]


def test_edges_of_finally_may_be_written_with_those_of_the_graph() -> None:
    nodes = [{"node_id": name, "type": "t"} for name in "ab"]
    written = {"nodes": [{"node_id": "n", "type": "t"}], "finally": nodes, "edges": [["a", "b"]]}
    plan = Graph.parse(written).plan
    assert [edge.node for edge in plan.parents[plan.index["b"]]] == [plan.index["a"]]


def test_a_graph_of_one_node_with_an_undo_has_two_in_its_plan() -> None:
    graph = Graph.parse({"nodes": [{"node_id": "a", "type": "t", "undo": {"type": "u"}}]})
    assert graph.plan.ids == ("a", "a~undo")
    assert graph.plan.sources[1] == (0,)


@pytest.mark.parametrize(
    ("node_id", "found"),
    [
        ("m[3]", ("m", 3)),
        ("m[3]~undo", ("m~undo", 3)),
        ("a[0][12]~undo", ("a[0]~undo", 12)),
        *((other, (other, -1)) for other in ("m", "m~undo", "m[03]", "m[x]~undo")),
        *((other, (other, -1)) for other in ("m~undo[3]", "m~undo[3]~undo", "m[3]~undo~undo")),
    ],
)
def test_the_id_of_a_child_or_of_its_undo_names_its_map(
    node_id: str, found: tuple[str, int]
) -> None:
    assert split_child_id(node_id) == found
    assert found[1] < 0 or child_id(*found) == node_id
