"""Faults of graphs whose nodes have caches."""

from typing import Any

import pytest

from flowkit import flow
from flowkit.errors import GraphError
from flowkit.graph import Graph
from flowkit.worker import handler

CACHE = {"key": "k", "ttl_sec": 60}
PULL = {"input_adapter": "pull.from_artifacts"}
READS = (
    "node 'b': reads the artifacts of 'a', which has a cache and stores none if it takes a stored"
    " result; read its result, or remove the cache"
)


def pair(first: Any = None, **second: Any) -> dict[str, Any]:
    nodes = [
        {"node_id": "a", "type": "work", "cache": CACHE, **(first or {})},
        {"node_id": "b", "type": "work", "depends_on": ["a"], **second},
    ]
    return {"nodes": nodes}


def faults_of(graph: Any) -> list[str]:
    with pytest.raises(GraphError) as caught:
        Graph.parse(graph)
    return [str(fault) for fault in caught.value.faults]


@pytest.mark.parametrize(
    "reader",
    [
        {"io": {"input_inline": PULL}},
        {"io": {"input_inline": {**PULL, "input_args": {"from_nodes": ["a"]}}}},
        {"io": {"start_when": "first_batch"}},
        {"map": {"over": {"artifacts": "a"}}},
        {
            "type": "coordinator_fn",
            "io": {"fn": "metrics.aggregate", "fn_args": {"node_id": "a"}},
        },
    ],
)
def test_no_node_reads_the_artifacts_of_a_node_with_a_cache(reader: Any) -> None:
    assert READS in faults_of(pair(**reader))


def test_a_streaming_edge_from_a_node_with_a_cache_is_a_fault() -> None:
    graph = pair(depends_on=[]) | {"edges": [{"from": "a", "to": "b", "trigger": "on_batch"}]}
    assert faults_of(graph) == [READS]


@pytest.mark.parametrize("node_type", ["coordinator_fn", "sleep", "loop"])
def test_only_handlers_and_subflows_have_a_cache(node_type: str) -> None:
    wrong = f"node 'a': cache: a node of type {node_type!r} cannot have one; only handlers and"
    assert any(fault.startswith(wrong) for fault in faults_of(pair({"type": node_type})))


def test_a_cache_has_a_key_and_a_time() -> None:
    assert faults_of(pair({"cache": {"key": "k"}})) == [
        "node 'a': cache.ttl_sec is missing; cache needs it"
    ]
    [null] = faults_of(pair({"cache": {"key": None, "ttl_sec": 1}}))
    assert null == (
        "node 'a': cache.key: null is not accepted: it is the value of everything that is missing"
    )
    [zero] = faults_of(pair({"cache": {"key": "k", "ttl_sec": 0}}))
    assert zero.startswith("node 'a': cache.ttl_sec must be")


def test_the_expressions_of_a_key_are_checked() -> None:
    [unknown] = faults_of(pair({"cache": CACHE | {"key": ["${results.z.n}"]}}))
    assert "/cache/key/0: 'results.z.n' reads results of 'z', which is not in the graph" in unknown
    [below] = faults_of(pair({"cache": CACHE | {"key": "${results.b}"}}))
    assert "not upstream" in below
    [item] = faults_of(pair({"cache": CACHE | {"key": "${item}"}}))
    assert item.startswith("node 'a': /cache/key: 'item'")


def test_a_graph_with_a_cache_keeps_it_when_it_is_written_and_read_again() -> None:
    graph = Graph.parse(pair({"cache": {"key": {"x": ["${params.x}", 1]}, "ttl_sec": 2.5}}))
    again = Graph.parse(graph.to_dict())
    assert again.plan.nodes[0].cache == graph.plan.nodes[0].cache


def test_a_key_in_python_has_values_of_the_flow() -> None:
    @handler("find", cache={"key": "${params.name}", "ttl_sec": 5})
    async def find(name: str) -> dict[str, str]:
        return {"url": name}

    @handler("fetch")
    async def fetch(page: str) -> str:
        return page

    @flow
    def read(name: str) -> None:
        found = find(name)
        fetch("x").options(cache={"key": {"url": found.url, "n": 1}, "ttl_sec": 60})

    first, second = read.build_graph().to_dict()["nodes"]
    assert first["cache"] == {"key": "${params.name}", "ttl_sec": 5.0}
    assert second["cache"] == {"key": {"url": "${results.find.url}", "n": 1}, "ttl_sec": 60.0}
    assert second["depends_on"] == ["find"]
