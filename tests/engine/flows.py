"""Random graphs with every feature, and random events."""

from typing import Any

from hypothesis import strategies as st

EDGE_KINDS = ("none", "none", "plain", "plain", "stream", "on_success", "on_failure")
MAX_NODES = 7


@st.composite
def graphs(
    draw: st.DrawFn, *, max_nodes: int = MAX_NODES, mostly: str | None = None
) -> dict[str, Any]:
    """Generate graph documents. Most nodes may be of one sort: ``waits`` for signals or approvals,
    ``maps``, or ``loops`` and sub-flows.
    """
    size = draw(st.integers(1 if mostly is None else 2, max_nodes))
    nodes: list[dict[str, Any]] = []
    edges: list[dict[str, Any]] = []
    for index in range(size):
        fields = _node_fields
        if mostly is not None and (index or mostly != "maps") and draw(st.integers(0, 3)) > 0:
            fields = _MOSTLY[mostly]
        node = draw(fields())
        node["node_id"] = f"n{index}"
        source, parents = None, list[dict[str, Any]]()
        if "map" in node:
            source = draw(st.sampled_from([None, *2 * [*filter(_stores_artifacts, nodes)]]))
        if source is not None:
            node["map"]["over"] = {"artifacts": source["node_id"]}
        for earlier in nodes:
            kind = "plain" if earlier is source else draw(st.sampled_from(EDGE_KINDS))
            streams = _stores_artifacts(earlier) and _stores_artifacts(node)
            if kind == "none":
                continue
            parents.append(earlier)
            if kind == "plain" or (kind == "stream" and not streams):
                edges.append({"from": earlier["node_id"], "to": node["node_id"]})
            elif kind == "stream":
                edges.append(
                    {"from": earlier["node_id"], "to": node["node_id"], "trigger": "on_batch"}
                )
            else:
                earlier.setdefault("routing", {}).setdefault(kind, []).append(node["node_id"])
        if _stores_artifacts(node) and _may_pull(parents) and draw(st.integers(0, 3)) == 0:
            node["io"] = {"input_inline": {"input_adapter": "pull.from_artifacts"}}
        if parents:
            fan_ins = ["all", "all", "any", f"count:{draw(st.integers(1, len(parents)))}"]
            if not any(edge["to"] == node["node_id"] and "trigger" in edge for edge in edges):
                fan_ins.append("ended")
            node["fan_in"] = draw(st.sampled_from(fan_ins))
            if node["fan_in"] not in ("all", "ended"):
                node["on_satisfied"] = draw(st.sampled_from(["leave", "cancel"]))
        nodes.append(node)
    for node in nodes:
        routing = node.get("routing", {})
        if "on_failure" in routing and "on_success" not in routing:
            node["optional"] = False  # it might have no effect
    for node in nodes:
        if "map" not in node and draw(st.integers(0, 3)) == 0:
            function = draw(st.integers(0, 3)) == 0
            node["undo"] = {
                **({"type": "coordinator_fn", "io": {"fn": "noop"}} if function else {"type": "u"}),
                "retry_policy": {"max": draw(st.integers(0, 2)), "jitter": 0.0},
            }
    return {
        "nodes": nodes,
        "finally": draw(_final_nodes()) if draw(st.integers(0, 2)) == 0 else [],
        "edges": edges,
        "on_node_failure": draw(st.sampled_from(["stop", "continue"])),
        "max_parallel": draw(st.sampled_from([None, None, None, 1, 2, 3])),
        "output": draw(st.sampled_from([None, None, "${results.n0}"])),
    }


def _stores_artifacts(node: dict[str, Any]) -> bool:
    return node["type"] == "work" and "map" not in node


def _may_pull(parents: list[dict[str, Any]]) -> bool:
    return bool(parents) and not any("map" in one for one in parents)


@st.composite
def _final_nodes(draw: st.DrawFn) -> list[dict[str, Any]]:
    first = draw(_node_fields()) | {"node_id": "f0"}
    second = draw(_node_fields()) | {"node_id": "f1"}
    match draw(st.sampled_from(("none", "plain", "on_success", "on_failure"))):
        case "plain":
            second["depends_on"] = ["f0"]
            second["fan_in"] = draw(st.sampled_from(["all", "ended"]))
        case "on_success" | "on_failure" as route:
            first["routing"] = {route: ["f1"]}
            first["optional"] = False
    return [first, second]


@st.composite
def _node_fields(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.integers(0, 9))
    if kind == 1:
        return draw(st.one_of(_sleep_fields(), _wait_fields()))
    if kind in (2, 3):
        return draw(_child_fields())
    return draw(_work_fields(function=kind == 0))


@st.composite
def _work_fields(draw: st.DrawFn, *, function: bool) -> dict[str, Any]:
    """Generate a handler or a coordinator function."""
    node: dict[str, Any] = (
        {"type": "coordinator_fn", "io": {"fn": "noop"}} if function else {"type": "work"}
    )
    node["retry_policy"] = {
        "max": draw(st.integers(0, 2)),
        "backoff_sec": draw(st.sampled_from([1.0, 5.0])),
        "multiplier": draw(st.sampled_from([1.0, 3.0])),
        "max_backoff_sec": 10.0,
        "jitter": 0.0,
        "budget_sec": draw(st.sampled_from([None, None, 8.0])),
    }
    limits = st.sampled_from([None, None, 4.0, 30.0])
    node["timeouts"] = {"start_to_close_sec": draw(limits)}
    if not function:
        node["timeouts"] |= {"schedule_to_start_sec": draw(limits), "heartbeat_sec": draw(limits)}
    node["priority"] = draw(st.integers(0, 2))
    if draw(st.integers(0, 4)) == 0:
        node["when"] = "true"
    node["optional"] = draw(st.sampled_from([False, False, False, True]))
    return node


