"""Spans of FlowKit that have ended without a change."""

from opentelemetry.sdk.trace import ReadableSpan


class UnchangedSpan(ReadableSpan):
    """Span of FlowKit as it was made: with texts and numbers as attributes, and without events."""
