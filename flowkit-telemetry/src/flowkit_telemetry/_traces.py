"""Plugin that makes the spans of submissions, tasks, attempts and batches."""

from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from opentelemetry import trace as otel
from opentelemetry.context import Context, get_current
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
)

from flowkit import TaskStatus, TaskView, __version__
from flowkit.graph import NodeSpec
from flowkit.tracing import TraceContext, current_trace
from flowkit_telemetry._current_spans import CurrentSpan
from flowkit_telemetry._span_ids import (
    chosen_ids,
    span_id_of_attempt,
    span_id_of_task,
    trace_id_of_task,
)
from flowkit_telemetry._trace_contexts import below, flowkit_trace, sibling, span_context

MOST_TASKS = 10_000
"""Number of tasks whose positions in their traces are remembered."""


class Traces:
    """Plugin that makes spans with the tracers of a provider.

    The provider has :class:`~flowkit_telemetry._span_ids.ChosenIds`. A task is in the trace of its
    submission. Without one, its trace follows from its id.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("flowkit", __version__)
        self._sampler = provider.sampler
        self._task = lru_cache(maxsize=MOST_TASKS)(self._task_span)

    # ------------------------------------------------ submissions and tasks

    def flowkit_trace_submission(self, task_id: str, pipeline: str | None) -> TraceContext:
        """Return a new span below that of the caller: in a handler that of its attempt, elsewhere
        the current one of OpenTelemetry, else the one of :func:`~flowkit.tracing.use_trace`.
        """
        parent, trace = get_current(), current_trace()
        if not otel.get_current_span(parent).get_span_context().is_valid and trace is not None:
            parent = below(span_context(trace))
        span = self._tracer.start_span(
            "submit", parent, SpanKind.PRODUCER, _named(task_id, pipeline)
        )
        span.end()
        return flowkit_trace(span.get_span_context())

    def flowkit_task_changed(self, before: TaskView | None, after: TaskView) -> None:
        """Make the span of a task that has ended."""
        if not after.status.terminal or after.finished_at is None:
            return
        trace = current_trace()
        here = self._task(after.id, trace).span
        if not here.trace_flags.sampled:
            return
        attributes = _named(after.id, after.pipeline) | {"flowkit.task.status": after.status.value}
        parent, links = INVALID_SPAN_CONTEXT, []
        if trace is not None:
            parent = span_context(trace)
        if after.parent is not None:
            attributes |= {"flowkit.task.parent": after.parent}
            above = self._task(after.parent, trace).span
            links.append(Link(above, {"flowkit.link": "parent"}))
            if trace is not None:
                parent = above
        with chosen_ids(here.span_id, here.trace_id):
            span = self._tracer.start_span(
                "task",
                below(parent),
                attributes=attributes,
                links=links,
                start_time=_nanoseconds(after.created_at),
            )
        if after.status is TaskStatus.FAILED:
            span.set_status(Status(StatusCode.ERROR))
        span.end(_nanoseconds(after.finished_at))

    # ------------------------------------------------ attempts and batches

    def flowkit_around_attempt(self, node: NodeSpec, ctx: Any) -> AbstractContextManager[Any]:
        """Return the span of an attempt, with a link to that of the attempt before."""
        task = self._task(ctx.task_id, current_trace())
        span_id = span_id_of_attempt(ctx.task_id, ctx.node_id, ctx.attempt)
        if not task.span.trace_flags.sampled:
            # The sampler would say the same, and takes as long as all of the rest.
            return CurrentSpan(NonRecordingSpan(sibling(task.span, span_id)))
        links = []
        if ctx.attempt > 1:
            earlier = span_id_of_attempt(ctx.task_id, ctx.node_id, ctx.attempt - 1)
            links.append(Link(sibling(task.span, earlier), {"flowkit.link": "retry"}))
        with chosen_ids(span_id):
            span = self._tracer.start_span(
                f"attempt {node.type}",
                task.below,
                SpanKind.CONSUMER,
                {
                    "flowkit.task.id": ctx.task_id,
                    "flowkit.node.id": ctx.node_id,
                    "flowkit.node.role": node.type,
                    "flowkit.node.attempt": ctx.attempt,
                    "flowkit.worker.id": ctx.worker_id,
                },
                links,
            )
        return CurrentSpan(span)

    def flowkit_around_batch(self, batch: Any, ctx: Any) -> AbstractContextManager[Any] | None:
        """Return the span of a try of a batch, if that of its attempt is recorded."""
        if not otel.get_current_span().is_recording():
            return None
        span = self._tracer.start_span(
            "batch",
            attributes={
                "flowkit.batch.uid": batch.batch_uid,
                "flowkit.node.id": ctx.node_id,
                "flowkit.node.attempt": ctx.attempt,
            },
        )
        return CurrentSpan(span)

    # ------------------------------------------------ positions

    def _task_span(self, task_id: str, trace: TraceContext | None) -> "_TaskSpan":
        """Return the position of the span of a task."""
        span_id = span_id_of_task(task_id)
        if trace is not None:
            span = sibling(span_context(trace), span_id)
        else:
            trace_id = trace_id_of_task(task_id)
            decision = self._sampler.should_sample(None, trace_id, "task").decision
            flags = TraceFlags(int(decision is Decision.RECORD_AND_SAMPLE))
            span = SpanContext(trace_id, span_id, True, flags)
        return _TaskSpan(span, below(span))


class _TaskSpan(NamedTuple):
    """Position of the span of a task, and the context for spans below it."""

    span: SpanContext
    below: Context


def _named(task_id: str, pipeline: str | None) -> dict[str, str]:
    named = {"flowkit.task.id": task_id}
    return named if pipeline is None else named | {"flowkit.task.pipeline": pipeline}


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp() * 1e9)