@st.composite
def _sleep_fields(draw: st.DrawFn) -> dict[str, Any]:
    for_sec = draw(st.sampled_from([0, 3, 20, "${params.n}"]))
    node: dict[str, Any] = {"type": "sleep", "io": {"for_sec": for_sec}}
    if for_sec in (20, "${params.n}"):
        node |= draw(_limit_of_a_wait())
    return node | draw(_often_absent_fields())


@st.composite
def _wait_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a node that waits for a signal or an approval."""
    if draw(st.booleans()):
        signal = draw(st.sampled_from(["go", "go", "stop", "${params.signal}"]))
        node: dict[str, Any] = {"type": "wait_signal", "io": {"signal": signal}}
    else:
        prompt = draw(st.sampled_from(["Ship?", "Ship ${params.n}?"]))
        on_reject = draw(st.sampled_from(["fail", "continue"]))
        node = {"type": "approval", "io": {"prompt": prompt, "on_reject": on_reject}}
    timeout_sec = draw(st.sampled_from([None, None, 3, 20]))
    if timeout_sec is not None:
        on_timeout = draw(st.sampled_from(["fail", "skip"]))
        node["io"] |= {"timeout_sec": timeout_sec, "on_timeout": on_timeout}
    if timeout_sec != 3:
        node |= draw(_limit_of_a_wait())
    return node | draw(_often_absent_fields())


@st.composite
def _limit_of_a_wait(draw: st.DrawFn) -> dict[str, Any]:
    if draw(st.booleans()):
        return {}
    policy = draw(st.sampled_from([{}, {"max": 1}]))
    return {
        "timeouts": {"start_to_close_sec": 4.0},
        "retry_policy": {"backoff_sec": 5.0, "jitter": 0.0} | policy,
    }


@st.composite
def _often_absent_fields(draw: st.DrawFn) -> dict[str, Any]:
    condition: dict[str, Any] = {"when": "true"} if draw(st.integers(0, 4)) == 0 else {}
    return {**condition, "optional": draw(st.sampled_from([False, False, False, True]))}


@st.composite
def _child_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a sub-flow, a loop or a map."""
    if draw(st.integers(0, 5)) < 3:
        return draw(_nested_fields())
    return draw(_map_fields())


@st.composite
def _map_fields(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a map over a handler, a function or a sub-flow."""
    mapped = (
        _work_fields(function=False),
        _work_fields(function=True),
        _nested_fields("subflow"),
    )
    node = draw(st.one_of(mapped))
    node["map"] = {
        "over": [],
        "max_parallel": draw(st.sampled_from([None, 1, 2])),
        "on_item_failure": draw(st.sampled_from(["fail", "continue"])),
    }
    return node


@st.composite
def _nested_fields(draw: st.DrawFn, *kinds: str) -> dict[str, Any]:
    """Generate a node that runs child tasks: of one of these types, by default often a loop."""
    kind = draw(st.sampled_from(kinds or ("subflow", "loop", "loop")))
    inner = {"nodes": [{"node_id": "x", "type": "work"}]}
    node: dict[str, Any] = {"type": kind, "io": {"graph": inner}}
    if kind == "loop":
        node["io"][draw(st.sampled_from(["while", "until"]))] = "true"
    node["retry_policy"] = {"backoff_sec": 5.0, "jitter": 0.0} | draw(
        st.sampled_from([{}, {}, {"max": 1}])
    )
    node["timeouts"] = draw(st.sampled_from([{}, {}, {"start_to_close_sec": 4.0}]))
    node["priority"] = draw(st.sampled_from([0, 0, 5]))
    if draw(st.integers(0, 4)) == 0:
        node["when"] = "true"
    node["optional"] = draw(st.sampled_from([False, False, False, True]))
    return node


_MOSTLY = {
    "waits": _wait_fields,
    "maps": _map_fields,
    "loops": _nested_fields,
}
"""Fields of nodes of one sort. The first node of a graph of maps may store artifacts for them."""

Word = tuple[int, int, int]
"""An event (kind, node, attempt, value) as numbers, each combination of which is valid."""


def scripts(
    *, min_size: int = 0, max_size: int = 40, rounds: bool = False
) -> st.SearchStrategy[list[Word]]:
    """Generate events. With ``rounds``, half of them report on child tasks, and more than usual let
    time pass, pause the task and resume it: a loop needs many events in a row for its rounds.
    """
    kinds = st.integers(0, 99)
    if rounds:
        times, pauses, reports = st.integers(0, 11), st.integers(14, 19), st.integers(50, 99)
        kinds = st.one_of(kinds, times, pauses, reports, reports)
    word = st.tuples(kinds, st.integers(0, 63), st.integers(0, 99))
    return st.lists(word, min_size=min_size, max_size=max_size)
