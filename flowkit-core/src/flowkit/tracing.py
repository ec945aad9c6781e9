"""The trace that work belongs to, as the W3C describes it (https://www.w3.org/TR/trace-context/).

FlowKit makes no spans: it carries the trace in which a task was submitted to the handlers of its
nodes, and from there to the tasks that these submit.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

# Version ff, and ids that are all zeros, are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_TRACESTATE = re.compile(r"[\x20-\x7e]{0,512}")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A place in a trace: the values of the headers ``traceparent`` and ``tracestate``.

    Raises:
        ValueError: one of them has not the form that the standard gives it; ``tracestate`` has at
            most 512 characters.
    """

    traceparent: str
    tracestate: str = ""

    def __post_init__(self) -> None:
        if not _TRACEPARENT.fullmatch(self.traceparent):
            raise ValueError(f"not a traceparent: {self.traceparent!r:.100}")
        if not _TRACESTATE.fullmatch(self.tracestate):
            raise ValueError(f"not a tracestate: {self.tracestate!r:.100}")


_current: ContextVar[TraceContext | None] = ContextVar("flowkit_trace", default=None)


def current_trace() -> TraceContext | None:
    """The trace of what runs now: in a handler that in which its task was submitted, else what
    :func:`use_trace` said.
    """
    return _current.get()


@contextmanager
def use_trace(trace: TraceContext | None) -> Iterator[None]:
    """Tasks that are submitted within belong to this trace, or to none."""
    before = _current.get()
    _current.set(trace)
    try:
        yield
    finally:
        # Not reset(): a run whose function goes on in its thread ends in a copy of the context that
        # it began in.
        _current.set(before)


def trace_from(headers: Mapping[str, str] | Mapping[str, bytes]) -> TraceContext | None:
    """The trace that headers tell of, those of a message or of an HTTP request; None if they tell
    of none, or in a wrong form.
    """
    traceparent = _text(headers.get("traceparent"))
    if not _TRACEPARENT.fullmatch(traceparent):
        return None
    tracestate = _text(headers.get("tracestate"))
    return TraceContext(traceparent, tracestate if _TRACESTATE.fullmatch(tracestate) else "")


def _text(value: str | bytes | None) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value or ""


__all__ = ["TraceContext", "current_trace", "trace_from", "use_trace"]
