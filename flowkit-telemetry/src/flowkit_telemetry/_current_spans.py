"""A span that is the current one of a handler."""

from contextlib import AbstractContextManager
from types import TracebackType
from typing import Self

from opentelemetry.context import attach, get_current
from opentelemetry.trace import Span, StatusCode, set_span_in_context

from flowkit.tracing import TraceContext, use_trace


class CurrentSpan(AbstractContextManager["CurrentSpan"]):
    """Context in which a span is the current one, for OpenTelemetry and for FlowKit.

    Its end ends the span. Of an error, only the type is recorded: its text may contain data. A
    cancellation is no error.
    """

    def __init__(self, span: Span, trace: TraceContext) -> None:
        """``trace`` is the position of the span, as FlowKit carries it."""
        self._span = span
        self._trace = use_trace(trace)

    def __enter__(self) -> Self:
        self._before = get_current()
        attach(set_span_in_context(self._span, self._before))
        self._trace.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._trace.__exit__(None, None, None)
        # Not detach(): a run whose function goes on in its thread ends in a copy of the context.
        attach(self._before)
        if error is not None:
            self._span.set_attribute("error.type", type(error).__qualname__)
        if isinstance(error, Exception):
            self._span.set_status(StatusCode.ERROR)
        self._span.end()
