"""Built-in coordinator functions."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from flowkit.coordinator.functions import FunctionContext
from flowkit.errors import VarsError


async def vars_set(
    ctx: FunctionContext, /, kv: dict[str, Any], block_sensitive: bool = False
) -> dict[str, Any]:
    """Set each path of ``kv`` to its value. The value replaces an earlier one, also an object.
    Result: ``{"keys": [...]}``, as given.

    ``{"a.b": 1}`` and ``{"a": {"b": 1}}`` both make ``a.b`` 1; the first keeps the rest of ``a``,
    the second replaces it.
    """
    ctx.set_vars(kv, block_sensitive)
    return {"keys": list(kv)}


async def vars_merge(
    ctx: FunctionContext, /, data: dict[str, Any], block_sensitive: bool = False
) -> dict[str, Any]:
    """Merge ``data`` into the vars: objects into objects, and other values replace. Result:
    ``{"keys": [...]}``, the keys of ``data``.
    """
    ctx.merge_vars(data, block_sensitive)
    return {"keys": list(data)}


async def vars_incr(ctx: FunctionContext, /, key: str, by: float = 1) -> dict[str, Any]:
    """Add ``by`` to a number, 0 if it is missing. Result: ``{"key": ..., "by": ...}``; the sum is
    in the task's vars.
    """
    ctx.incr_var(key, by)
    return {"key": key, "by": by}


async def vars_unset(ctx: FunctionContext, /, keys: list[str] | str) -> dict[str, Any]:
    """Remove one path or several, with the parents that become empty. Result: ``{"keys": [...]}``,
    including paths that were missing.
    """
    ctx.unset_vars(keys)
    return {"keys": [keys] if isinstance(keys, str) else list(keys)}


async def merge_generic(
    ctx: FunctionContext, /, from_nodes: list[str] | str, target: str
) -> dict[str, Any]:
    """Merge the results of nodes, in this order, into one object. Set the var ``target`` to the
    object and return it.

    Objects are merged into objects at every level; other values of later nodes replace those of
    earlier nodes. A result that is not an object is stored under the id of its node, and a node
    without a result is skipped. The limits of vars apply to the object.
    """
    node_ids = [from_nodes] if isinstance(from_nodes, str) else from_nodes
    if not isinstance(node_ids, list) or not all(isinstance(node_id, str) for node_id in node_ids):
        raise VarsError("merge.generic: from_nodes is a node id or a list of node ids")
    if not isinstance(target, str):
        raise VarsError("merge.generic: target is the path of a var")
    merged: dict[str, Any] = {}
    for node_id, result in (await ctx.results_of(node_ids)).items():
        if result is not None:
            _merge_into(merged, result if isinstance(result, dict) else {node_id: result})
    ctx.set_vars({target: merged})
    return merged


async def metrics_aggregate(
    ctx: FunctionContext, /, node_id: str, mode: Literal["sum", "mean"] = "sum"
) -> dict[str, Any]:
    """Return the sums of the metrics of a node's stored batches, or their means per batch.

    A batch without a metric counts as 0 in its mean. Result: ``{"node_id": ..., "mode": ...,
    "batches": n, "metrics": {...}}``. If no batch is stored, ``metrics`` is empty.
    """
    if mode not in ("sum", "mean"):
        raise VarsError("metrics.aggregate: mode is 'sum' or 'mean'")
    batches = await ctx.metrics_of(node_id)
    share = batches.count if mode == "mean" else 1
    metrics = {name: total / share if share > 1 else total for name, total in batches.sums.items()}
    return {"node_id": node_id, "mode": mode, "batches": batches.count, "metrics": metrics}


async def task_end(
    ctx: FunctionContext,
    /,
    status: Literal["finished", "failed", "cancelled"],
    result: Any = None,
    error: str | None = None,
) -> Any:
    """End the task as ``finished``, ``failed`` or ``cancelled``, with this result and error.

    What runs is cancelled. Then undos, unless the task finishes, and the nodes of ``finally`` run.
    """
    ctx.end_task(status, error)
    return result


async def noop(ctx: FunctionContext, /) -> None:
    """Do nothing. Such a node is a place where branches meet."""


BUILTIN_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "vars.set": vars_set,
    "vars.merge": vars_merge,
    "vars.incr": vars_incr,
    "vars.unset": vars_unset,
    "merge.generic": merge_generic,
    "metrics.aggregate": metrics_aggregate,
    "task.end": task_end,
    "noop": noop,
}


def register_functions(register: Callable[[str, Any], None]) -> None:
    """Register the built-in functions, for the hook ``flowkit_register_functions``."""
    for name, function in BUILTIN_FUNCTIONS.items():
        register(name, function)


def _merge_into(merged: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(merged.get(key), dict):
            _merge_into(merged[key], value)
        else:
            merged[key] = _copied(value)


def _copied(value: Any) -> Any:
    """Return a copy of a value's objects, so that a merge does not change the node's result."""
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value
