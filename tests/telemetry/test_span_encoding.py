"""Spans in the format of OTLP, compared with the encoding of OpenTelemetry."""

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import Link, SpanContext, SpanKind, TraceFlags, TraceState

from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._span_encoding import encoded
from flowkit_telemetry._span_sending import CollectorExporter
from tests.telemetry.collector import collecting
from tests.telemetry.spans import Recorded

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
STATE = TraceState([("vendor", "opaque"), ("other", "1")])
PARENTS = [
    None,
    SpanContext(2**127 + 1, 1, False, SAMPLED),
    SpanContext(1, 2**63 + 1, True, SAMPLED, STATE),
]
LINK = Link(SpanContext(5, 6, True), {"flowkit.link": "retry"})


def recorded(seen: Recorded, span_id: int, **other: Any) -> None:
    context = SpanContext(1, span_id, False, SAMPLED, other.pop("state", None))
    settings = {
        "parent": PARENTS[1],
        "kind": SpanKind.CONSUMER,
        "attributes": {"flowkit.node.id": f"n{span_id}", "flowkit.node.attempt": span_id % 3},
        "start_time": span_id,
        "end_time": 2 * span_id,
    } | other
    seen.provider.record(f"attempt {span_id}", context, **settings)


def by_id(data: bytes) -> tuple[Any, dict[bytes, Any]]:
    """Return the resource, the scope and the spans in a request."""
    request = ExportTraceServiceRequest.FromString(data)
    spans = {}
    for resource in request.resource_spans:
        (scope,) = resource.scope_spans
        spans |= {span.span_id: span for span in scope.spans}
    return (resource.resource, scope.scope), spans


def check(spans: tuple[ReadableSpan, ...]) -> None:
    assert by_id(encoded(spans)) == by_id(encode_spans(spans).SerializeToString())
    assert len(by_id(encoded(spans))[1]) == len(spans)


def test_spans_are_encoded_as_opentelemetry_encodes_them() -> None:
    seen = Recorded()
    for number, kind in enumerate(SpanKind, start=1):
        for parent in PARENTS:
            for state in (None, STATE):
                span_id = len(seen.all()) + 1
                recorded(
                    seen, span_id, kind=kind, parent=parent, state=state, failed=number % 2 == 0
                )
    recorded(seen, 1_000, links=[LINK])
    recorded(seen, 1_001, attributes={})
    check(seen.all())


def test_spans_that_were_changed_are_encoded_with_those_that_were_not() -> None:
    seen = Recorded()
    recorded(seen, 1)
    with seen.provider.flowkit_tracer.start_as_current_span("changed") as span:
        span.set_attribute("sizes", [1.5, True, b"x"])
        span.add_event("seen", {"by": "me"})
    recorded(seen, 2)
    check(seen.all())
    check(seen.all()[1:2])


def test_limits_are_encoded_with_the_number_of_attributes_that_they_drop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "1")
    seen = Recorded()
    recorded(seen, 1)
    recorded(seen, 2)
    check(seen.all())
    assert [span.dropped_attributes for span in seen.all()] == [1, 1]


def test_an_attribute_that_is_no_unicode_does_not_lose_the_other_spans() -> None:
    seen = Recorded()
    recorded(seen, 1)
    recorded(seen, 2, attributes={"flowkit.batch.uid": "\ud800"})
    recorded(seen, 3)
    check(seen.all())


# ---------------------------------------------------------------- sending


@pytest.mark.parametrize("compression", ["none", "gzip", "deflate"])
def test_all_spans_reach_the_collector_compressed_as_configured(
    monkeypatch: pytest.MonkeyPatch, compression: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", compression)
    seen = Recorded()
    for span_id in (1, 2, 3):
        recorded(seen, span_id)
    with collecting() as collector:
        endpoint = TelemetryConfig(**collector.options).traces_endpoint
        exporter = CollectorExporter(endpoint, 5)
        exporter.export(seen.all())
        exporter.shutdown()
    assert sorted(span.name for span in collector.spans) == ["attempt 1", "attempt 2", "attempt 3"]
    assert collector.compressions == [None if compression == "none" else compression]


def test_all_spans_are_sent_again_to_a_collector_that_failed_for_a_moment() -> None:
    seen = Recorded()
    for span_id in (1, 2, 3):
        recorded(seen, span_id)
    with collecting() as collector:
        collector.refusals = 1
        exporter = CollectorExporter(TelemetryConfig(**collector.options).traces_endpoint, 5)
        exporter.export(seen.all())
        exporter.shutdown()
    assert len(collector.spans) == 3
    assert len(collector.compressions) == 2
