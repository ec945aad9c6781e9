"""Conversions between FlowKit's trace contexts and those of OpenTelemetry."""

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from flowkit.tracing import TraceContext

MOST_STATE_CHARS = 512


def span_context(trace: TraceContext) -> SpanContext:
    """Return the position of a trace, which may come from another process."""
    return SpanContext(
        int(trace.trace_id, 16),
        int(trace.span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(trace.sampled)),
        trace_state=TraceState.from_header([trace.tracestate]),
    )


def sibling(context: SpanContext, span_id: int, *, is_remote: bool = True) -> SpanContext:
    """Return another span of the same trace."""
    return SpanContext(
        context.trace_id, span_id, is_remote, context.trace_flags, context.trace_state
    )


def below(context: SpanContext) -> Context:
    """Return a context of OpenTelemetry in which new spans are children of this one."""
    return set_span_in_context(NonRecordingSpan(context), Context())


def flowkit_trace(context: SpanContext) -> TraceContext:
    """Return the position as FlowKit carries it."""
    state = context.trace_state.to_header() if context.trace_state else ""
    flags = int(context.trace_flags.sampled)
    return TraceContext(
        f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags:02x}",
        state if len(state) <= MOST_STATE_CHARS else "",
    )


def at_span(trace: TraceContext, span_id: int) -> TraceContext:
    """Return the position of another span of the same trace."""
    parent = trace.traceparent
    return TraceContext(f"{parent[:36]}{span_id:016x}{parent[52:]}", trace.tracestate)
