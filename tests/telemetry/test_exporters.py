"""Spans are sent by the exporter for which the process has time."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult

from flowkit_telemetry._exporters import EndingExporter


class Kept(SpanExporter):
    def __init__(self) -> None:
        self.names: list[str] = []
        self.is_open = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.names += [span.name for span in spans]
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.is_open = False


def test_the_last_spans_of_a_process_are_sent_by_the_hurried_exporter() -> None:
    usual, last = Kept(), Kept()
    exporter = EndingExporter(usual, last)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    tracer.start_span("early").end()
    exporter.end()
    tracer.start_span("late").end()
    provider.shutdown()
    assert (usual.names, last.names) == (["early"], ["late"])
    assert not usual.is_open
    assert not last.is_open
