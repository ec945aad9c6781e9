"""Sending of spans to a collector, by OTLP over HTTP."""

import gzip
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from flowkit_telemetry._span_encoding import encoded

_COMPRESSIONS: Mapping[object, Callable[[bytes], bytes]] = {
    None: bytes,
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


class CollectorExporter(SpanExporter):
    """Exporter of OpenTelemetry that sends spans as FlowKit encodes them.

    It has the connections, the retries and the variables of OpenTelemetry's exporter, which encodes
    only the first span, for a body that is replaced.
    """

    def __init__(self, endpoint: str | None, timeout_sec: float) -> None:
        self._bodies = _Bodies()
        session = Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, self._bodies)
        self._exporter = OTLPSpanExporter(endpoint=endpoint, timeout=timeout_sec, session=session)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._bodies.next = encoded(spans)
        return self._exporter.export(spans[:1])

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


class _Bodies(HTTPAdapter):
    """Sender of requests that replaces their bodies by ``next``."""

    next = b""

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        request.body = _COMPRESSIONS[request.headers.get("Content-Encoding")](self.next)
        request.prepare_content_length(request.body)
        return super().send(request, *args, **kwargs)
