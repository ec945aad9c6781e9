"""Trace context of a task, as the W3C defines it (https://www.w3.org/TR/trace-context/).

The core creates no spans; a plugin may. The core passes the trace in which a task was submitted to
the handlers of its nodes, and from there to the tasks that they submit.
"""

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache

# Version ff, and ids that are all zeros, are invalid.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
_TRACESTATE = re.compile(r"[\x20-\x7e]{0,512}")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Position in a trace: the values of the headers ``traceparent`` and ``tracestate``.

    Raises:
        ValueError: a value does not have the format of the standard, or ``tracestate`` has more
            than 512 characters.
    """

    traceparent: str
    tracestate: str = ""

    def __post_init__(self) -> None:
        if not _TRACEPARENT.fullmatch(self.traceparent):
            raise ValueError(f"not a traceparent: {self.traceparent!r:.100}")
        if not _TRACESTATE.fullmatch(self.tracestate):
            raise ValueError(f"not a tracestate: {self.tracestate!r:.100}")

    @property
    def trace_id(self) -> str:
        """Id of the trace, in 32 hexadecimal digits."""
        return self.traceparent[3:35]

    @property
    def span_id(self) -> str:
        """Id of the span, in 16 hexadecimal digits."""
        return self.traceparent[36:52]

    @property
    def sampled(self) -> bool:
        """Whether the spans of the trace are recorded."""
        return bool(int(self.traceparent[53:55], 16) & 1)


# All messages of a task have its trace in their headers.
_shared = lru_cache(maxsize=1_000)(TraceContext)

_current: ContextVar[TraceContext | None] = ContextVar("flowkit_trace", default=None)


def current_trace() -> TraceContext | None:
    """Return the current trace.

    In a handler, this is the trace in which the task was submitted. Elsewhere it is the one that
    :func:`use_trace` set.
    """
    return _current.get()


class use_trace:
    """Submit tasks within this trace, or within none, while the context is open."""

    # No generator: each run enters one, and a generator takes three times as long.
    __slots__ = ("_before", "_trace")

    def __init__(self, trace: TraceContext | None) -> None:
        self._trace = trace

    def __enter__(self) -> None:
        self._before = _current.get()
        _current.set(self._trace)

    def __exit__(self, *error: object) -> None:
        # Not reset(): a run whose function goes on in its thread ends in a copy of the context that
        # it began in.
        _current.set(self._before)


def continue_in(trace: TraceContext | None) -> None:
    """Go on within this trace until the innermost open :func:`use_trace` is closed."""
    _current.set(trace)


def trace_from(headers: Mapping[str, str] | Mapping[str, bytes]) -> TraceContext | None:
    """Return the trace in the headers of a message or an HTTP request, or None.

    None means that the headers contain no trace, or one in a wrong format.
    """
    if "traceparent" not in headers:
        return None
    traceparent = _text(headers.get("traceparent"))
    if not _TRACEPARENT.fullmatch(traceparent):
        return None
    tracestate = _text(headers.get("tracestate"))
    return _shared(traceparent, tracestate if _TRACESTATE.fullmatch(tracestate) else "")


def _text(value: str | bytes | None) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value or ""


__all__ = ["TraceContext", "current_trace", "trace_from", "use_trace"]
