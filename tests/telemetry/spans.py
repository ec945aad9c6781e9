"""Spans that a test sees."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._provider import Provider
from flowkit_telemetry._traces import Traces


class Recorded:
    """Spans that are kept in memory, and the plugin that makes them."""

    def __init__(self, **settings: float) -> None:
        self._kept = InMemorySpanExporter()
        self.provider = Provider(TelemetryConfig(**settings))
        self.provider.add_span_processor(SimpleSpanProcessor(self._kept))
        self.plugin = Traces(self.provider)

    def named(self, name: str, **attributes: object) -> list[ReadableSpan]:
        """Return the spans with a name and with these attributes, whose names begin with
        ``flowkit.`` and have dots instead of underscores.
        """
        wanted = {f"flowkit.{key.replace('_', '.')}": value for key, value in attributes.items()}
        return [
            span
            for span in self.all()
            if span.name == name and wanted.items() <= dict(span.attributes).items()
        ]

    def one(self, name: str, **attributes: object) -> ReadableSpan:
        """Return the only span with a name and with these attributes."""
        (span,) = self.named(name, **attributes)
        return span

    def all(self) -> Sequence[ReadableSpan]:
        return self._kept.get_finished_spans()


def span_id(span: ReadableSpan) -> int:
    return span.context.span_id


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def links_of(span: ReadableSpan) -> list[int]:
    """Return the ids of the spans to which a span has links."""
    return [link.context.span_id for link in span.links]
