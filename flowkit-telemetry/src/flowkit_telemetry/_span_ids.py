"""Ids of spans: those of tasks and attempts follow from the ids of FlowKit.

So each process knows the id of the span of a task, and that of an earlier attempt.
"""

from contextvars import ContextVar
from hashlib import blake2b

from opentelemetry.sdk.trace.id_generator import RandomIdGenerator

SPAN_BYTES = 8
TRACE_BYTES = 16


def trace_id_of_task(task_id: str) -> int:
    """Return the id of the trace of a task that was submitted without one."""
    return _digest(TRACE_BYTES, "trace", task_id) or 1


def span_id_of_task(task_id: str) -> int:
    """Return the id of the span of a task."""
    return _digest(SPAN_BYTES, "task", task_id) or 1


def span_id_of_attempt(task_id: str, node_id: str, attempt: int) -> int:
    """Return the id of the span of an attempt of a node."""
    return _digest(SPAN_BYTES, "attempt", task_id, node_id, str(attempt)) or 1


def _digest(length: int, *parts: str) -> int:
    text = "\0".join(parts)
    return int.from_bytes(blake2b(text.encode(), digest_size=length).digest())


_chosen: ContextVar[int | None] = ContextVar("flowkit_span_id", default=None)


class ChosenIds(RandomIdGenerator):
    """Generator of ids, which are random unless they are chosen."""

    def generate_span_id(self) -> int:
        return _chosen.get() or super().generate_span_id()


class chosen_span_id:
    """Give a span that is started in this context this id."""

    __slots__ = ("_id", "_token")

    def __init__(self, span_id: int) -> None:
        self._id = span_id

    def __enter__(self) -> None:
        self._token = _chosen.set(self._id)

    def __exit__(self, *error: object) -> None:
        _chosen.reset(self._token)
