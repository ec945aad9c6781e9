"""Plugin that makes the spans of submissions, tasks, attempts and batches."""

from contextlib import AbstractContextManager
from datetime import datetime
from functools import lru_cache
from time import time_ns
from typing import Any, NamedTuple

from opentelemetry import trace as otel
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
)

from flowkit import TaskStatus, TaskView
from flowkit.graph import NodeSpec
from flowkit.tracing import TraceContext, current_trace
from flowkit_telemetry._current_spans import CurrentSpan
from flowkit_telemetry._deferred_spans import DeferredSpan
from flowkit_telemetry._provider import Provider
from flowkit_telemetry._span_ids import span_id_of_attempt, span_id_of_task, trace_id_of_task
from flowkit_telemetry._trace_contexts import at_span, flowkit_trace, sibling, span_context

MOST_TASKS = 10_000
"""Number of tasks whose positions in their traces are remembered."""
FLAGS = {sampled: TraceFlags(int(sampled)) for sampled in (False, True)}


class Traces:
    """Plugin that makes spans with a provider.

    A task is in the trace of its submission. Without one, its trace follows from its id.
    """

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._task = lru_cache(maxsize=MOST_TASKS)(self._task_span)

    # ------------------------------------------------ submissions and tasks

    def flowkit_trace_submission(self, task_id: str, pipeline: str | None) -> TraceContext:
        """Return a new span below that of the caller: in a handler that of its attempt, elsewhere
        the current one of OpenTelemetry, else the one of :func:`~flowkit.tracing.use_trace`.
        """
        parent, trace = otel.get_current_span().get_span_context(), current_trace()
        if not parent.is_valid and trace is not None:
            parent = span_context(trace)
        span = self._below(parent)
        if span.trace_flags.sampled:
            now = time_ns()
            self._provider.record(
                "submit",
                span,
                parent if parent.is_valid else None,
                SpanKind.PRODUCER,
                _named(task_id, pipeline),
                start_time=now,
                end_time=now,
            )
        return flowkit_trace(span)

    def flowkit_task_changed(self, before: TaskView | None, after: TaskView) -> None:
        """Make the span of a task that has ended."""
        if not after.status.terminal or after.finished_at is None:
            return
        trace = current_trace()
        here = self._task(after.id, trace)
        if not here.is_sampled:
            return
        attributes = _named(after.id, after.pipeline) | {"flowkit.task.status": after.status.value}
        parent, links = None if trace is None else span_context(trace), []
        if after.parent is not None:
            attributes |= {"flowkit.task.parent": after.parent}
            above = self._task(after.parent, trace).span
            links.append(Link(above, {"flowkit.link": "parent"}))
            if trace is not None:
                parent = above
        self._provider.record(
            "task",
            here.span,
            parent,
            SpanKind.INTERNAL,
            attributes,
            links,
            start_time=_nanoseconds(after.created_at),
            end_time=_nanoseconds(after.finished_at),
            failed=after.status is TaskStatus.FAILED,
        )

    # ------------------------------------------------ attempts and batches

    def flowkit_around_attempt(self, node: NodeSpec, ctx: Any) -> AbstractContextManager[Any]:
        """Return the span of an attempt, with a link to that of the attempt before."""
        task = self._task(ctx.task_id, current_trace())
        task_id, node_id, attempt, role = ctx.task_id, ctx.node_id, ctx.attempt, node.type
        span_id = span_id_of_attempt(task_id, node_id, attempt)
        here, trace = sibling(task.span, span_id, is_remote=False), at_span(task.trace, span_id)
        if not task.is_sampled:
            return CurrentSpan(NonRecordingSpan(here), trace)
        links: tuple[Link, ...] = ()
        if attempt > 1:
            earlier = span_id_of_attempt(task_id, node_id, attempt - 1)
            links = (Link(sibling(task.span, earlier), {"flowkit.link": "retry"}),)
        attributes = {
            "flowkit.task.id": task_id,
            "flowkit.node.id": node_id,
            "flowkit.node.role": role,
            "flowkit.node.attempt": attempt,
            "flowkit.worker.id": ctx.worker_id,
        }
        span = DeferredSpan(
            self._provider, f"attempt {role}", here, task.span, SpanKind.CONSUMER, attributes, links
        )
        return CurrentSpan(span, trace)

    def flowkit_around_batch(self, batch: Any, ctx: Any) -> AbstractContextManager[Any] | None:
        """Return the span of a try of a batch, if that of its attempt is recorded."""
        attempt = otel.get_current_span()
        if not attempt.is_recording():
            return None
        parent = attempt.get_span_context()
        attributes = {
            "flowkit.batch.uid": batch.batch_uid,
            "flowkit.node.id": ctx.node_id,
            "flowkit.node.attempt": ctx.attempt,
        }
        here = self._below(parent)
        span = DeferredSpan(self._provider, "batch", here, parent, SpanKind.INTERNAL, attributes)
        return CurrentSpan(span, flowkit_trace(here))

    # ------------------------------------------------ positions

    def _task_span(self, task_id: str, trace: TraceContext | None) -> "_TaskSpan":
        """Return the position of the span of a task."""
        span_id = span_id_of_task(task_id)
        if trace is not None:
            span = sibling(span_context(trace), span_id)
        else:
            trace_id = trace_id_of_task(task_id)
            span = SpanContext(trace_id, span_id, True, FLAGS[self._provider.samples(trace_id)])
        return _TaskSpan(span, flowkit_trace(span), span.trace_flags.sampled)

    def _below(self, parent: SpanContext) -> SpanContext:
        """Return the position of a new span, which is the first of its trace if the parent is not
        valid.
        """
        ids = self._provider.id_generator
        span_id = ids.generate_span_id()
        if parent.is_valid:
            flags = FLAGS[parent.trace_flags.sampled]
            return SpanContext(parent.trace_id, span_id, False, flags, parent.trace_state)
        trace_id = ids.generate_trace_id()
        return SpanContext(trace_id, span_id, False, FLAGS[self._provider.samples(trace_id)])


class _TaskSpan(NamedTuple):
    """Position of the span of a task, for OpenTelemetry and for FlowKit."""

    span: SpanContext
    trace: TraceContext
    is_sampled: bool


def _named(task_id: str, pipeline: str | None) -> dict[str, str | int]:
    named: dict[str, str | int] = {"flowkit.task.id": task_id}
    return named if pipeline is None else named | {"flowkit.task.pipeline": pipeline}


def _nanoseconds(time: datetime) -> int:
    return int(time.timestamp() * 1e9)
