"""Invalid graphs, each with its error text."""

import math
from collections import OrderedDict, UserDict
from typing import Any

import pytest

from flowkit.errors import GraphError
from flowkit.graph import Graph, Limits


def node(node_id: Any = "a", **fields: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "worker", **fields}


def call(node_id: str = "a", **fields: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "coordinator_fn", **fields}


WORK = {"node_id": "x", "type": "work"}


def subflow(**io: Any) -> dict[str, Any]:
    return {"node_id": "a", "type": "subflow", "io": io}


def loop(**io: Any) -> dict[str, Any]:
    """Return a loop with these fields beside its graph. ``while_`` is the field ``while``."""
    fields = {name.rstrip("_"): value for name, value in io.items()}
    return {"node_id": "a", "type": "loop", "io": {"graph": {"nodes": [WORK]}, **fields}}


def subflow_in_subflows(graphs: int) -> dict[str, Any]:
    """Return a sub-flow with this many graphs inside of each other."""
    found = {"nodes": [WORK]}
    for _ in range(graphs - 1):
        found = {"nodes": [subflow(graph=found)]}
    return subflow(graph=found)


def sleep(node_id: str = "a", **io: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "sleep", "io": io}


def pull(kind: str = "", **arguments: Any) -> dict[str, Any]:
    """Return the input of a node that pulls artifacts."""
    adapter = ".".join(filter(None, ("pull.from_artifacts", kind)))
    return {"io": {"input_inline": {"input_adapter": adapter, "input_args": arguments}}}


def reads_artifacts_of(parent: str) -> dict[str, Any]:
    over = {"artifacts": parent}
    return {"node_id": "m", "type": "x", "depends_on": [parent], "map": {"over": over}}


def wait(node_id: str = "a", **io: Any) -> dict[str, Any]:
    return {"node_id": node_id, "type": "wait_signal", "io": io}


def approval(**io: Any) -> dict[str, Any]:
    return {"node_id": "a", "type": "approval", "io": {"prompt": "Ship?", **io}}


