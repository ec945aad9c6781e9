"""Options of the nodes of a flow in Python."""

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any, Literal, TypedDict

from flowkit.graph import Cache, Concurrency, RateLimit, RetryPolicy, Timeouts


class NodeOptions(TypedDict, total=False):
    """Fields of a node that handlers and calls may give. They mean the same as in a document."""

    node_id: str
    when: Any
    """Expression, or a value of the flow, such as ``rows.total > 3``."""
    fan_in: str
    on_satisfied: Literal["leave", "cancel"]
    optional: bool
    retry_policy: RetryPolicy | Mapping[str, Any]
    on_batch_failure: Literal["fail", "skip"]
    timeouts: Timeouts | Mapping[str, Any]
    priority: int
    concurrency: Concurrency | Mapping[str, Any]
    concurrency_key: str
    rate_limit: RateLimit | Mapping[str, Any]
    cache: Cache | Mapping[str, Any]
    """Its ``key`` may have values of the flow, such as ``{"key": page.url, "ttl_sec": 3600}``."""
    labels: Mapping[str, str]


def unknown_option(options: Mapping[str, Any]) -> str | None:
    """Return a sentence about an unknown option, or None."""
    known = NodeOptions.__annotations__
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known options: {', '.join(known)}"
            return f"unknown option {name!r}; {hint}"
    return None
