"""Exporter that waits for the collector as long as the process has time."""

from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult


class EndingExporter(SpanExporter):
    """Exporter that sends spans with one exporter, and with another one once the process ends.

    So a collector that is away does not hold up the end of a process, and a slow one has time.
    """

    def __init__(self, usual: SpanExporter, last: SpanExporter) -> None:
        self._usual = usual
        self._last = last
        self._is_ending = False

    def end(self) -> None:
        """Send all further spans with the second exporter."""
        self._is_ending = True

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return (self._last if self._is_ending else self._usual).export(spans)

    def shutdown(self) -> None:
        self._usual.shutdown()
        self._last.shutdown()
