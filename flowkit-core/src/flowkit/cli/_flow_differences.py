"""Differences between two versions of a flow."""

import json
from collections.abc import Mapping
from difflib import unified_diff
from typing import Any

from flowkit.task import FlowVersion

NODE_LISTS = ("nodes", "finally")


def differences(old: FlowVersion, new: FlowVersion) -> dict[str, Any]:
    """Return the ids of the nodes that differ, and the names of the other fields that do."""
    before, after = _nodes(old.graph), _nodes(new.graph)
    fields = (old.graph.keys() | new.graph.keys()) - set(NODE_LISTS)
    return {
        "name": new.name,
        "from": old.version,
        "to": new.version,
        "added": [node for node in after if node not in before],
        "removed": [node for node in before if node not in after],
        "changed": [node for node in after if node in before and after[node] != before[node]],
        "fields": sorted(one for one in fields if old.graph.get(one) != new.graph.get(one)),
    }


def _nodes(graph: Mapping[str, Any]) -> dict[str, Any]:
    """Return the nodes of a graph by id, each with the list in which it is."""
    return {node["node_id"]: (field, node) for field in NODE_LISTS for node in graph.get(field, ())}


def lines_of_difference(old: FlowVersion, new: FlowVersion) -> list[str]:
    """Return the difference between two graphs as the lines of a unified diff."""
    names = (f"{old.name} version {old.version}", f"{new.name} version {new.version}")
    return list(unified_diff(_lines(old), _lines(new), *names, lineterm=""))


def _lines(flow: FlowVersion) -> list[str]:
    return json.dumps(flow.graph, indent=2, sort_keys=True, ensure_ascii=False).split("\n")
