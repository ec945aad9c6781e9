"""The promises about the tags of a task for one stored state, written without the engine."""

from collections.abc import Collection, Mapping

from flowkit.task import ENDED, MapBlock, Mark, NodeRecord, ParentNode

MOST_CODES = 16


def broken_tags(
    tags: Collection[str],
    marks: str,
    nodes: Mapping[int, NodeRecord],
    *,
    parent: ParentNode | None,
    claim: str | None = None,
    dropped: Collection[MapBlock] = (),
) -> str | None:
    """Describe how the tags differ from what the nodes do; None if they do not. ``dropped`` are
    the children of earlier runs of maps, ``claim`` is the state of that to the key of the graph.
    """
    expected = {"root" if parent is None else f"parent:{parent.task_id}"}
    if claim == "queued":
        expected.add("waiting:key")
    if claim == "busy":
        expected.add("reason:key_busy")
    for index, mark in enumerate(map(ord, marks)):
        node = nodes.get(index)
        if node is None or any(block.first <= index < block.end for block in dropped):
            continue
        runs_again = mark not in ENDED and mark in _TRIED and node.reason_code is not None
        if mark == Mark.ISSUED:
            expected.add("waiting:worker")
        if mark == Mark.DEFERRED and node.queued_for is not None:
            expected.add(f"waiting:{node.queued_for}")
        elif mark == Mark.DEFERRED and node.wait is not None:
            expected.add(f"waiting:{node.wait.kind}")
        if runs_again:
            expected.add("retrying")
        if runs_again or mark == Mark.FAILED:
            expected.add(f"reason:{node.reason_code}")
    codes = sum(tag.startswith("reason:") for tag in expected)
    if set(tags) != expected and codes <= MOST_CODES:
        return f"the tags are {sorted(tags)}, and its nodes have {sorted(expected)}"
    return None


_TRIED = frozenset({Mark.READY, Mark.ISSUED, Mark.RUNNING, Mark.DEFERRED})
"""Marks of nodes with an attempt before or behind them. A map has no attempts of its own."""
