"""Spans that OpenTelemetry's SDK makes only when they are changed."""

from collections.abc import Mapping, Sequence
from threading import Lock
from time import time_ns
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
)

from flowkit_telemetry._provider import Provider
from flowkit_telemetry._span_ids import chosen_span_id
from flowkit_telemetry._trace_contexts import below

_lock = Lock()


class DeferredSpan(Span):
    """Span with known ids, which becomes a span of the SDK with its first change, or when something
    is read that only such a span has.

    A span of the SDK copies and checks all that it holds, which takes longer than everything else
    around an attempt. Most handlers do not change the span of their attempt: it is recorded as it
    is when it ends. Threads may change the span at the same time. Changes after its end are
    ignored.
    """

    __slots__ = (
        "_attributes",
        "_context",
        "_kind",
        "_links",
        "_name",
        "_parent",
        "_provider",
        "_recorded",
        "_span",
        "_started_at",
    )

    def __init__(
        self,
        provider: Provider,
        name: str,
        context: SpanContext,
        parent: SpanContext,
        kind: SpanKind,
        attributes: Mapping[str, str | int],
        links: Sequence[Link] = (),
    ) -> None:
        self._provider = provider
        self._name = name
        self._context = context
        self._parent = parent
        self._kind = kind
        self._attributes = attributes
        self._links = links
        self._started_at = time_ns()
        # The span that gets the changes: one of the SDK, or one that ignores them after an end.
        self._span: Span | None = None
        # The span that was recorded, if this one ended without changes.
        self._recorded: ReadableSpan | None = None

    def get_span_context(self) -> SpanContext:
        return self._context

    def is_recording(self) -> bool:
        return self._span is None or self._span.is_recording()

    def end(self, end_time: int | None = None) -> None:
        with _lock:
            span = self._span
            if span is None:
                self._span = NonRecordingSpan(self._context)
        if span is not None:
            span.end(end_time)
            return
        self._recorded = self._provider.record(
            self._name,
            self._context,
            self._parent,
            self._kind,
            self._attributes,
            self._links,
            start_time=self._started_at,
            end_time=end_time,
        )

    def _changed(self) -> Span:
        with _lock:
            if self._span is None:
                with chosen_span_id(self._context.span_id):
                    self._span = self._provider.flowkit_tracer.start_span(
                        self._name,
                        below(self._parent),
                        self._kind,
                        self._attributes,
                        self._links,
                        self._started_at,
                    )
            return self._span

    def __getattr__(self, name: str) -> Any:
        """Return what only a span of the SDK has, such as its attributes."""
        if name.startswith("_"):  # copying looks for such names before the copy has any
            raise AttributeError(name)
        return getattr(self._recorded or self._changed(), name)

    # ------------------------------------------------ changes

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        self._changed().set_attributes(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self._changed().set_attribute(key, value)

    def add_event(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
    ) -> None:
        self._changed().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        self._changed().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._changed().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._changed().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._changed().record_exception(exception, attributes, timestamp, escaped)
