"""Arguments of pull adapters that are checked later, or are valid."""

from typing import Any

import pytest

from flowkit.graph import Graph


@pytest.mark.parametrize(
    ("adapter", "arguments"),
    [
        ("pull.from_artifacts", None),
        ("pull.from_artifacts", "${params.arguments}"),
        ("pull.from_artifacts", {"poll_ms": "${params.poll_ms}"}),
        ("pull.from_artifacts", {"from_node": "a", "poll_ms": 1}),
        ("pull.from_artifacts.rechunk:size", {"size": "${params.size}", "meta_list_key": "rows"}),
        ("pull.from_artifacts.rechunk:size", {"size": 1, "meta_list_key": "${params.key}"}),
    ],
)
def test_expressions_in_the_arguments_of_a_pull_are_not_checked(
    adapter: str, arguments: Any
) -> None:
    inline = {"input_adapter": adapter, "input_args": arguments}
    nodes = [
        {"node_id": "a", "type": "work"},
        {"node_id": "b", "type": "work", "depends_on": ["a"], "io": {"input_inline": inline}},
    ]
    assert Graph.parse({"nodes": nodes})


def test_a_node_starts_on_the_first_batch_of_a_handler_beside_a_sleep() -> None:
    nodes = [
        {"node_id": "a", "type": "work"},
        {"node_id": "s", "type": "sleep", "io": {"for_sec": 3}},
        {
            "node_id": "b",
            "type": "work",
            "depends_on": ["a", "s"],
            "io": {"start_when": "first_batch"},
        },
    ]
    assert Graph.parse({"nodes": nodes})
