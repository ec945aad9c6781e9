"""Keys of caches, and the results that are stored under them.

The key of a record begins with what the nodes run that share its result: a role, a registered flow,
or a graph. A hash of the key that the user gives follows.
"""

from hashlib import blake2b
from typing import Any

from pydantic_core import to_json

from flowkit._engine import ReturnKey
from flowkit._engine.key_places import Value
from flowkit._json.canonical import canonical_json
from flowkit.graph import FlowRef, Plan
from flowkit.graph._expanded_plan import node_of
from flowkit.task import Task

MOST_BYTES = 1_000_000
"""Length of a result, as JSON, above which it is not stored."""


def cache_key(plan: Plan, index: int, value: Any) -> str:
    """Return the key of the record for a node and the value of its cache key."""
    return f"{_work_of(plan, index)}\n{hash_of(value)}"


def _work_of(plan: Plan, index: int) -> str:
    """Return what the nodes run that share a result with this one."""
    match plan.nested.get(node_of(plan, index)):
        case None:
            return role_prefix(plan.nodes[index].type)
        case FlowRef(name):
            return flow_prefix(name)
        case graph:
            return f"{GRAPHS}{_digest(graph)}"


GRAPHS = "graph:"
"""Beginning of the keys of sub-flows that have a graph of their own."""


def role_prefix(role: str) -> str:
    """Return the beginning of the keys of a role."""
    return f"role:{role}"


def flow_prefix(name: str) -> str:
    """Return the beginning of the keys of a registered flow."""
    return f"flow:{name}"


def hash_of(value: Any) -> str:
    """Return a hash of a cache key. Equal JSON values have the same."""
    return _digest(canonical_json(value).encode())


def _digest(data: bytes) -> str:
    return blake2b(data, digest_size=32).hexdigest()


def value_of(task: Task, effect: ReturnKey, now: float) -> Value | None:
    """Return the value that is to be stored for a node; None if there is none."""
    cache = task.spec.plan.nodes[effect.index].cache
    if cache is None or not effect.stores or len(to_json(effect.result)) > MOST_BYTES:
        return None
    return Value(effect.result, now + cache.ttl_sec)
