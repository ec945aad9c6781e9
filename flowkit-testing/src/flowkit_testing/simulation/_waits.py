"""The rules of nodes that wait, for two stored states of a node, written without the engine."""

from flowkit.task import NodeRecord


def broken_wait(node_type: str, before: NodeRecord | None, after: NodeRecord) -> str | None:
    """Describe why a node that waited must not have finished as it has; return None if it may."""
    wait = None if before is None or before.attempt != after.attempt else before.wait
    ended_at = after.finished_at or 0.0
    if node_type == "sleep":
        if after.result is not None:
            return f"a sleep has the result {after.result!r}"
        if wait is not None and ended_at < (wait.until or 0.0):
            return f"it slept until {ended_at} and should have slept until {wait.until}"
    return None
