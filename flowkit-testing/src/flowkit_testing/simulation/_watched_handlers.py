"""Handlers whose calls in a simulation are recorded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

from flowkit.worker import Batch, FunctionHandler, Handler, PerRun, RunContext
from flowkit_testing.simulation._process import current_process


@dataclass(frozen=True, slots=True)
class Watched:
    """Handlers by role, and the roles whose handlers may override the metrics of their batches."""

    handlers: Any
    own_metrics: frozenset[str]


def watched(handlers: Any) -> Watched:
    """Return the same handlers, with their calls in simulations recorded."""
    if isinstance(handlers, Mapping):
        given = dict(handlers)
    elif isinstance(handlers, Sequence) and not isinstance(handlers, str | bytes):
        given = {getattr(item, "role", repr(item)): item for item in handlers}
    else:
        return Watched(handlers, frozenset())  # the worker reports their fault
    own = frozenset(role for role, handler in given.items() if _may_finalize(handler))
    return Watched({role: _watched(handler) for role, handler in given.items()}, own)


def _may_finalize(handler: Any) -> bool:
    kind = handler if isinstance(handler, type) else type(handler)
    return isinstance(handler, PerRun) or (
        issubclass(kind, Handler) and kind.finalize is not Handler.finalize
    )


def _watched(handler: Any) -> Any:
    if isinstance(handler, PerRun):
        make = handler.make
        return PerRun(lambda: _note_calls(make()))
    if isinstance(handler, type) and issubclass(handler, Handler):
        return PerRun(lambda: _note_calls(handler()))
    if isinstance(handler, Handler):
        return _note_calls(handler)
    if isinstance(handler, FunctionHandler):
        return _WatchedFunction(handler.function, role=handler.role)
    if callable(handler) and not isinstance(handler, type):
        return _WatchedFunction(handler)
    return handler


class _WatchedFunction(FunctionHandler[..., Any]):
    def _arguments(self, item: Any, ctx: RunContext) -> tuple[list[Any], dict[str, Any]]:
        _note(ctx.task_id, ctx.node_id, ctx.attempt, run=ctx)
        return super()._arguments(item, ctx)


def _note_calls(handler: Any) -> Any:
    """Record the calls of this object's methods.

    A second call for the same object changes nothing.
    """
    if isinstance(handler, Handler) and "process_batch" not in vars(handler):
        vars(handler)["init"] = _noting_init(handler.init)
        vars(handler)["process_batch"] = _noting_batch(handler.process_batch)
    return handler


def _noting_init(init: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(init)
    async def noting(run_info: dict[str, Any]) -> None:
        _note(run_info["task_id"], run_info["node_id"], run_info["attempt"])
        await init(run_info)

    return noting


def _noting_batch(process_batch: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(process_batch)
    async def noting(batch: Batch, ctx: RunContext) -> Any:
        _note(ctx.task_id, ctx.node_id, ctx.attempt, batch.batch_uid)
        return await process_batch(batch, ctx)

    return noting


def _note(
    task_id: str, node_id: str, attempt: int, batch_uid: str | None = None, *, run: object = None
) -> None:
    """Record a call of a handler.

    Calls with the same ``run`` belong to one run of a node. A batch always belongs to a run that
    has begun.
    """
    process = current_process()
    if process is not None:
        process.executes(task_id, node_id, attempt, batch_uid, run or object())