def closed(properties: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON Schema that allows no other properties."""
    return {"type": "object", "properties": properties, "additionalProperties": False}


def mean(node_id: str, **arguments: Any) -> dict[str, Any]:
    return {"fn": "metrics.aggregate", "fn_args": {"node_id": node_id, **arguments}}


END = {"fn": "task.end", "fn_args": {"status": "finished"}}
MERGED = {"from_nodes": ["${params.a}"], "target": "t"}
NO_EXPRESSIONS = "expressions (${…}) are not supported here"


def chain(*fields: dict[str, Any], **graph: Any) -> dict[str, Any]:
    """Return nodes a, b, c, …; each depends on the previous one and has the given fields."""
    nodes = [
        node(chr(97 + place), depends_on=[chr(96 + place)] if place else [], **more)
        for place, more in enumerate(fields)
    ]
    return {"nodes": nodes, **graph}


def faults_of(source: Any, **options: Any) -> list[str]:
    with pytest.raises(GraphError) as caught:
        Graph.parse(source, **options)
    return [str(fault) for fault in caught.value.faults]


DEEP: list[Any] = []
for _ in range(40):
    DEEP = [DEEP]

WRONG: dict[str, tuple[Any, str]] = {
    # the document
    "a number": (3, "a graph must be an object with nodes, not a number"),
    "a list": ([node()], "a graph must be an object with nodes, not a list"),
    "null": (None, "a graph must be an object with nodes, not null"),
    "no nodes": ({}, "nodes is missing; a graph needs at least one node"),
    "empty nodes": ({"nodes": []}, "nodes is empty; a graph needs at least one node"),
    "nodes that are an object": ({"nodes": {"a": node()}}, "nodes must be a list, not an object"),
    "nodes that are a number": ({"nodes": 3}, "nodes must be a list, not 3"),
    "an unknown field of the graph": (
        {"nodes": [node()], "edgse": []},
        "unknown field 'edgse'; did you mean 'edges'?",
    ),
    "an unlike field of the graph": (
        {"nodes": [node()], "zzz": 1},
        "unknown field 'zzz'; known fields: nodes, edges, edges_ex",
    ),
    "a failure policy that does not exist": (
        chain({}, on_node_failure="contine"),
        "on_node_failure must be 'stop' or 'continue', not 'contine'; did you mean 'continue'?",
    ),
    "a deadline of zero": (chain({}, deadline_sec=0), "deadline_sec must be above 0, not 0"),
    "a deadline in a thousand years": (
        chain({}, deadline_sec=3.2e10),
        "deadline_sec must be at most 3155760000",
    ),
    "a deadline as text": (chain({}, deadline_sec="60"), "deadline_sec must be a number, not '60'"),
    "no node at a time": (
        chain({}, max_parallel=0),
        "max_parallel must be at least 1, not 0",
    ),
    "too many nodes at a time": (
        chain({}, max_parallel=2**31),
        "max_parallel must be at most 2147483647, not 2147483648",
    ),
    "half a node at a time": (
        chain({}, max_parallel=1.5),
        "max_parallel must be a whole number, not 1.5",
    ),
    "a number of nodes at a time as text": (
        chain({}, max_parallel="2"),
        "max_parallel must be a whole number, not '2'",
    ),
    "a number of nodes at a time on a node": (
        chain({"max_parallel": 2}),
        "node 'a': unknown field 'max_parallel'; it belongs in 'map'",
    ),
    "a version of the future": (
        chain({}, schema_version="7"),
        "schema_version must be '1' or '1.0', not '7'",
    ),
    "nodes by another name": (
        {"node": [node()]},
        "unknown field 'node'; did you mean 'nodes'?",
    ),
    # values
    "NaN in a policy": (
        chain({"retry_policy": {"backoff_sec": math.nan}}),
        "node 'a': retry_policy.backoff_sec is nan, which is not a finite number",
    ),
    "infinity in an input": (
        chain({"io": {"input_inline": {"x": [1, math.inf]}}}),
        "node 'a': io.input_inline.x[1] is inf, which is not a finite number",
    ),
    "an object": (
        chain({"labels": {"day": object()}}),
        "node 'a': labels.day is a Python object, which JSON cannot carry",
    ),
    "bytes": (
        chain({"io": {"input_inline": b"x"}}),
        "node 'a': io.input_inline is a Python bytes, which JSON cannot carry",
    ),
    "a set": (chain({"io": {"fn_args": {1, 2}}}), "node 'a': io.fn_args is a Python set"),
    "a mapping that is no dict": (chain({"io": UserDict()}), "node 'a': io is a Python UserDict"),
    "a number as a key": (
        chain({"io": {"input_inline": {1: "x"}}}),
        "node 'a': io.input_inline has the key 1, which is a number; keys are strings",
    ),
    "null as a key": (
        {"nodes": [node()], None: 1},
        "the graph has the key null, which is null; keys are strings",
    ),
    "a key that YAML reads as true": (
        "on: x\nnodes: [{node_id: a, type: worker}]",
        "the graph has the key True, which is a boolean; keys are strings (in YAML, write 'on',",
    ),
    "a lone surrogate": (
        chain({"labels": {"x": "\ud800"}}),
        "node 'a': labels.x is '\\ud800', which is not valid Unicode",
    ),
    "a lone surrogate in a key": (
        chain({"labels": {"\udfff": "x"}}),
        "node 'a': labels has the key '\\udfff', which is not valid Unicode",
    ),
    "bytes in a dict of another kind": (
        chain({"io": OrderedDict(input_inline=b"x")}),
        "node 'a': io.input_inline is a Python bytes, which JSON cannot carry",
    ),
    "a lone surrogate as an id": (
        {"nodes": [node("\ud800")]},
        "node_id is '\\ud800', which is not valid Unicode",
    ),
    "a number of too many digits": (
        chain({"io": {"input_inline": 10**400}}),
        "node 'a': io.input_inline is a number of too many digits",
    ),
    "deep nesting": (
        chain({"io": {"input_inline": DEEP}}),
        "nodes[0].io.input_inline…: values are nested more than 32 levels deep",
    ),
    # a node's own fields
    "a node that is a string": ({"nodes": ["a"]}, "nodes[0] must be an object, not 'a'"),
    "a node without an id": (
        {"nodes": [{"type": "x"}]},
        "nodes[0].node_id is missing; every node needs one",
    ),
    "a node without a type": (
        {"nodes": [{"node_id": "a"}]},
        "node 'a': type is missing; every node needs one",
    ),
    "an id that is a number": ({"nodes": [node(7)]}, "nodes[0].node_id must be a string, not 7"),
    "an empty id": ({"nodes": [node("")]}, "nodes[0].node_id must not be empty"),
    "a long id": (
        {"nodes": [node("x" * 201)]},
        "nodes[0].node_id must have at most 200 characters",
    ),
    "an id with a line break": (
        {"nodes": [node("a\nb")]},
        "node_id must not contain control characters, not 'a\\nb'",
    ),
    "an empty type": (
        {"nodes": [{"node_id": "a", "type": ""}]},
        "node 'a': type must not be empty",
    ),
    "a type that is a list": (
        {"nodes": [{"node_id": "a", "type": ["x"]}]},
        "node 'a': type must be a string, not a list",
    ),
    "an id given twice": (
        {"nodes": [node(), node()]},
        "node 'a': several nodes have this node_id; give each node its own",
    ),
    "a misspelt field": (
        chain({"depend_on": []}),
        "node 'a': unknown field 'depend_on'; did you mean 'depends_on'?",
    ),
    "a status": (
        chain({"status": "queued"}),
        "node 'a': the field 'status' is set while the task runs and cannot be given in a graph",
    ),
    "an attempt": (
        chain({"attempt": 1}),
        "node 'a': the field 'attempt' is set while the task runs and cannot be given in a graph",
    ),
    "a field of io outside of it": (
        chain({"start_when": "ready"}),
        "node 'a': unknown field 'start_when'; it belongs in 'io'",
    ),
    "a field of the retry policy outside of it": (
        chain({"backoff_sec": 1}),
        "node 'a': unknown field 'backoff_sec'; it belongs in 'retry_policy'",
    ),
    "a map over a text": (
        chain({"map": {"over": "params.x"}}),
        "node 'a': map.over: 'params.x' is a text; use a list, or a string that is one expression",
    ),
    "a map over an expression inside a longer text": (
        chain({"map": {"over": "all ${params.x}"}}),
        "node 'a': map.over: 'all ${params.x}' is a text; use a list",
    ),
    "a map over a number": (
        chain({"map": {"over": 3}}),
        "node 'a': map.over must be a list, a string with an expression whose value is a list, or",
    ),
    "a map over an object": (
        chain({"map": {"over": {"items": []}}}),
        "node 'a': map.over: an object must be {'artifacts': '<parent>'}, with the id of a parent",
    ),
    "a map over artifacts with another field": (
        chain({"map": {"over": {"artifacts": "b", "limit": 3}}}),
        "node 'a': map.over: an object must be {'artifacts': '<parent>'}, with the id of a parent",
    ),
    "a map over artifacts of something that is no id": (
        chain({"map": {"over": {"artifacts": ["b"]}}}),
        "node 'a': map.over: an object must be {'artifacts': '<parent>'}, with the id of a parent",
    ),
    "a map over artifacts of a node that is no parent": (
        {"nodes": [node("b"), {"node_id": "a", "type": "x", "map": {"over": {"artifacts": "b"}}}]},
        "node 'a': map.over: 'b' is not a parent of 'a'; add it to depends_on",
    ),
    "a map over artifacts of a node that is not there": (
        {"nodes": [{"node_id": "a", "type": "x", "map": {"over": {"artifacts": "b"}}}]},
        "node 'a': map.over: 'b' is not a parent of 'a'; add it to depends_on",
    ),
    "a map over artifacts of a control node": (
        {"nodes": [sleep(for_sec=1), reads_artifacts_of("a")]},
        "node 'm': map.over: 'a' is a node of the type 'sleep', which stores no artifacts",
    ),
    "a map over artifacts of a coordinator function": (
        {
            "nodes": [
                {"node_id": "a", "type": "coordinator_fn", "io": {"fn": "noop"}},
                reads_artifacts_of("a"),
            ]
        },
        "node 'm': map.over: 'a' is a node of the type 'coordinator_fn', which stores no artifacts",
    ),
    "a map over artifacts of a map": (
        {
            "nodes": [
                {"node_id": "a", "type": "x", "map": {"over": []}},
                reads_artifacts_of("a"),
            ]
        },
        "node 'm': map.over: 'a' is a map, which has no artifacts of its own; use its result",
    ),
    "a map without a list": (
        chain({"map": {}}),
        "node 'a': map.over is missing; map needs it",
    ),
    "an unknown field of a map": (
        chain({"map": {"over": [], "max_paralel": 2}}),
        "node 'a': unknown field 'max_paralel' in map; did you mean 'max_parallel'?",
    ),
    "a field of a map outside of it": (
        chain({"on_item_failure": "fail"}),
        "node 'a': unknown field 'on_item_failure'; it belongs in 'map'",
    ),
    "an unknown word for the failure of an item": (
        chain({"map": {"over": [], "on_item_failure": "stop"}}),
        "node 'a': map.on_item_failure must be 'fail' or 'continue', not 'stop'",
    ),
    "a map with no place for a child": (
        chain({"map": {"over": [], "max_parallel": 0}}),
        "node 'a': map.max_parallel",
    ),
    "an item with a name of its own meaning": (
        chain({"map": {"over": [], "as": "results"}}),
        "node 'a': map.as: 'results' has another meaning in expressions; use another name",
    ),
    "an item named like its number": (
        chain({"map": {"over": [], "as": "index"}}),
        "node 'a': map.as: 'index' has another meaning in expressions; use another name",
    ),
    "an item named with a word of expressions": (
        chain({"map": {"over": [], "as": "true"}}),
        "node 'a': map.as: 'true' has another meaning in expressions; use another name",
    ),
    "an item with a name that is none": (
        chain({"map": {"over": [], "as": "an item"}}),
        "node 'a': map.as must be a name: at most 100 letters A-Z and a-z, digits and '_'",
    ),
    "the item in the list of the items": (
        chain({"map": {"over": "${item.x}"}}),
        "node 'a': /map/over: 'item.x' uses the unknown name 'item' (at character 3)",
    ),
    "the item in the condition of a map": (
        chain({"map": {"over": []}, "when": "item > 1"}),
        "node 'a': when: 'item > 1' uses the unknown name 'item'",
    ),
    "the item of a map under its default name": (
        chain({"map": {"over": [], "as": "row"}, "io": {"input_inline": "${item}"}}),
        "known names: params, vars, results, errors, task, index, row",
    ),
    "an item without a map": (
        chain({"io": {"input_inline": "${item}"}}),
        "node 'a': /io/input_inline: 'item' uses the unknown name 'item'",
    ),
    "items of a node that is not there": (
        chain({"map": {"over": "${results.b}"}}),
        "node 'a': /map/over: 'results.b' reads results of 'b', which is not in the graph",
    ),
    "items of a node that is not above": (
        {"nodes": [{"node_id": "m", "type": "x", "map": {"over": "${results.b}"}}, node("b")]},
        "node 'm': /map/over: 'results.b' reads results of 'b', which is not upstream",
    ),
    "items that are not an expression": (
        chain({"map": {"over": "${1 +}"}}),
        "node 'a': /map/over: '1 +' is not a valid expression: expected a value, found the end",
    ),
    "a node with the id of a child": (
        {"nodes": [{"node_id": "m", "type": "x", "map": {"over": []}}, node("m[12]")]},
        "node 'm[12]': node_id: the map 'm' has children with such ids; use another id",
    ),
    "a map with a long id": (
        {"nodes": [{"node_id": "m" * 190, "type": "x", "map": {"over": []}}]},
        "node_id: the id of a map has at most 189 characters",
    ),
    "a map that starts on a first batch": (
        {
            "nodes": [
                node("a"),
                {
                    "node_id": "m",
                    "type": "x",
                    "depends_on": ["a"],
                    "map": {"over": []},
                    "io": {"start_when": "first_batch"},
                },
            ]
        },
        "node 'm': map: a map reads no batches, and one over artifacts starts on the first one",
    ),
    "a stream from a map": (
        {
            "nodes": [{"node_id": "m", "type": "x", "map": {"over": []}}, node("b")],
            "edges": [{"from": "m", "to": "b", "trigger": "on_batch"}],
        },
        "node 'b': the edge from 'm' has the trigger 'on_batch', but a map has no batches",
    ),
    "a start on the first batch of a map": (
        {
            "nodes": [
                {"node_id": "m", "type": "x", "map": {"over": []}},
                node("a"),
                {
                    "node_id": "b",
                    "type": "x",
                    "depends_on": ["a", "m"],
                    "io": {
                        "start_when": "first_batch",
                        "input_inline": {
                            "input_adapter": "pull.from_artifacts",
                            "input_args": {"from_node": "a"},
                        },
                    },
                },
            ]
        },
        "node 'b': io.start_when: the parent 'm' is a map, which has no batches of its own",
    ),
    "a reader of the artifacts of a map": (
        {
            "nodes": [
                {"node_id": "m", "type": "x", "map": {"over": []}},
                {
                    "node_id": "b",
                    "type": "x",
                    "depends_on": ["m"],
                    "io": {"input_inline": {"input_adapter": "pull.from_artifacts"}},
                },
            ]
        },
        "node 'b': reads the artifacts of the map 'm', which has none of its own",
    ),
    "the metrics of a map": (
        {
            "nodes": [
                {"node_id": "m", "type": "x", "map": {"over": []}},
                {
                    "node_id": "b",
                    "type": "coordinator_fn",
                    "depends_on": ["m"],
                    "io": {"fn": "metrics.aggregate", "fn_args": {"node_id": "m"}},
                },
            ]
        },
        "node 'b': reads the artifacts of the map 'm', which has none of its own",
    ),
    "a map of a control type": (
        {"nodes": [{"node_id": "m", "type": "sleep", "map": {"over": []}, "io": {"for_sec": 1}}]},
        "node 'm': map: a node of the type 'sleep' has no items; map a handler, a sub-flow or a",
    ),
    "a map of task.end": (
        {
            "nodes": [
                {
                    "node_id": "m",
                    "type": "coordinator_fn",
                    "map": {"over": []},
                    "io": {"fn": "task.end", "fn_args": {"status": "finished"}},
                }
            ]
        },
        "node 'm': map: task.end ends the task with the first item; remove the map",
    ),
    "the undo of a map that reads its artifacts": (
        chain(
            {
                "map": {"over": []},
                "undo": {
                    "type": "u",
                    "io": {
                        "input_inline": {
                            "input_adapter": "pull.from_artifacts",
                            "input_args": {"from_node": "a"},
                        }
                    },
                },
            }
        ),
        "the map 'a', which has none of its own; read the result of the child, 'result', or leave",
    ),
    "the undo of a map with another name of the item": (
        chain(
            {
                "map": {"over": [], "as": "order"},
                "undo": {"type": "u", "io": {"input_inline": "${item.id}"}},
            }
        ),
        "node 'a': undo: /io/input_inline: 'item.id' uses the unknown name 'item'",
    ),
    "the undo of a node with the item of a map": (
        chain({"undo": {"type": "u", "io": {"input_inline": "${index}"}}}),
        "node 'a': undo: /io/input_inline: 'index' uses the unknown name 'index'",
    ),
    "a node with the id of the undo of a child": (
        {
            "nodes": [
                {"node_id": "m", "type": "x", "map": {"over": []}, "undo": {"type": "u"}},
                node("m[3]~undo"),
            ]
        },
        "node 'm[3]~undo': node_id ends with '~undo', as the ids of undos do; choose another id",
    ),
    "a node whose undo would have the id of the undo of a child": (
        {
            "nodes": [
                {"node_id": "m", "type": "x", "map": {"over": []}, "undo": {"type": "u"}},
                node("m[3]") | {"undo": {"type": "u"}},
            ]
        },
        "node 'm[3]': node_id: the map 'm' has children with such ids; use another id",
    ),
    "a map with an undo and an id that is too long for its children": (
        {
            "nodes": [
                {"node_id": "m" * 197, "type": "x", "map": {"over": []}, "undo": {"type": "u"}}
            ]
        },
        "node_id: the id of a map with an undo has at most",
    ),
    "a map in finally with an undo": (
        {
            "nodes": [node("a")],
            "finally": [{"node_id": "m", "type": "x", "map": {"over": []}, "undo": {"type": "u"}}],
        },
        "node 'm': undo: nodes of finally are not undone; remove it",
    ),
    "a map in finally whose children have the id of another node": (
        {
            "nodes": [node("m[0]")],
            "finally": [{"node_id": "m", "type": "x", "map": {"over": []}}],
        },
        "node 'm[0]': node_id: the map 'm' has children with such ids; use another id",
    ),
    "a mapped sub-flow without a graph": (
        {"nodes": [subflow() | {"map": {"over": []}}]},
        "node 'a': io needs exactly one of graph and flow for a node of type 'subflow'",
    ),
    "a name of another item in the params of a mapped sub-flow": (
        {
            "nodes": [
                subflow(graph={"nodes": [WORK]}, params={"n": "${item}"})
                | {"map": {"over": [], "as": "row"}}
            ]
        },
        "node 'a': /io/params/n: 'item' uses the unknown name 'item'",
    ),
    "an item in the graph of a mapped sub-flow": (
        {
            "nodes": [
                subflow(graph={"nodes": [WORK | {"io": {"input_inline": "${item}"}}]})
                | {"map": {"over": []}}
            ]
        },
        "node 'a': io.graph: node 'x': /io/input_inline: 'item' uses the unknown name 'item'",
    ),
    "params of a mapped sub-flow that do not fit its graph": (
        {
            "nodes": [
                subflow(graph={"nodes": [WORK], "params": {"required": ["n"]}})
                | {"map": {"over": []}}
            ]
        },
        "node 'a': io.params: \"n\" is a required property",
    ),
    "an unknown name in the undo of a mapped sub-flow": (
        {
            "nodes": [
                subflow(graph={"nodes": [WORK]})
                | {
                    "map": {"over": []},
                    "undo": {"type": "u", "io": {"input_inline": "${results.x}"}},
                }
            ]
        },
        "node 'a': undo: /io/input_inline: 'results.x' reads results of 'x', which is not in the",
    ),
    "a reader of the artifacts of a mapped sub-flow": (
        {
            "nodes": [
                subflow(graph={"nodes": [WORK]}) | {"map": {"over": []}},
                {
                    "node_id": "b",
                    "type": "x",
                    "depends_on": ["a"],
                    "io": {"input_inline": {"input_adapter": "pull.from_artifacts"}},
                },
            ]
        },
        "node 'b': reads the artifacts of",
    ),
    # sub-flows
    "a sub-flow without a graph": (
        {"nodes": [subflow()]},
        "node 'a': io needs exactly one of graph and flow for a node of type 'subflow'",
    ),
    "a sub-flow of a graph and of a registered flow": (
        {"nodes": [subflow(flow="daily", graph={"nodes": [WORK]})]},
        "node 'a': io needs exactly one of graph and flow for a node of type 'subflow'",
    ),
    "a sub-flow of a version of a graph": (
        {"nodes": [subflow(version=2, graph={"nodes": [WORK]})]},
        "node 'a': io.version has no effect without io.flow; remove it",
    ),
    "a sub-flow whose name is an expression": (
        {"nodes": [subflow(flow="daily-${params.x}")]},
        "node 'a': io.flow is the name of a flow, not an expression; use 'when' to choose a node",
    ),
    "a sub-flow of a version that cannot be": (
        {"nodes": [subflow(flow="daily", version=0)]},
        "node 'a': io.version must be at least 1, not 0",
    ),
    "a sub-flow of a version in words": (
        {"nodes": [subflow(flow="daily", version="${params.n}")]},
        "node 'a': io.version must be a whole number, not '${params.n}'",
    ),
    "a sub-flow of a flow without a name": (
        {"nodes": [subflow(flow="")]},
        "node 'a': io.flow must not be empty",
    ),
    "a sub-flow whose graph is a list": (
        {"nodes": [subflow(graph=[WORK])]},
        "node 'a': io.graph must be an object, not",
    ),
    "a sub-flow with an empty graph": (
        {"nodes": [subflow(graph={"nodes": []})]},
        "node 'a': io.graph: nodes is empty; a graph needs at least one node",
    ),
    "33 sub-flows inside of each other": (
        {"nodes": [subflow_in_subflows(33)]},
        "node 'a': io.graph: graphs are nested 33 deep, above the limit of 32; move nodes of inner",
    ),
    "a cycle in a sub-flow": (
        {"nodes": [subflow(graph={"nodes": [WORK], "edges": [["x", "x"]]})]},
        "node 'a': io.graph: node 'x':",
    ),
    "an unknown field in the graph of a sub-flow": (
        {"nodes": [subflow(graph={"nodes": [WORK], "node": 1})]},
        "node 'a': io.graph: unknown field 'node'; did you mean 'nodes'?",
    ),
    "an expression in a sub-flow that reads a node of the parent": (
        {
            "nodes": [
                {"node_id": "p", "type": "work"},
                subflow(graph={"nodes": [WORK | {"when": "results.p == 1"}]}),
            ]
        },
        "node 'a': io.graph: node 'x': when: 'results.p == 1' reads results of 'p', which is",
    ),
    "params of a sub-flow that are a list": (
        {"nodes": [subflow(graph={"nodes": [WORK]}, params=[1])]},
        "node 'a': io.params must be an object, not",
    ),
    "params of a sub-flow that do not fit its graph": (
        {"nodes": [subflow(graph={"nodes": [WORK], "params": {"required": ["n"]}})]},
        "node 'a': io.params: \"n\" is a required property",
    ),
    "params of a sub-flow that read no node above": (
        {"nodes": [subflow(graph={"nodes": [WORK]}, params={"n": "${results.p}"})]},
        "node 'a': /io/params/n: 'results.p' reads results of 'p', which is not in the graph",
    ),
    "an unknown argument of a sub-flow": (
        {"nodes": [subflow(graph={"nodes": [WORK]}, param={})]},
        "node 'a': unknown field 'param' in io; did you mean 'params'?",
    ),
    "a sub-flow with an input": (
        {"nodes": [subflow(graph={"nodes": [WORK]}, input_inline=1)]},
        "node 'a': io.input_inline has no effect on a node of type 'subflow'",
    ),
    "a sub-flow with a heartbeat": (
        {"nodes": [subflow(graph={"nodes": [WORK]}) | {"timeouts": {"heartbeat_sec": 1}}]},
        "node 'a': timeouts.heartbeat_sec: a node of type 'subflow' sends no heartbeats",
    ),
    "a sub-flow that waits for a worker": (
        {"nodes": [subflow(graph={"nodes": [WORK]}) | {"timeouts": {"schedule_to_start_sec": 1}}]},
        "node 'a': timeouts.schedule_to_start_sec: a node of type 'subflow' does not wait for a",
    ),
    "a sub-flow that skips batches": (
        {"nodes": [subflow(graph={"nodes": [WORK]}) | {"on_batch_failure": "skip"}]},
        "node 'a': on_batch_failure: a node of type 'subflow' has no batches; remove it",
    ),
    "a sub-flow that streams": (
        {
            "nodes": [
                subflow(graph={"nodes": [WORK]}),
                {"node_id": "b", "type": "work", "io": {"start_when": "first_batch"}},
            ],
            "edges_ex": [{"from": "a", "to": "b", "trigger": "on_batch"}],
        },
        "a node of type 'subflow' produces no batches; remove it",
    ),
    "the graph of a sub-flow at a handler": (
        {"nodes": [WORK | {"io": {"graph": {"nodes": [WORK]}}}]},
        "node 'x': io.graph is only for nodes of type 'subflow' or 'loop'; change the type or",
    ),
    # loops
    "a loop without a condition": (
        {"nodes": [loop()]},
        "node 'a': io needs exactly one of while and until for a node of type 'loop'",
    ),
    "a loop with two conditions": (
        {"nodes": [loop(while_="true", until="true")]},
        "node 'a': io needs exactly one of while and until for a node of type 'loop'",
    ),
    "a loop without a graph": (
        {"nodes": [{"node_id": "a", "type": "loop", "io": {"until": "true"}}]},
        "node 'a': io needs exactly one of graph and flow for a node of type 'loop'",
    ),
    "a loop of a graph and of a registered flow": (
        {"nodes": [loop(until="true", graph={"nodes": [WORK]}, flow="daily")]},
        "node 'a': io needs exactly one of graph and flow for a node of type 'loop'",
    ),
    "a loop with an empty graph": (
        {"nodes": [loop(until="true", graph={"nodes": []})]},
        "node 'a': io.graph: nodes is empty; a graph needs at least one node",
    ),
    "a cycle in a loop": (
        {"nodes": [loop(until="true", graph={"nodes": [WORK], "edges": [["x", "x"]]})]},
        "node 'a': io.graph: node 'x':",
    ),
    "a loop in a loop without a condition": (
        {"nodes": [loop(until="true", graph={"nodes": [loop()]})]},
        "node 'a': io.graph: node 'a': io needs exactly one of while and until",
    ),
    "an unknown argument of a loop": (
        {"nodes": [loop(until="true", max_iteration=3)]},
        "node 'a': unknown field 'max_iteration' in io; did you mean 'max_iterations'?",
    ),
    "a loop without rounds": (
        {"nodes": [loop(until="true", max_iterations=0)]},
        "node 'a': io.max_iterations must be at least 1, not 0",
    ),
    "a loop with too many rounds": (
        {"nodes": [loop(until="true", max_iterations=1_000_001)]},
        "node 'a': io.max_iterations must be at most 1000000, not 1000001",
    ),
    "a loop with half a round": (
        {"nodes": [loop(until="true", max_iterations=1.5)]},
        "node 'a': io.max_iterations must be a whole number, not 1.5",
    ),
    "a loop whose rounds are true": (
        {"nodes": [loop(until="true", max_iterations=True)]},
        "node 'a': io.max_iterations must be a whole number, not True",
    ),
    "a loop with a negative pause": (
        {"nodes": [loop(until="true", delay_sec=-1)]},
        "node 'a': io.delay_sec must be at least 0, not -1",
    ),
    "a loop whose pause is true": (
        {"nodes": [loop(until="true", delay_sec=True)]},
        "node 'a': io.delay_sec must be a number, not True",
    ),
    "a loop with an endless pause": (
        {"nodes": [loop(until="true", delay_sec=1e300)]},
        "node 'a': io.delay_sec must be at most",
    ),
    "a loop whose condition is no text": (
        {"nodes": [loop(while_=True)]},
        "node 'a': io.while must be a string, not True",
    ),
    "a loop with an empty condition": (
        {"nodes": [loop(until="")]},
        "node 'a': /io/until: '' is not a valid expression:",
    ),
    "a loop whose condition is no expression": (
        {"nodes": [loop(until="previous.x ==")]},
        "node 'a': /io/until: 'previous.x ==' is not a valid expression:",
    ),
    "a loop whose condition is in braces": (
        {"nodes": [loop(until="${previous.done}")]},
        "/io/until is a bare expression: leave out '${' and '}'",
    ),
    "a loop that misspells previous": (
        {"nodes": [loop(until="previos.done")]},
        "uses the unknown name 'previos' (at character 1); did you mean 'previous'?",
    ),
    "a loop that reads a node that is not above": (
        {"nodes": [loop(while_="results.x.n > 1"), WORK]},
        "node 'a': /io/while: 'results.x.n > 1' reads results of 'x', which is not upstream of",
    ),
    "a loop whose limit depends on the round": (
        {"nodes": [loop(until="true", max_iterations="${iteration + 1}")]},
        "node 'a': /io/max_iterations: 'iteration + 1' uses the unknown name 'iteration'",
    ),
    "a round in the condition of the node": (
        {"nodes": [loop(until="true") | {"when": "iteration == 0"}]},
        "node 'a': when: 'iteration == 0' uses the unknown name 'iteration'",
    ),
    "a round in a sub-flow": (
        {"nodes": [subflow(graph={"nodes": [WORK]}, params={"n": "${iteration}"})]},
        "node 'a': /io/params/n: 'iteration' uses the unknown name 'iteration'",
    ),
    "a round in the graph of a loop": (
        {"nodes": [loop(until="true", graph={"nodes": [WORK | {"when": "previous == null"}]})]},
        "node 'a': io.graph: node 'x': when: 'previous == null' uses the unknown name 'previous'",
    ),
    "params of a loop that do not fit its graph": (
        {"nodes": [loop(until="true", graph={"nodes": [WORK], "params": {"required": ["n"]}})]},
        "node 'a': io.params: \"n\" is a required property",
    ),
    "a loop with a heartbeat": (
        {"nodes": [loop(until="true") | {"timeouts": {"heartbeat_sec": 1}}]},
        "node 'a': timeouts.heartbeat_sec: a node of type 'loop' sends no heartbeats",
    ),
    "a mapped loop": (
        {"nodes": [loop(until="previous.a == 1") | {"map": {"over": []}}]},
        "node 'a': map: a node of the type 'loop' has rounds and no items; map a sub-flow that",
    ),
    "the pause of a loop at a sub-flow": (
        {"nodes": [subflow(graph={"nodes": [WORK]}, delay_sec=1)]},
        "node 'a': unknown field 'delay_sec' in io",
    ),
    # control types
    "a sleep without a time": (
        {"nodes": [sleep()]},
        "node 'a': io needs exactly one of for_sec and until for a node of type 'sleep'",
    ),
    "a sleep with two times": (
        {"nodes": [sleep(for_sec=1, until="2030-01-01T00:00:00Z")]},
        "node 'a': io needs exactly one of for_sec and until for a node of type 'sleep'",
    ),
    "a sleep for a text": (
        {"nodes": [sleep(for_sec="1")]},
        "node 'a': io.for_sec must be a number, not '1'",
    ),
    "a sleep for less than nothing": (
        {"nodes": [sleep(for_sec=-1)]},
        "node 'a': io.for_sec must be at least 0, not -1",
    ),
    "a sleep of more than a hundred years": (
        {"nodes": [sleep(for_sec=1e12)]},
        "node 'a': io.for_sec must be at most 3155760000, not 1000000000000.0",
    ),
    "a sleep until a time without a zone": (
        {"nodes": [sleep(until="2030-01-01T00:00:00")]},
        (
            "node 'a': io.until: '2030-01-01T00:00:00' is not an ISO time with a zone, such as"
            " '2026-12-24T18:00:00+01:00'"
        ),
    ),
    "a sleep until a word": (
        {"nodes": [sleep(until="tomorrow")]},
        "node 'a': io.until: 'tomorrow' is not an ISO time with a zone",
    ),
    "a sleep until a time before the year 1": (
        {"nodes": [sleep(until="0001-01-01T00:00:00+10:00")]},
        "node 'a': io.until: '0001-01-01T00:00:00+10:00' is not an ISO time with a zone",
    ),
    "a sleep until a number": (
        {"nodes": [sleep(until=3)]},
        "node 'a': io.until must be a string, not 3",
    ),
    "an unknown argument of a sleep": (
        {"nodes": [sleep(for_secs=3)]},
        "node 'a': unknown field 'for_secs' in io; did you mean 'for_sec'?",
    ),
    "a sleep with the input of a worker": (
        {"nodes": [sleep(for_sec=3, input_inline=1)]},
        (
            "node 'a': io.input_inline has no effect on a node of type 'sleep'; known fields:"
            " for_sec, until"
        ),
    ),
    "an argument of a sleep on a worker's node": (
        {"nodes": [node(io={"for_sec": 3})]},
        (
            "node 'a': io.for_sec is only for nodes of type 'sleep'; change the type or remove"
            " io.for_sec"
        ),
    ),
    "an argument of a sleep on a coordinator function": (
        {"nodes": [call(io={"fn": "noop", "until": "x"})]},
        "node 'a': io.until is only for nodes of type 'sleep' or 'loop'; change the type or",
    ),
    "an expression of a sleep that cannot be read": (
        {"nodes": [sleep(for_sec="${1 +}")]},
        "node 'a': /io/for_sec: '1 +' is not a valid expression",
    ),
    "an expression of a sleep that reads a node below": (
        {"nodes": [sleep(for_sec="${results.b}"), node("b", depends_on=["a"])]},
        "node 'a': /io/for_sec: 'results.b' reads results of 'b', which is not upstream",
    ),
    "a sleep that waits for a worker": (
        {"nodes": [sleep(for_sec=3) | {"timeouts": {"schedule_to_start_sec": 1}}]},
        (
            "node 'a': timeouts.schedule_to_start_sec: a node of type 'sleep' does not wait for a"
            " worker; use start_to_close_sec or remove it"
        ),
    ),
    "a sleep with heartbeats": (
        {"nodes": [sleep(for_sec=3) | {"timeouts": {"heartbeat_sec": 1}}]},
        "node 'a': timeouts.heartbeat_sec: a node of type 'sleep' sends no heartbeats",
    ),
    "a sleep whose limit is never reached": (
        {"nodes": [sleep(for_sec=3) | {"timeouts": {"start_to_close_sec": 3}}]},
        (
            "node 'a': timeouts.start_to_close_sec has no effect: the node ends after io.for_sec"
            " (3 s) at the latest; remove it"
        ),
    ),
    "a sleep that is retried without a limit": (
        {"nodes": [sleep(for_sec=3) | {"retry_policy": {"max": 1}}]},
        (
            "node 'a': retry_policy: a node of type 'sleep' is retried only after"
            " timeouts.start_to_close_sec; add that limit or remove the policy"
        ),
    ),
    "a sleep with a policy for batches": (
        {"nodes": [sleep(for_sec=3) | {"on_batch_failure": "skip"}]},
        "node 'a': on_batch_failure: a node of type 'sleep' has no batches; remove it",
    ),
    "a sleep with a concurrency key": (
        {"nodes": [sleep(for_sec=3) | {"concurrency_key": "k"}]},
        "node 'a': concurrency_key: a node of type 'sleep' takes no place of a key; remove it",
    ),
    "a sleep with a concurrency": (
        {"nodes": [sleep(for_sec=3) | {"concurrency": {"key": "k"}}]},
        "node 'a': concurrency: a node of type 'sleep' takes no place of a key; remove it",
    ),
    "a sleep with a priority": (
        {"nodes": [sleep(for_sec=3) | {"priority": 1}]},
        "node 'a': priority: a node of type 'sleep' starts as soon as it may; remove it",
    ),
    "a sleep that starts on a batch": (
        {"nodes": [node("b"), sleep(for_sec=3, start_when="first_batch") | {"depends_on": ["b"]}]},
        "node 'a': io.start_when has no effect on a node of type 'sleep'",
    ),
    "a stream into a sleep": (
        {
            "nodes": [node("b"), sleep(for_sec=3)],
            "edges": [{"from": "b", "to": "a", "trigger": "on_batch"}],
        },
        (
            "node 'a': the edge from 'b' has the trigger 'on_batch', but a node of type 'sleep'"
            " reads no batches; remove it"
        ),
    ),
    "a stream out of a sleep": (
        {
            "nodes": [node("b"), sleep(for_sec=3)],
            "edges": [{"from": "a", "to": "b", "trigger": "on_batch"}],
        },
        (
            "node 'b': the edge from 'a' has the trigger 'on_batch', but a node of type 'sleep'"
            " produces no batches; remove it"
        ),
    ),
    "a wait for no signal": (
        {"nodes": [wait()]},
        "node 'a': io.signal is missing; io needs it",
    ),
    "a wait for a signal with an empty name": (
        {"nodes": [wait(signal="")]},
        "node 'a': io.signal must not be empty",
    ),
    "a wait for a number": (
        {"nodes": [wait(signal=1)]},
        "node 'a': io.signal must be a string, not 1",
    ),
    "a wait for a signal that takes no time": (
        {"nodes": [wait(signal="go", timeout_sec=0)]},
        "node 'a': io.timeout_sec must be above 0, not 0",
    ),
    "a wait for a signal that goes on in an unknown way": (
        {"nodes": [wait(signal="go", timeout_sec=1, on_timeout="skipp")]},
        "node 'a': io.on_timeout must be 'fail' or 'skip', not 'skipp'; did you mean 'skip'?",
    ),
    "a policy for a timeout without one": (
        {"nodes": [wait(signal="go", on_timeout="skip")]},
        "node 'a': io.on_timeout has no effect without io.timeout_sec; add it or remove on_timeout",
    ),
    "an expression in place of a policy for timeouts": (
        {"nodes": [wait(signal="go", timeout_sec=1, on_timeout="${params.x}")]},
        "node 'a': io.on_timeout must be 'fail' or 'skip', not '${params.x}'",
    ),
    "a schema of a payload that is no object": (
        {"nodes": [wait(signal="go", schema=True)]},
        "node 'a': io.schema must be an object, not True",
    ),
    "a schema of a payload with an unknown type": (
        {"nodes": [wait(signal="go", schema={"type": "text"})]},
        "node 'a': io.schema.type: ",
    ),
    "a schema of a payload that refers to an address": (
        {"nodes": [wait(signal="go", schema={"$ref": "http://example.org/x"})]},
        "node 'a': io.schema: $ref 'http://example.org/x' is not one of the schema's own",
    ),
    "a wait for a signal whose limit is never reached": (
        {"nodes": [wait(signal="x", timeout_sec=2) | {"timeouts": {"start_to_close_sec": 3}}]},
        "node 'a': timeouts.start_to_close_sec has no effect: the node ends after io.timeout_sec",
    ),
    "an approval without a question": (
        {"nodes": [approval() | {"io": {}}]},
        "node 'a': io.prompt is missing; io needs it",
    ),
    "an approval with an empty question": (
        {"nodes": [approval(prompt="")]},
        "node 'a': io.prompt must not be empty",
    ),
    "an approval without choices": (
        {"nodes": [approval(choices=[])]},
        "node 'a': io.choices is empty; name at least one, or remove it",
    ),
    "an approval with the same choice twice": (
        {"nodes": [approval(choices=["yes", "yes"])]},
        "node 'a': io.choices has a value twice; remove one",
    ),
    "an approval with a choice that is a number": (
        {"nodes": [approval(choices=[1])]},
        "node 'a': io.choices[0] must be a string, not 1",
    ),
    "an approval with choices as text": (
        {"nodes": [approval(choices="yes")]},
        "node 'a': io.choices must be a list, not 'yes'",
    ),
    "an approval without assignees": (
        {"nodes": [approval(assignees=[])]},
        "node 'a': io.assignees is empty; name at least one, or remove it",
    ),
    "an approval that cannot be rejected but says what then": (
        {"nodes": [approval(choices=["yes", "no"], on_reject="continue")]},
        "node 'a': io.on_reject has no effect without the choice 'reject'; remove on_reject",
    ),
    "an approval that goes on in an unknown way": (
        {"nodes": [approval(on_reject="skip")]},
        "node 'a': io.on_reject must be 'fail' or 'continue', not 'skip'",
    ),
    "an approval with a form of no object": (
        {"nodes": [approval(form={"type": "array"})]},
        "node 'a': io.form: the type of the schema must be 'object', not 'array'",
    ),
    "an approval with a form that nothing can match": (
        {"nodes": [approval(form={"required": ["n"], "properties": {"n": False}})]},
        "node 'a': io.form: the required property 'n' has the schema false",
    ),
    "an approval with a form with an unknown type": (
        {"nodes": [approval(form={"properties": {"n": {"type": "text"}}})]},
        "node 'a': io.form.properties.n.type: ",
    ),
    "an approval with a policy for a timeout without one": (
        {"nodes": [approval(on_timeout="skip")]},
        "node 'a': io.on_timeout has no effect without io.timeout_sec",
    ),
    "an argument of two types on a worker's node": (
        {"nodes": [node(io={"timeout_sec": 1})]},
        "node 'a': io.timeout_sec is only for nodes of type 'wait_signal' or 'approval'; change",
    ),
    "an argument of a wait on a worker's node": (
        {"nodes": [node(io={"signal": "go"})]},
        "node 'a': io.signal is only for nodes of type 'wait_signal'; change the type or remove",
    ),
    "depends_on as text": (
        {"nodes": [node(), node("b", depends_on="a")]},
        "node 'b': depends_on must be a list, not 'a'",
    ),
    "depends_on with a number": (
        {"nodes": [node(depends_on=[1])]},
        "node 'a': depends_on[0] must be a string, not 1",
    ),
    "a priority with a fraction": (
        chain({"priority": 1.5}),
        "node 'a': priority must be a whole number, not 1.5",
    ),
    "a priority that is true": (
        chain({"priority": True}),
        "node 'a': priority must be a whole number, not True",
    ),
    "a priority out of range": (
        chain({"priority": 2**40}),
        "node 'a': priority must be at most 2147483647",
    ),
    "an empty concurrency key": (
        chain({"concurrency_key": ""}),
        "node 'a': concurrency_key must not be empty",
    ),
    "labels that are a list": (
        chain({"labels": ["x"]}),
        "node 'a': labels must be an object, not a list",
    ),
    "a label that is a number": (
        chain({"labels": {"x": 1}}),
        "node 'a': labels.x must be a string, not 1",
    ),
    "the key of a label with an equals sign": (
        chain({"labels": {"x=y": "z"}}),
        "node 'a': labels: 'x=y' cannot be the key of a label",
    ),
    # policies
    "negative retries": (
        chain({"retry_policy": {"max": -1}}),
        "node 'a': retry_policy.max must be at least 0, not -1",
    ),
    "retries as text": (
        chain({"retry_policy": {"max": "3"}}),
        "node 'a': retry_policy.max must be a whole number, not '3'",
    ),
    "half a retry": (
        chain({"retry_policy": {"max": 2.5}}),
        "node 'a': retry_policy.max must be a whole number, not 2.5",
    ),
    "a negative pause": (
        chain({"retry_policy": {"backoff_sec": -1}}),
        "node 'a': retry_policy.backoff_sec must be at least 0, not -1",
    ),
    "a pause of a thousand years": (
        chain({"retry_policy": {"backoff_sec": 3.2e10}}),
        "node 'a': retry_policy.backoff_sec must be at most 3155760000",
    ),
    "a pause above the longest pause": (
        chain({"retry_policy": {"backoff_sec": 90, "max_backoff_sec": 60}}),
        "node 'a': retry_policy.backoff_sec is 90, which is above max_backoff_sec, 60; raise max",
    ),
    "a pause of an undo above the longest pause": (
        chain({"undo": {"type": "x", "retry_policy": {"backoff_sec": 2, "max_backoff_sec": 1}}}),
        "node 'a': undo: retry_policy.backoff_sec is 2, which is above max_backoff_sec, 1",
    ),
    "a negative multiplier": (
        chain({"retry_policy": {"multiplier": -2}}),
        "node 'a': retry_policy.multiplier must be at least 0, not -2",
    ),
    "a negative longest pause": (
        chain({"retry_policy": {"max_backoff_sec": -2}}),
        "retry_policy.max_backoff_sec must be at least 0, not -2",
    ),
    "jitter above one": (
        chain({"retry_policy": {"jitter": 1.5}}),
        "node 'a': retry_policy.jitter must be at most 1, not 1.5",
    ),
    "a negative budget": (
        chain({"retry_policy": {"budget_sec": -1}}),
        "node 'a': retry_policy.budget_sec must be at least 0, not -1",
    ),
    "permanent_on as text": (
        chain({"retry_policy": {"permanent_on": "x"}}),
        "node 'a': retry_policy.permanent_on must be a list, not 'x'",
    ),
    "an unknown policy for batches": (
        chain({"on_batch_failure": "ignore"}),
        "node 'a': on_batch_failure must be 'fail' or 'skip', not 'ignore'",
    ),
    "a policy for batches where there are none": (
        chain({"type": "coordinator_fn", "io": {"fn": "noop"}, "on_batch_failure": "skip"}),
        "node 'a': on_batch_failure: a coordinator function has no batches; remove it",
    ),
    "a misspelt policy": (
        chain({"retry_policy": {"backof_sec": 1}}),
        "node 'a': unknown field 'backof_sec' in retry_policy; did you mean 'backoff_sec'?",
    ),
    "a policy that is a number": (
        chain({"retry_policy": 3}),
        "node 'a': retry_policy must be an object, not 3",
    ),
    "a policy that is null": (
        chain({"retry_policy": None}),
        "node 'a': retry_policy must be an object, not null",
    ),
    "a timeout of zero": (
        chain({"timeouts": {"start_to_close_sec": 0}}),
        "node 'a': timeouts.start_to_close_sec must be above 0, not 0",
    ),
    "a negative heartbeat": (
        chain({"timeouts": {"heartbeat_sec": -1}}),
        "node 'a': timeouts.heartbeat_sec must be above 0, not -1",
    ),
    "a timeout as text": (
        chain({"timeouts": {"schedule_to_start_sec": "5s"}}),
        "timeouts.schedule_to_start_sec must be a number, not '5s'",
    ),
    "a timeout that does not exist": (
        chain({"timeouts": {"total": 1}}),
        "unknown field 'total' in timeouts; known fields: schedule_to",
    ),
    # keys, rates and caches
    "a key of the graph without a name": (
        {"nodes": [node("a")], "concurrency": {}},
        "concurrency.key is missing; concurrency needs it",
    ),
    "a key of a node without a name": (
        chain({"concurrency": {"limit": 2}}),
        "node 'a': concurrency.key is missing; concurrency needs it",
    ),
    "an unknown field of the key of the graph": (
        {"nodes": [node("a")], "concurrency": {"key": "k", "limits": 2}},
        "unknown field 'limits' in concurrency; did you mean 'limit'?",
    ),
    "an unknown field of the key of a node": (
        chain({"concurrency": {"key": "k", "limits": 2}}),
        "node 'a': unknown field 'limits' in concurrency; did you mean 'limit'?",
    ),
    "an unknown field of a rate": (
        chain({"rate_limit": {"key": "k", "limit": 2, "per_sec": 1, "per_second": 1}}),
        "node 'a': unknown field 'per_second' in rate_limit; did you mean 'per_sec'?",
    ),
    "an unknown field of a cache": (
        chain({"cache": {"key": "k", "ttl_sec": 1, "ttl": 1}}),
        "node 'a': unknown field 'ttl' in cache; did you mean 'ttl_sec'?",
    ),
    "a field of a rate beside it": (
        chain({"per_sec": 1}),
        "node 'a': unknown field 'per_sec'; it belongs in 'rate_limit'",
    ),
    # io
    "an unknown field of io": (
        chain({"io": {"input_inlin": 1}}),
        "unknown field 'input_inlin' in io; did you mean 'input_inline'?",
    ),
    "an unknown start": (
        chain({"io": {"start_when": "first_bach"}}),
        "io.start_when must be 'ready' or 'first_batch', not 'first_bach'; did",
    ),
    "an input_ref that is a number": (
        chain({"io": {"input_ref": 3}}),
        "node 'a': io.input_ref must be an object or a string, not a number",
    ),
    "batches of none": (
        chain({"io": {"batching": {"size": 0}}}),
        "node 'a': io.batching.size must be at least 1, not 0",
    ),
    "batches without a size": (
        chain({"io": {"batching": {}}}),
        "node 'a': io.batching.size is missing",
    ),
    "batches by an unknown rule": (
        chain({"io": {"batching": {"size": 1, "by": "x"}}}),
        "unknown field 'by' in io.batching; known fields:",
    ),
    "batches of none in time": (
        chain({"io": {"batching": {"size": 1, "max_wait_sec": 0}}}),
        "node 'a': io.batching.max_wait_sec must be",
    ),
    "a time for batches of a list": (
        chain({"io": {"input_inline": [1], "batching": {"size": 1, "max_wait_sec": 5}}}),
        "node 'a': io.batching.max_wait_sec: all items of a list are there when the node starts",
    ),
    "batches at once of an input that is one batch": (
        chain({"io": {"parallel": 2}}),
        "node 'a': io.parallel: the input of the node is one batch; remove it, or let",
    ),
    "no batch at once": (
        chain({"io": {"parallel": 0, "batching": {"size": 1}}}),
        "node 'a': io.parallel must be at least 1, not 0",
    ),
    "batches at once in an undo": (
        chain({"undo": {"type": "w", "io": {"parallel": 2}}}),
        "node 'a': undo: io.parallel: the input of the node is one batch",
    ),
    "batches at once of a control node": (
        {"nodes": [node("a", type="sleep", io={"for_sec": 1, "parallel": 2})]},
        "node 'a': io.parallel has no effect on a node of type 'sleep'",
    ),
    "batches at once of a function": (
        {"nodes": [call(io={"fn": "noop", "parallel": 2})]},
        "node 'a': io.parallel: a coordinator function",
    ),
    "shards of a node that pulls nothing": (
        chain({}, {"io": {"shards": 2}}),
        "node 'b': io.shards: shards divide the artifacts that a node pulls; remove it, or let",
    ),
    "shards of a list": (
        chain({"io": {"input_inline": [1], "batching": {"size": 1}, "shards": 2}}),
        "node 'a': io.shards: shards divide the artifacts that a node pulls",
    ),
    "shards with the adapter of a plugin": (
        chain(
            {},
            {
                "io": {
                    "start_when": "first_batch",
                    "input_inline": {"input_adapter": "lines"},
                    "shards": 2,
                }
            },
        ),
        "node 'b': io.shards: shards divide the artifacts that a node pulls",
    ),
    "no shards": (
        chain({}, {"io": {"start_when": "first_batch", "shards": 0}}),
        "node 'b': io.shards must be at least 1, not 0",
    ),
    "too many shards": (
        chain({}, {"io": {"start_when": "first_batch", "shards": 1001}}),
        "node 'b': io.shards must be at most 1000, not 1001",
    ),
    "shards of a map": (
        chain(
            {},
            {
                "map": {"over": [1]},
                "io": {"input_inline": {"input_adapter": "pull.from_artifacts"}, "shards": 2},
            },
        ),
        "node 'b': io.shards: a map has no shards: each of its children runs by itself; remove it",
    ),
    "shards of an undo": (
        chain(
            {
                "undo": {
                    "type": "w",
                    "io": {"input_inline": {"input_adapter": "pull.from_artifacts"}, "shards": 2},
                }
            }
        ),
        "node 'a': undo: io.shards: an undo has no shards; remove it",
    ),
    "shards of a node with a cache": (
        chain(
            {},
            {
                "cache": {"key": "k", "ttl_sec": 1},
                "io": {"start_when": "first_batch", "shards": 2},
            },
        ),
        "node 'b': io.shards: a node with a cache has no shards; remove it",
    ),
    "shards that a busy key would skip": (
        chain(
            {},
            {
                "concurrency": {"key": "k", "on_conflict": "skip"},
                "io": {"start_when": "first_batch", "shards": 2},
            },
        ),
        "concurrency.on_conflict is 'skip', but each shard takes a place, and the artifacts",
    ),
    "shards of a function": (
        {"nodes": [call(io={"fn": "noop", "shards": 2})]},
        "node 'a': io.shards: a coordinator function",
    ),
    "shards of a control node": (
        {"nodes": [node("a", type="sleep", io={"for_sec": 1, "shards": 2})]},
        "node 'a': io.shards has no effect on a node of type 'sleep'",
    ),
    "the id of a shard": (
        {
            "nodes": [
                node("a"),
                node("b", depends_on=["a"], io={"start_when": "first_batch", "shards": 2}),
                node("b[7]"),
            ]
        },
        "node 'b[7]': node_id: the shards of 'b' have such ids; use another id",
    ),
    "a long id of a node with shards": (
        {
            "nodes": [
                node("a"),
                node("b" * 195, depends_on=["a"], io={"start_when": "first_batch", "shards": 2}),
            ]
        },
        "node_id: the id of a node with shards has at most 189 characters, because its shards have",
    ),
    "a lead of nodes that the node does not read": (
        chain({}, {"io": {"max_ahead": 5}}),
        "node 'b': io.max_ahead: the node reads no artifacts of other nodes; remove it, or let",
    ),
    "a lead of a list": (
        chain({"io": {"input_inline": [1], "batching": {"size": 1}, "max_ahead": 5}}),
        "node 'a': io.max_ahead: the node reads no artifacts of other nodes",
    ),
    "a lead of nodes that have ended": (
        chain(
            {}, {"io": {"input_inline": {"input_adapter": "pull.from_artifacts"}, "max_ahead": 5}}
        ),
        "node 'b': io.max_ahead: the nodes that it reads have ended when the node starts",
    ),
    "no lead": (
        chain({}, {"io": {"start_when": "first_batch", "max_ahead": 0}}),
        "node 'b': io.max_ahead must be at least 1, not 0",
    ),
    "a lead of a function": (
        {"nodes": [call(io={"fn": "noop", "max_ahead": 2})]},
        "node 'a': io.max_ahead: a coordinator function",
    ),
    "a time for batches of a list in an undo": (
        chain({"undo": {"type": "w", "io": {"batching": {"size": 1, "max_wait_sec": 5}}}}),
        "node 'a': undo: io.batching.max_wait_sec: all items of a list are there",
    ),
    "a time for batches in a map": (
        chain({"map": {"over": [[1]]}, "io": {"batching": {"size": 1, "max_wait_sec": 5}}}),
        "node 'a': io.batching.max_wait_sec: all items of a list are there when the node starts",
    ),
    "a time for batches of artifacts that are all there": (
        chain(
            {},
            {
                "io": {
                    "input_inline": {"input_adapter": "pull.from_artifacts"},
                    "batching": {"size": 1, "max_wait_sec": 5},
                }
            },
        ),
        "node 'b': io.batching.max_wait_sec: the nodes that it reads have ended when",
    ),
    "a time for batches of artifacts in an undo": (
        chain(
            {
                "undo": {
                    "type": "w",
                    "io": {
                        "input_inline": {"input_adapter": "pull.from_artifacts"},
                        "batching": {"size": 1, "max_wait_sec": 5},
                    },
                }
            }
        ),
        "node 'a': undo: io.batching.max_wait_sec: the nodes that it reads have ended",
    ),
    "batches of pieces of artifacts": (
        chain(
            {},
            {
                "io": {
                    "batching": {"size": 2},
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts.rechunk:size",
                        "input_args": {"size": 2},
                    },
                }
            },
        ),
        (
            "node 'b': io.batching cannot be combined with the input_adapter"
            " 'pull.from_artifacts.rechunk:size', which has a size of its own"
        ),
    ),
    "batches of another adapter": (
        chain(
            {},
            {
                "io": {
                    "batching": {"size": 2},
                    "start_when": "first_batch",
                    "input_inline": {"input_adapter": "s3.lines"},
                }
            },
        ),
        "node 'b': io.batching cannot be combined with the input_adapter 's3.lines'; it makes",
    ),
    "an adapter reading an unknown node": (
        chain(
            {},
            {
                "io": {
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts",
                        "input_args": {"from_nodes": ["a", "aa"]},
                    }
                }
            },
        ),
        (
            "node 'b': io.input_inline.input_args.from_nodes reads 'aa', which is not in the graph;"
            " did you mean 'a'?"
        ),
    ),
    "an adapter reading one unknown node": (
        chain(
            {},
            {
                "io": {
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts",
                        "input_args": {"from_node": "q"},
                    }
                }
            },
        ),
        (
            "node 'b': io.input_inline.input_args.from_node reads 'q', which is not in the graph;"
            " add that node or remove the name"
        ),
    ),
    "an adapter reading its own node": (
        chain(
            {
                "io": {
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts",
                        "input_args": {"from_node": "a"},
                    }
                }
            }
        ),
        "node 'a': io.input_inline.input_args.from_node reads the node itself",
    ),
    "a pull from no node": (
        chain(
            {},
            {
                "io": {
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts",
                        "input_args": {"from_nodes": []},
                    }
                }
            },
        ),
        (
            "node 'b': io.input_inline.input_args.from_nodes is empty, so 'pull.from_artifacts' has"
            " nothing to pull; name upstream nodes"
        ),
    ),
    "a pull from no node into a root": (
        chain(
            {
                "io": {
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts",
                        "input_args": {"from_nodes": []},
                    }
                }
            }
        ),
        "node 'a': io.input_inline.input_args.from_nodes is empty",
    ),
    "a pull into a root": (
        chain({"io": {"input_inline": {"input_adapter": "pull.from_artifacts"}}}),
        (
            "node 'a': the input adapter 'pull.from_artifacts' pulls the artifacts of parents, but"
            " the node has no parents; add edges to it"
        ),
    ),
    "a pull in pieces into a root": (
        chain(
            {
                "io": {
                    "input_inline": {
                        "input_adapter": "pull.from_artifacts.rechunk:size",
                        "input_args": {"size": 2},
                    }
                }
            }
        ),
        (
            "node 'a': the input adapter 'pull.from_artifacts.rechunk:size' pulls the artifacts of"
            " parents, but the node has no parents"
        ),
    ),
    "a size that is no number": (
        chain({}, pull("rechunk:size", size="ten")),
        "node 'b': io.input_inline.input_args.size must be a whole number from 1 on, not 'ten'",
    ),
    "a pull in pieces without a size": (
        chain({}, pull("rechunk:size", meta_list_key="rows")),
        "node 'b': io.input_inline.input_args.size is missing; give the number of items of a batch",
    ),
    "a size of a pull that makes no pieces": (
        chain({}, pull(size=2)),
        "node 'b': io.input_inline.input_args: there is no argument 'size'; remove it",
    ),
    "a list whose name is a number": (
        chain({}, pull("rechunk:size", size=2, meta_list_key=1)),
        (
            "node 'b': io.input_inline.input_args.meta_list_key must be the name of a list in the"
            " artifacts, not 1"
        ),
    ),
    "polls without a pause": (
        chain({}, pull(poll_ms=0)),
        "node 'b': io.input_inline.input_args.poll_ms must be a whole number from 1 on, not 0",
    ),
    "arguments that are no object": (
        chain(
            {},
            {"io": {"input_inline": {"input_adapter": "pull.from_artifacts", "input_args": ["a"]}}},
        ),
        "node 'b': io.input_inline.input_args must be an object, not a list",
    ),
    "one source and several": (
        chain({}, pull(from_node="a", from_nodes=["a"])),
        "node 'b': io.input_inline.input_args has from_node and from_nodes; give one of them",
    ),
    "several sources in a text": (
        chain({}, pull(from_nodes="a")),
        ("node 'b': io.input_inline.input_args.from_nodes must be a list of ids of nodes, not 'a'"),
    ),
    "one source in a list": (
        chain({}, pull(from_node=["a"])),
        "node 'b': io.input_inline.input_args.from_node must be the id of a node, not a list",
    ),
    "a pull from a sleep": (
        {"nodes": [sleep(for_sec=3), node("b") | {"depends_on": ["a"]} | pull(from_nodes=["a"])]},
        (
            "node 'b': io.input_inline.input_args.from_nodes reads 'a', but a node of type 'sleep'"
            " produces no artifacts; remove it"
        ),
    ),
    "a start on the first batch of a sleep": (
        {
            "nodes": [
                sleep(for_sec=3),
                node("b") | {"depends_on": ["a"], "io": {"start_when": "first_batch"}},
            ]
        },
        (
            "node 'b': io.start_when is 'first_batch', but the node waits for 'a', and a node of"
            " type 'sleep' produces no batches; add an edge from another node or remove it"
        ),
    ),
    "a stream without a source": (
        chain({"io": {"start_when": "first_batch"}}),
        "node 'a': io.start_when is 'first_batch', but the node has no",
    ),
    "a stream over a route": (
        {
            "nodes": [
                node(routing={"on_success": ["b"]}),
                node("b", io={"start_when": "first_batch"}),
            ]
        },
        "node 'b': io.start_when is 'first_batch', but the node has only parents that route to it",
    ),
    # coordinator functions
    "a call with a limit on waiting for a worker": (
        {"nodes": [call(io={"fn": "noop"}, timeouts={"schedule_to_start_sec": 5})]},
        (
            "node 'a': timeouts.schedule_to_start_sec: a coordinator function does not wait for a"
            " worker; use start_to_close_sec or remove it"
        ),
    ),
    "a call with a limit between heartbeats": (
        {
            "nodes": [
                call(io={"fn": "noop"}, timeouts={"heartbeat_sec": 5, "start_to_close_sec": 9})
            ]
        },
        (
            "node 'a': timeouts.heartbeat_sec: a coordinator function sends no heartbeats; use"
            " start_to_close_sec or remove it"
        ),
    ),
    "a call of nothing": (
        {"nodes": [call()]},
        "node 'a': io.fn is missing; a node of type 'coordinator_fn' needs it",
    ),
    "a call with input": (
        {"nodes": [call(io={"fn": "noop", "input_inline": {}})]},
        "node 'a': io.input_inline: a coordinator function has no",
    ),
    "a call with a reference": (
        {"nodes": [call(io={"fn": "noop", "input_ref": "x"})]},
        "node 'a': io.input_ref: a coordinator function has no",
    ),
    "a call with batches": (
        {"nodes": [call(io={"fn": "noop", "batching": {"size": 1}})]},
        "node 'a': io.batching: a coordinator function",
    ),
    "a call that streams": (
        {
            "nodes": [
                node(),
                call("b", depends_on=["a"], io={"fn": "noop", "start_when": "first_batch"}),
            ]
        },
        "node 'b': io.start_when: a coordinator function reads no batches",
    ),
    "a function in a worker's node": (
        chain({"io": {"fn": "noop"}}),
        "node 'a': io.fn is only for nodes of type 'coordinator_fn'; change the type",
    ),
    "arguments in a worker's node": (
        chain({"io": {"fn_args": {"x": 1}}}),
        "node 'a': io.fn_args is only for nodes of type 'coordinator_fn'",
    ),
    "a merge of an unknown node": (
        {
            "nodes": [
                call(io={"fn": "merge.generic", "fn_args": {"from_nodes": ["x"], "target": "t"}})
            ]
        },
        "node 'a': io.fn_args.from_nodes reads 'x', which is not in the graph",
    ),
    "metrics of an unknown node": (
        {"nodes": [call(io={"fn": "metrics.aggregate", "fn_args": {"node_id": "x"}})]},
        "node 'a': io.fn_args.node_id reads 'x', which is not in the graph",
    ),
    # edges
    "waiting for an unknown node": (
        {"nodes": [node("extract"), node("load", depends_on=["extrat"])]},
        "node 'load': waits for 'extrat', which is not in the graph; did you mean 'extract'?",
    ),
    "waiting for itself": (
        {"nodes": [node(depends_on=["a"])]},
        "node 'a': depends_on contains the node itself; remove it",
    ),
    "an edge from nowhere": (
        chain({}, edges=[["x", "a"]]),
        "node 'a': edges[0] comes from 'x', which is not in the graph",
    ),
    "an edge to nowhere": (
        chain({}, edges_ex=[{"from": "a", "to": "x"}]),
        "node 'a': edges_ex[0] leads to 'x', which is not in the graph",
    ),
    "an edge to itself": (
        chain({}, edges=[["a", "a"]]),
        "node 'a': edges[0] leads from the node to itself",
    ),
    "an edge of three": (
        chain({}, edges=[["a", "b", "c"]]),
        'edges[0]: an edge is ["from", "to"] or an object with from and to',
    ),
    "an edge of one": (chain({}, edges=[["a"]]), 'edges[0]: an edge is ["from", "to"]'),
    "an edge that is text": (chain({}, edges=["a->b"]), "edges[0] must be an object, not 'a->b'"),
    "an edge without an end": (
        chain({}, edges=[{"from": "a"}]),
        "edges[0].to is missing; every edge needs one",
    ),
    "an edge between numbers": (chain({}, edges=[[1, 2]]), "edges[0].from must be a string, not 1"),
    "an edge with an unknown field": (
        chain({}, {}, edges_ex=[{"from": "a", "to": "b", "triger": "on_done"}]),
        "'triger' in edges_ex[0]; did you mean 'trigger'?",
    ),
    "an edge by its Python name": (
        chain({}, {}, edges=[{"source": "a", "to": "b"}]),
        "unknown field 'source' in edges[0]",
    ),
    "an unknown mode": (
        chain({}, {}, edges=[{"from": "a", "to": "b", "mode": "asink"}]),
        "edges[0].mode must be 'sync' or 'async', not 'asink'",
    ),
    "an unknown trigger": (
        chain({}, {}, edges=[{"from": "a", "to": "b", "trigger": "done"}]),
        "edges[0].trigger must be 'on_done' or 'on_batch'",
    ),
    "a stream that waits": (
        chain({}, {}, edges=[{"from": "a", "to": "b", "mode": "sync", "trigger": "on_batch"}]),
        (
            "node 'b': edges[0]: the edge from 'a' has the trigger 'on_batch', which needs the mode"
            " 'async'"
        ),
    ),
    "an edge with two triggers": (
        chain(
            {},
            {},
            edges=[{"from": "a", "to": "b", "trigger": "on_done"}],
            edges_ex=[{"from": "a", "to": "b", "trigger": "on_batch"}],
        ),
        (
            "node 'b': edges_ex[0]: the edge from 'a' is given twice with a different mode or"
            " trigger; remove one"
        ),
    ),
    "a stream into a function": (
        {
            "nodes": [node(), call("b", io={"fn": "noop"})],
            "edges": [{"from": "a", "to": "b", "trigger": "on_batch"}],
        },
        (
            "node 'b': the edge from 'a' has the trigger 'on_batch', but a coordinator function"
            " reads no batches"
        ),
    ),
    "a stream out of a function": (
        {
            "nodes": [call(io={"fn": "noop"}), node("b")],
            "edges": [{"from": "a", "to": "b", "trigger": "on_batch"}],
        },
        (
            "node 'b': the edge from 'a' has the trigger 'on_batch', but a coordinator function"
            " produces no batches"
        ),
    ),
    "a route that streams": (
        {
            "nodes": [node(routing={"on_failure": ["b"]}), node("b")],
            "edges": [{"from": "a", "to": "b", "trigger": "on_batch"}],
        },
        (
            "node 'b': the edge from 'a' has the trigger 'on_batch', but 'a' routes to the node"
            " when it ends"
        ),
    ),
    "a cycle": (
        {
            "nodes": [
                node(depends_on=["c"]),
                node("b", depends_on=["a"]),
                node("c", depends_on=["b"]),
            ]
        },
        "node 'a': is on a cycle: a -> b -> c -> a; remove one of these edges",
    ),
    "a cycle by a route": (
        {"nodes": [node(), node("b", depends_on=["a"], routing={"on_failure": ["a"]})]},
        "node 'a': is on a cycle: a -> b -> a",
    ),
    # routing
    "a route to nowhere": (
        chain({"routing": {"on_failure": ["x"]}}),
        "node 'a': routing.on_failure leads to 'x', which is not in the graph",
    ),
    "a route to itself": (
        chain({"routing": {"on_failure": ["a"]}}),
        "routing.on_failure leads to the node itself; to retry the node, use retry",
    ),
    "a route both ways": (
        {"nodes": [node(routing={"on_success": ["b"], "on_failure": ["b"]}), node("b")]},
        "node 'a': routing has 'b' in on_success and in on_failure",
    ),
    "a route that is text": (
        chain({"routing": {"on_success": "b"}}),
        "node 'a': routing.on_success must be a list, not 'b'",
    ),
    "an unknown route": (
        chain({"routing": {"on_sucess": []}}),
        "unknown field 'on_sucess' in routing; did you mean 'on_success'?",
    ),
    # fan-in
    "a count of zero": (
        chain({}, {"fan_in": "count:0"}),
        (
            "node 'b': fan_in must be 'all', 'any', 'ended' or 'count:n' with a whole number n of"
            " at least 1"
        ),
    ),
    "a count of x": (
        chain({}, {"fan_in": "count:x"}),
        "node 'b': fan_in must be 'all', 'any', 'ended' or 'count:n'",
    ),
    "a negative count": (
        chain({}, {"fan_in": "count:-1"}),
        "node 'b': fan_in must be 'all', 'any', 'ended' or 'count:n'",
    ),
    "a count with a line break": (
        chain({}, {"fan_in": "count:1\n"}),
        "node 'b': fan_in must be 'all', 'any', 'ended' or 'count:n'",
    ),
    "a fan-in that is a number": (
        chain({}, {"fan_in": 1}),
        "node 'b': fan_in must be a string, not 1",
    ),
    "a count above the parents": (
        chain({}, {"fan_in": "count:2"}),
        "node 'b': fan_in 'count:2' needs 2 parents, but the node has 1 parent;",
    ),
    "a count on a root": (
        chain({"fan_in": "count:1"}),
        "node 'a': fan_in 'count:1' needs 1 parent, but the node has 0 parents; add edges or",
    ),
    "any parent of a root": (
        chain({"fan_in": "any"}),
        "node 'a': fan_in 'any' needs 1 parent, but the node has 0 parents; add edges or remove it",
    ),
    "a wait for all parents that cancels them": (
        chain({}, {"on_satisfied": "cancel"}),
        "node 'b': on_satisfied: no parent still runs when fan_in 'all' is satisfied; remove 'can",
    ),
    "a root that cancels its parents": (
        chain({"on_satisfied": "cancel"}),
        "node 'a': on_satisfied: no parent still runs when fan_in 'all' is satisfied;",
    ),
    "a wait for the end of no parents": (
        chain({"fan_in": "ended"}),
        "node 'a': fan_in 'ended' waits for parents, but the node has none; add edges or remove it",
    ),
    "a wait for the end of some parents": (
        chain({}, {"fan_in": "ended:2"}),
        "node 'b': fan_in must be 'all', 'any', 'ended' or 'count:n'",
    ),
    "a wait for the end of parents that are cancelled": (
        chain({}, {"fan_in": "ended", "on_satisfied": "cancel"}),
        "node 'b': on_satisfied: no parent still runs when fan_in 'ended' is satisfied;",
    ),
    "a wait for the end of parents on the first batch": (
        chain({}, {"fan_in": "ended", "io": {"start_when": "first_batch"}}),
        "node 'b': io.start_when: a node with fan_in 'ended' starts when all parents have ended;",
    ),
    "a wait for the end of a parent that streams": (
        {
            "nodes": [node(), node("b", fan_in="ended")],
            "edges": [{"from": "a", "to": "b", "mode": "async"}],
        },
        (
            "node 'b': the edge from 'a' has the trigger 'on_batch', but a node with fan_in 'ended'"
            " starts when all parents have ended; remove it or use another fan_in"
        ),
    ),
    # undos and finally
    "finally as a number": (chain({}, **{"finally": 3}), "finally must be a list, not 3"),
    "an unknown field of a node of finally": (
        chain({}, **{"finally": [node("f", typ="x")]}),
        "node 'f': unknown field 'typ'; did you mean 'type'?",
    ),
    "a node of finally without a type": (
        chain({}, **{"finally": [{"node_id": "f"}]}),
        "node 'f': type is missing; every node needs one",
    ),
    "a node of finally that is a number": (
        chain({}, **{"finally": [3]}),
        "finally[0] must be an object, not 3",
    ),
    "a value in finally that is not JSON": (
        chain({}, **{"finally": [node("f", labels={"x": b"x"})]}),
        "node 'f': labels.x is a Python bytes, which JSON cannot carry",
    ),
    "a node of finally with the id of another node": (
        chain({}, **{"finally": [node("a")]}),
        "node 'a': several nodes have this node_id; give each node its own",
    ),
    "a node of finally that waits for another node": (
        chain({}, **{"finally": [node("f", depends_on=["a"])]}),
        "node 'f': an edge joins 'a' and 'f', which is in finally: its nodes run when all others",
    ),
    "a node that waits for a node of finally": (
        {"nodes": [node(depends_on=["f"])], "finally": [node("f")]},
        "node 'a': an edge joins 'a' and 'f', which is in finally",
    ),
    "a branch that leads to finally": (
        chain({"routing": {"on_failure": ["f"]}}, **{"finally": [node("f")]}),
        "node 'f': an edge joins 'a' and 'f', which is in finally",
    ),
    "a cycle in finally": (
        chain({}, **{"finally": [node("f", depends_on=["g"]), node("g", depends_on=["f"])]}),
        "node 'f': is on a cycle: f -> g -> f; remove one of these edges",
    ),
    "a node of finally that pulls from nothing": (
        chain(
            {},
            **{
                "finally": [
                    node("f", io={"input_inline": {"input_adapter": "pull.from_artifacts"}})
                ]
            },
        ),
        "node 'f': the input adapter 'pull.from_artifacts' pulls the artifacts of parents, but the",
    ),
    "an undo in finally": (
        chain({}, **{"finally": [node("f", undo={"type": "u"})]}),
        "node 'f': undo: nodes of finally are not undone; remove it",
    ),
    "the result of a node that is not undone": (
        chain({"when": "result == 1"}),
        "node 'a': when: 'result == 1' uses the unknown name 'result' (at character 1)",
    ),
    "the end of a task before it has ended": (
        chain({"when": "task.status == 'failed'"}),
        "node 'a': when: \"task.status == 'failed'\" uses the unknown field 'task.status'",
    ),
    "the end of a task in an undo": (
        chain({"undo": {"type": "u", "io": {"input_inline": "${task.error}"}}}),
        "node 'a': undo: /io/input_inline: 'task.error' uses the unknown field 'task.error'",
    ),
    "an undo that is a string": (
        chain({"undo": "u"}),
        "node 'a': undo must be an object, not 'u'",
    ),
    "an undo without a type": (
        chain({"undo": {}}),
        "node 'a': undo.type is missing; undo needs it",
    ),
    "an unknown field of an undo": (
        chain({"undo": {"type": "u", "depends_on": ["b"]}}),
        "node 'a': unknown field 'depends_on' in undo; known fields: type, io, retry_policy",
    ),
    "an unknown field of the io of an undo": (
        chain({"undo": {"type": "u", "io": {"input": 1}}}),
        "node 'a': undo: unknown field 'input' in io; did you mean 'input_ref'?",
    ),
    "an undo that calls no function": (
        chain({"undo": {"type": "coordinator_fn"}}),
        "node 'a': undo: io.fn is missing; a node of type 'coordinator_fn' needs it",
    ),
    "an undo that runs a sub-flow": (
        chain({"undo": {"type": "subflow", "io": {"graph": {"nodes": [WORK]}}}}),
        "node 'a': undo: type 'subflow': an undo runs no child tasks; use a role or",
    ),
    "an undo that is a loop": (
        chain({"undo": {"type": "loop", "io": {"graph": {"nodes": [WORK]}, "until": "true"}}}),
        "node 'a': undo: type 'loop': an undo runs no child tasks; use a role or",
    ),
    "a cycle in a sub-flow of finally": (
        {
            "nodes": [WORK],
            "finally": [subflow(graph={"nodes": [WORK], "edges": [["x", "x"]]})],
        },
        "node 'a': io.graph: node 'x':",
    ),
    "an undo that sleeps": (
        chain({"undo": {"type": "sleep", "io": {"for_sec": 5}}}),
        "node 'a': undo: type 'sleep': an undo does not wait; use a role or 'coordinator_fn'",
    ),
    "an undo that waits for a signal": (
        chain({"undo": {"type": "wait_signal", "io": {"signal": "go"}}}),
        "node 'a': undo: type 'wait_signal': an undo does not wait; use a role or",
    ),
    "an undo that asks a human": (
        chain({"undo": {"type": "approval", "io": {"prompt": "Refund?"}}}),
        "node 'a': undo: type 'approval': an undo does not wait; use a role or",
    ),
    "a node of finally that sleeps without a time": (
        chain({}, **{"finally": [{"node_id": "f", "type": "sleep"}]}),
        "node 'f': io needs exactly one of for_sec and until for a node of type 'sleep'",
    ),
    "an undo that waits for a batch": (
        chain({"undo": {"type": "u", "io": {"start_when": "first_batch"}}}),
        "node 'a': undo: io.start_when is 'first_batch', but the node has no parents",
    ),
    "an undo that reads a node below": (
        chain({"undo": {"type": "u", "io": {"input_inline": "${results.b}"}}}, {}),
        "node 'a': undo: /io/input_inline: 'results.b' reads results of 'b', which is not upstream",
    ),
    "an undo that reads an unknown node": (
        chain({"undo": {"type": "u", "io": {"input_inline": "${results.x}"}}}),
        "node 'a': undo: /io/input_inline: 'results.x' reads results of 'x', which is not in the",
    ),
    "a node that waits for an undo": (
        {"nodes": [node(undo={"type": "u"}), node("b", depends_on=["a~undo"])]},
        "node 'b': waits for 'a~undo', which is not in the graph",
    ),
    "an id like that of an undo": (
        {"nodes": [node("b~undo")]},
        "node 'b~undo': node_id ends with '~undo', as the ids of undos do; choose another id",
    ),
    "an id that is too long for an undo": (
        {"nodes": [node("x" * 196, undo={"type": "u"})]},
        "node_id of a node with an undo must have at most 195 characters; shorten it",
    ),
    "the end of the task in finally": (
        chain({}, **{"finally": [call("f", io=END)]}),
        "node 'f': io.fn: task.end has no effect in undos and in finally",
    ),
    "the end of the task in an undo": (
        chain({"undo": {"type": "coordinator_fn", "io": END}}),
        "node 'a': undo: io.fn: task.end has no effect in undos and in finally",
    ),
    "an optional node as text": (
        chain({"optional": "yes"}),
        "node 'a': optional must be true or false, not 'yes'",
    ),
    "an optional node whose failure a branch handles": (
        {"nodes": [node(optional=True, routing={"on_failure": ["b"]}), node("b")]},
        (
            "node 'a': optional: the on_failure branch handles the failure, and no other node waits"
            " for the data of this node; remove it"
        ),
    ),
    "an optional node with a branch and a child that waits for its end": (
        {
            "nodes": [
                node(optional=True, routing={"on_failure": ["b"]}),
                node("b"),
                node("c", depends_on=["a"], fan_in="ended"),
            ]
        },
        "node 'a': optional: the on_failure branch handles the failure, and no other node waits",
    ),
    "an unknown end of the others": (
        chain({}, {"on_satisfied": "stop"}),
        "node 'b': on_satisfied must be 'leave' or 'cancel', not 'stop'",
    ),
    # conditions
    "half a condition": (
        chain({"when": "vars.x =="}),
        "node 'a': when: 'vars.x ==' is not a valid expression: expected a value",
    ),
    "an empty condition": (chain({"when": ""}), "node 'a': when: '' is not a valid expression"),
    "a condition on something else": (
        chain({"when": "param.x == 1"}),
        (
            "when: 'param.x == 1' uses the unknown name 'param' (at character 1); did you mean"
            " 'params'?"
        ),
    ),
    "a condition on an unlike name": (
        chain({"when": "secrets.x == 1"}),
        (
            "when: 'secrets.x == 1' uses the unknown name 'secrets' (at character 1); known names:"
            " params, vars, results, errors, task"
        ),
    ),
    "a condition in dollars and braces": (
        chain({"when": "${params.x == 1}"}),
        "unexpected '$' (at character 1); when is a bare expression: leave out '${' and '}'",
    ),
    "a node id with dashes after a dot": (
        {"nodes": [node("a-b-c"), node("z", depends_on=["a-b-c"], when="results.a-b-c.n > 1")]},
        "(at character 11); for the node 'a-b-c', write results['a-b-c']",
    ),
    "a node id with a number after a dash": (
        {"nodes": [node("a-1"), node("z", depends_on=["a-1"], when="results.a-1 > 1")]},
        "reads results of 'a', which is not in the graph; for the node 'a-1', write results['a-1']",
    ),
    "a field of an error that does not exist": (
        chain({}, {"when": "errors.a.reason == 'quota'"}),
        "uses the unknown field 'errors.a.reason' (at character 1); did you mean 'reason_code'?",
    ),
    "an unlike field of an error": (
        chain({}, {"when": "has(errors.a.x)"}),
        "unknown field 'errors.a.x' (at character 5); known fields: reason_code, error, attempt",
    ),
    "a param that the schema excludes": (
        chain({"when": "params.nn > 1"}, params=closed({"n": {}, "mode": {}})),
        "uses the unknown field 'params.nn' (at character 1); did you mean 'n'?",
    ),
    "a param that the schema excludes, in an input": (
        chain({"io": {"input_inline": "${params.nn}"}}, params=closed({"mode": {}})),
        "/io/input_inline: 'params.nn' uses the unknown field 'params.nn' (at character 3); known",
    ),
    "a param that the schema excludes, in the output": (
        chain({}, output="${params.x}", params=closed({})),
        "'params.x' uses the unknown field 'params.x' (at character 3); known fields: none",
    ),
    "a field of a param that the schema excludes": (
        chain({"when": "params.a.c > 1"}, params=closed({"a": closed({"b": {}})})),
        "uses the unknown field 'params.a.c' (at character 1); known fields: b",
    ),
    "a field of a param that a definition excludes": (
        chain(
            {"when": "params.a['c'] > 1"},
            params={
                "properties": {"a": {"$ref": "#/$defs/A~1b"}},
                "$defs": {"A/b": {"$ref": "#/$defs/B"}, "B": closed({"b": {}})},
            },
        ),
        "uses the unknown field 'params.a.c' (at character 1); known fields: b",
    ),
    "a condition that is true": (
        chain({"when": True}),
        "node 'a': when must be a string, not True",
    ),
    "a condition without end": (
        chain({"when": "true" + " && true" * 1000}),
        "is longer than 4096 characters",
    ),
    "a condition on a node that is not above": (
        chain({"when": "results.b.n > 1"}, {}),
        "'b', which is not upstream of this node",
    ),
    "a condition on a node that is not there": (
        chain({}, {"when": "results.c.n > 1"}),
        "reads results of 'c', which is not in the graph",
    ),
    "a condition with an unknown function": (
        chain({"when": "now() > 1"}),
        "unknown function now() (at character 1)",
    ),
    "a condition with a bad pattern": (
        chain({"when": "vars.x.matches('[')"}),
        "the pattern of matches() is not valid: unclosed",
    ),
    "a condition of many brackets": (
        chain({"when": "(" * 500 + "true" + ")" * 500}),
        "brackets are nested more than 64 levels deep",
    ),
    # expressions in inputs
    "half an expression in an input": (
        chain({"io": {"input_inline": {"x": ["${params.x"]}}}),
        (
            "node 'a': /io/input_inline/x/0: '${params.x' is not a valid expression: it has no"
            " closing '}' (at character 3); write '$${' for the text '${'"
        ),
    ),
    "an expression on something else in an input": (
        chain({"io": {"input_ref": "n: ${param.x}"}}),
        "node 'a': /io/input_ref: 'param.x' uses the unknown name 'param' (at character 6);",
    ),
    "an expression on an unknown field of the task": (
        chain({"io": {"input_inline": "${task.status}"}}),
        "uses the unknown field 'task.status' (at character 3); known fields: id, pipeline,",
    ),
    "an input from a node that is not above": (
        chain({"io": {"input_inline": "${results.b.n}"}}, {}),
        "/io/input_inline: 'results.b.n' reads results of 'b', which is not upstream of this node",
    ),
    "an input from a node that is not there": (
        chain({}, {"io": {"input_inline": "${errors.c}"}}),
        "/io/input_inline: 'errors.c' reads errors of 'c', which is not in the graph",
    ),
    "an argument with a wrong expression": (
        {"nodes": [call(io={"fn": "vars.set", "fn_args": {"kv": {"n": "${1 +}"}}})]},
        "node 'a': /io/fn_args/kv/n: '1 +' is not a valid expression: expected a value",
    ),
    "an input adapter that an expression names": (
        chain({}, {"io": {"input_inline": {"input_adapter": "${params.x}"}}}),
        (
            "node 'b': io.input_inline.input_adapter: expressions (${…}) are not supported here;"
            " write the name of the adapter"
        ),
    ),
    "a type with an expression": (
        {"nodes": [{"node_id": "a", "type": "${params.role}"}]},
        f"node 'a': type: {NO_EXPRESSIONS}; write the role",
    ),
    "a type of an undo with an expression": (
        chain({"undo": {"type": "undo-${params.role}"}}),
        f"node 'a': undo: type: {NO_EXPRESSIONS}; write the role",
    ),
    "a node id with an expression": (
        {"nodes": [node("load-${params.n}", undo={"type": "drop"})]},
        f"node 'load-${{params.n}}': node_id: {NO_EXPRESSIONS}; write the id",
    ),
    "a label with an expression": (
        chain({"labels": {"team": "x", "run": "${task.id}"}}),
        f"node 'a': labels: {NO_EXPRESSIONS}; write the label",
    ),
    "a name of a label with an expression": (
        chain({"labels": {"${task.id}": "x"}}),
        f"node 'a': labels: {NO_EXPRESSIONS}; write the label",
    ),
    "a function that an expression names": (
        {"nodes": [call(io={"fn": "${params.fn}"})]},
        f"node 'a': io.fn: {NO_EXPRESSIONS}; write the name of the function",
    ),
    "a reason code with an expression": (
        chain({"retry_policy": {"permanent_on": ["${params.code}"]}}),
        f"node 'a': retry_policy.permanent_on: {NO_EXPRESSIONS}; write the reason code",
    ),
    "nodes to merge that an expression names": (
        {"nodes": [call(io={"fn": "merge.generic", "fn_args": MERGED})]},
        f"node 'a': io.fn_args.from_nodes: {NO_EXPRESSIONS}; write the id of a node",
    ),
    "an argument of a function by another name": (
        {"nodes": [call(io={"fn": "vars.incr", "fn_args": {"key": "n", "amount": 2}})]},
        "node 'a': io.fn_args: 'vars.incr' has no argument 'amount'; its arguments: key, by",
    ),
    "an argument of a function by a similar name": (
        {"nodes": [call(io={"fn": "vars.unset", "fn_args": {"keys": "n", "key": "n"}})]},
        "node 'a': io.fn_args: 'vars.unset' has no argument 'key'; did you mean 'keys'?",
    ),
    "an argument of a function that takes none": (
        {"nodes": [call(io={"fn": "noop", "fn_args": {"key": "n"}})]},
        "node 'a': io.fn_args: 'noop' has no argument 'key'; it takes none",
    ),
    "a function without an argument that it needs": (
        {"nodes": [call(io={"fn": "merge.generic", "fn_args": {"from_nodes": []}})]},
        "node 'a': io.fn_args.target is missing; 'merge.generic' needs it",
    ),
    "a mode of a function that does not exist": (
        chain({}, {"type": "coordinator_fn", "io": mean("a", mode="median")}),
        "node 'b': io.fn_args.mode must be 'sum' or 'mean', not 'median'",
    ),
    "an end of the task that does not exist": (
        {"nodes": [call(io={"fn": "task.end", "fn_args": {"status": "done"}})]},
        "node 'a': io.fn_args.status must be 'finished' or 'failed' or 'cancelled', not 'done'",
    ),
    "too many expressions": (
        chain({"io": {"input_inline": ["${1}" * 50_001]}}),
        "the graph has more than 50000 expressions in its inputs; use fewer",
    ),
    "expressions that are too long in total": (
        chain({"io": {"input_inline": [f"${{'{n:04}{'x' * 4_000}'}}" for n in range(70)]}}),
        "the expressions have more than 262144 characters in total; shorten them",
    ),
    "an unknown name in the key of a node": (
        chain({"concurrency": {"key": "${parms.x}"}}),
        "node 'a': /concurrency/key: 'parms.x' uses the unknown name 'parms' (at character 3)",
    ),
    "an expression of a key that is not closed": (
        chain({"concurrency_key": "a-${params.x"}),
        "node 'a': /concurrency/key: 'a-${params.x' is not a valid expression: it has no closing",
    ),
    "a result in the key of a graph": (
        chain({}) | {"concurrency": {"key": "${results.a}"}},
        "'results.a' uses the unknown name 'results' (at character 3); known names: params, task",
    ),
    "a result that is not above the node in its key": (
        chain({"concurrency_key": "${results.b}"}, {}),
        "node 'a': /concurrency/key: 'results.b' reads results of 'b', which is not upstream",
    ),
    "two concurrency keys": (
        chain({"concurrency": {"key": "k"}, "concurrency_key": "k"}),
        "node 'a': concurrency and concurrency_key both name a key; remove one of them",
    ),
    # the schema of params
    "params that are a list": (chain({}, params=[]), "params must be an object, not a list"),
    "params of another type": (
        chain({}, params={"type": "array"}),
        "params: the type of the schema must be 'object', not 'array'",
    ),
    "a param of an unknown type": (
        chain({}, params={"properties": {"x": {"type": "strnig"}}}),
        'params.properties.x.type: "strnig" is not valid under any of the schemas',
    ),
    "a schema from elsewhere": (
        chain({}, params={"properties": {"x": {"$ref": "http://example.org/x"}}}),
        "params: $ref 'http://example.org/x' is not one of the schema's own #/$defs/NAME",
    ),
    "a schema that refers to itself": (
        chain({}, params={"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}),
        "params: $ref '#/$defs/a' is part of a cycle, which is not supported",
    ),
    "a schema with an id": (chain({}, params={"$id": "x"}), "params: $id is not supported;"),
    "a schema of another draft": (
        chain({}, params={"$schema": "http://json-schema.org/draft-07/schema#"}),
        "params: $schema must be 'https://json-schema.org/draft/2020-12/schema', not 'http",
    ),
    "a schema that is too large": (
        chain({}, params={"properties": {f"p{number}": {} for number in range(2_001)}}),
        "params: the schema has more than 2000 subschemas",
    ),
    "a wrong default": (
        chain({}, params={"properties": {"x": {"type": "integer", "default": "a"}}}),
        'params: the default of \'x\' is wrong: "a" is not of type "integer"',
    ),
    # the output
    "an output that is a list": (
        chain({}, output=["${results.a}"]),
        "output must be an object or a string, not a list",
    ),
    "an output without an expression": (
        chain({}, output="results.a"),
        "output: 'results.a' has no expression; write it in '${ … }'",
    ),
    "half an expression in an output": (
        chain({}, output={"x": {"y": "${results.a"}}),
        (
            "/output/x/y: '${results.a' is not a valid expression: it has no closing '}' (at"
            " character 3); write '$${' for the text '${'"
        ),
    ),
    "an output of something else": (
        chain({}, output="${result.a}"),
        "'result.a' uses the unknown name 'result' (at character 3); did you mean 'results'?",
    ),
    "an output of a node that is not there": (
        chain({}, output="${results.aa}"),
        "/output: 'results.aa' reads results of 'aa', which is not in the graph; did you mean 'a'?",
    ),
    "an output of the status of the task": (
        chain({}, output="${task.status}"),
        "/output: 'task.status' uses the unknown field 'task.status'",
    ),
    "an output on a node": (
        chain({"output": "${results.a}"}),
        "node 'a': unknown field 'output'; known fields: node_id, type",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_graph_is_refused_with_the_place_and_a_remedy(name: str) -> None:
    source, sentence = WRONG[name]
    found = faults_of(source)
    assert [fault for fault in found if sentence in fault], found


def test_a_value_that_is_not_accepted_is_the_only_fault_of_its_field() -> None:
    assert faults_of({"nodes": [node(type="sleep", io={"for_sec": math.inf})]}) == [
        "node 'a': io.for_sec is inf, which is not a finite number"
    ]


def test_faults_in_sub_flows_of_finally_are_found_beside_unknown_fields() -> None:
    broken = subflow(graph={"nodes": [WORK], "edges": [["x", "x"]]})
    faults = faults_of({"nodes": [WORK], "finally": [broken], "node": 1})
    assert any(fault.startswith("node 'a': io.graph: node 'x':") for fault in faults), faults


def test_one_mistake_is_one_fault() -> None:
    """Consequences of a mistake are not reported as further faults."""
    several = {
        name: found for name, (source, _) in WRONG.items() if len(found := faults_of(source)) > 1
    }
    assert sorted(several) == [
        "an edge between numbers",
        "an edge by its Python name",
        "nodes by another name",
    ], several


@pytest.mark.parametrize(
    "more",
    [
        {"routing": {"on_failure": ["b"], "on_success": ["c"]}},
        {"routing": {"on_failure": ["b"]}, "io": {}},
    ],
)
def test_an_optional_node_may_have_a_branch_if_another_node_waits_for_its_data(
    more: dict[str, Any],
) -> None:
    after = [] if "on_success" in more["routing"] else ["a"]
    nodes = [node(optional=True, **more), node("b"), node("c", depends_on=after)]
    assert Graph.parse({"nodes": nodes}).document.nodes[0].optional


def test_every_field_that_has_no_effect_with_a_wait_for_ends_is_listed_once() -> None:
    fields = {"fan_in": "ended", "on_satisfied": "cancel", "io": {"start_when": "first_batch"}}
    assert [fault.split(":")[1].strip() for fault in faults_of(chain({}, fields))] == [
        "on_satisfied",
        "io.start_when",
    ]


def test_all_faults_are_listed_together_the_graphs_own_first_then_by_node() -> None:
    found = faults_of(
        {
            "nodes": [
                node("extract", retry_policy={"max": -1, "jitter": 2}),
                node("clean", depends_on=["extrct"], when="1 +"),
                node(
                    "load", depends_on=["clean"], io={"input_inline": {"x": math.nan}}, statsu="x"
                ),
                {"node_id": "count", "type": "coordinator_fn", "io": {"fn": "vars.inc"}},
                node("x", depends_on=["y"]),
                node("y", depends_on=["x"]),
            ],
            "edges": [["load", "nowhere"], ["count"]],
            "deadline_sec": -1,
        },
        functions=["vars.incr", "vars.set"],
    )
    assert [fault.split(": ")[0] for fault in found] == [
        "edges[1]",
        "deadline_sec must be above 0, not -1",
        "node 'extract'",
        "node 'extract'",
        "node 'clean'",
        "node 'clean'",
        "node 'load'",
        "node 'load'",
        "node 'load'",
        "node 'count'",
        "node 'x'",
    ]
    assert any(
        "'extrct', which is not in the graph; did you mean 'extract'?" in fault for fault in found
    )
    assert any("'vars.inc'; did you mean 'vars.incr'?" in fault for fault in found)
    assert any("x -> y -> x" in fault for fault in found)


def test_an_unknown_field_hides_no_other_fault_of_its_node_nor_of_others() -> None:
    found = faults_of(
        {
            "nodes": [
                node("x", colour="red", when="1 +", io={"start_when": "first_batch"}),
                call("f", colour="red", io={"fn": "vars.st"}),
                node("b", depends_on=["x"], fan_in="count:3"),
                node("y", io={"start_when": "first_batch"}),
            ]
        },
        functions=["vars.set"],
    )
    assert [(fault.split(":")[0], fault.split(": ")[1].split()[0]) for fault in found] == [
        ("node 'x'", "unknown"),
        ("node 'x'", "when"),
        ("node 'x'", "io.start_when"),
        ("node 'f'", "unknown"),
        ("node 'f'", "io.fn"),
        ("node 'b'", "fan_in"),
        ("node 'y'", "io.start_when"),
    ]


def test_a_node_that_cannot_be_read_still_counts_as_being_there() -> None:
    assert faults_of({"nodes": [node("a\n"), node("b", depends_on=["a\n"])]}) == [
        "node 'a\\n': node_id must not contain control characters, not 'a\\n'",
        "node 'b': depends_on[0] must not contain control characters, not 'a\\n'",
    ]
    assert (
        len(
            faults_of(
                {"nodes": [node("a", priority="x"), node("b", depends_on=["a"], fan_in="count:1")]}
            )
        )
        == 1
    )


def test_an_unknown_function_is_named_with_those_there_are() -> None:
    graph = {"nodes": [call(io={"fn": "vars.st"})]}
    assert faults_of(graph, functions={"vars.set", "noop"}) == [
        (
            "node 'a': io.fn: unknown function 'vars.st'; did you mean 'vars.set'?;"
            " registered functions: noop, vars.set"
        )
    ]
    assert faults_of(graph, functions=()) == [
        "node 'a': io.fn: unknown function 'vars.st'; registered functions: none"
    ]
    assert Graph.parse(graph).plan.nodes[0].io.fn == "vars.st"


def test_every_group_of_nodes_that_wait_for_each_other_is_named_once() -> None:
    first = [node("a", depends_on=["b"]), node("b", depends_on=["a"])]
    below = [
        node("c", depends_on=["a", "d"]),
        node("d", depends_on=["c"]),
        node("e", depends_on=["d"]),
    ]
    found = faults_of({"nodes": [*first, *below]})
    assert [
        fault for fault in found if "cycle: a -> b -> a;" in fault or "cycle: c -> d -> c;" in fault
    ] == found
    assert len(found) == 2


def test_a_long_cycle_is_cut_in_the_middle() -> None:
    size = 100
    nodes = [node(f"n{place}", depends_on=[f"n{(place - 1) % size}"]) for place in range(size)]
    (fault,) = faults_of({"nodes": nodes})
    assert (
        "n0 -> n1 -> n2 -> n3 -> n4 -> n5 -> … (89 more) -> n95 -> n96 -> n97 -> n98 -> n99 -> n0;"
        in fault
    )


PULL = {"input_adapter": "pull.from_artifacts"}


def test_a_node_reads_artifacts_of_nodes_above_it_alone() -> None:
    beside = {
        "nodes": [
            node("a"),
            node("b"),
            node(
                "c",
                depends_on=["a"],
                io={"input_inline": PULL | {"input_args": {"from_node": "b"}}},
            ),
        ]
    }
    below = {
        "nodes": [
            node("a", io={"input_inline": PULL | {"input_args": {"from_nodes": ["b"]}}}),
            node("b", depends_on=["a"]),
        ]
    }
    higher = {
        "nodes": [
            node("a"),
            node("b", depends_on=["a"]),
            node(
                "c",
                depends_on=["b"],
                io={"input_inline": PULL | {"input_args": {"from_node": "a"}}},
            ),
        ]
    }
    assert Graph.parse(higher)
    for graph, where in (
        (beside, "node 'c': io.input_inline.input_args.from_node reads 'b'"),
        (below, "node 'a': "),
    ):
        (fault,) = faults_of(graph)
        assert fault.startswith(where)
        assert fault.endswith("which is not upstream of the node; add it to depends_on")


@pytest.mark.parametrize("adapter", ["lines", 5, ["pull.from_artifacts"]])
def test_an_adapter_of_a_plugin_may_stand_on_a_root_and_read_no_node(adapter: Any) -> None:
    assert Graph.parse(
        chain(
            {"io": {"input_inline": {"input_adapter": adapter, "input_args": {"from_nodes": []}}}}
        )
    )


def test_the_text_of_an_error_names_twenty_faults_and_counts_the_rest() -> None:
    with pytest.raises(GraphError) as caught:
        Graph.parse(
            {
                "nodes": [
                    {"node_id": f"n{place}", "type": "x", "retries": 3} for place in range(20_000)
                ]
            }
        )
    assert len(caught.value.faults) == 20_000
    text = str(caught.value)
    assert len(text) < 5_000
    assert "node 'n19'" in text
    assert "node 'n20'" not in text
    assert text.endswith("; and 19980 more faults")


def test_undos_and_nodes_of_finally_count_as_nodes() -> None:
    limits = Limits(max_nodes=3)
    source = chain({"undo": {"type": "u"}}, {}, **{"finally": [node("f")]})
    said = "the graph has 4 nodes, above the limit of 3; split the graph"
    assert faults_of(source, limits=limits) == [said]


def test_faults_in_finally_are_listed_with_those_in_nodes() -> None:
    source = chain(
        {"undo": {"type": "u", "retries": 1}, "optional": 3},
        {"when": "x"},
        **{"finally": [node("f", priority="x"), node("g", when="1 +")]},
    )
    assert [fault.split(":")[0] for fault in faults_of(source)] == [
        "node 'a'",
        "node 'a'",
        "node 'b'",
        "node 'f'",
        "node 'g'",
    ]


@pytest.mark.parametrize(
    ("fields", "source"),
    [
        ({}, {"from_node": "a"}),
        ({"fan_in": "any"}, {}),
        ({"io": {"start_when": "first_batch"}}, {}),
    ],
    ids=["a node above a parent", "a parent that is not waited for", "a stream"],
)
def test_windows_of_a_stream_that_may_grow_can_end_with_time(
    fields: dict[str, Any], source: dict[str, str]
) -> None:
    io = fields.get("io", {}) | {"batching": {"size": 2, "max_wait_sec": 5}}
    io["input_inline"] = {**PULL, "input_args": source}
    nodes = [
        node("a"),
        node("b"),
        node("c", depends_on=["a", "b"], fan_in="any"),
        node("d", depends_on=["b", "c"], **fields | {"io": io}),
    ]
    Graph.parse({"nodes": nodes})
