"""Encoding of spans in the format of OTLP."""

from collections.abc import Sequence
from functools import lru_cache

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from flowkit_telemetry._unchanged_spans import UnchangedSpan

MOST_ATTRIBUTES = 10_000
"""Number of attributes whose encoding is remembered."""

_KINDS = {kind: kind.value + 1 for kind in SpanKind}  # in OTLP, 0 is an unknown kind
_STATUSES = {
    StatusCode.UNSET: Status(),
    StatusCode.ERROR: Status(code=Status.STATUS_CODE_ERROR),
}
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def encoded(spans: Sequence[ReadableSpan]) -> bytes:
    """Return the bytes of an ``ExportTraceServiceRequest`` with these spans, in any order.

    OpenTelemetry encodes any span. The spans of FlowKit that no handler has changed are most of
    all, have attributes that repeat, and take a quarter of the time here. They have the same
    resource and scope.
    """
    plain: list[tuple[UnchangedSpan, list[KeyValue]]] = []
    others: list[ReadableSpan] = []
    for span in spans:
        if type(span) is UnchangedSpan and not span.links:
            try:
                attributes = [_attribute(*one) for one in (span.attributes or {}).items()]
                plain.append((span, attributes))
                continue
            except UnicodeEncodeError:
                pass  # OpenTelemetry leaves the attribute out
        others.append(span)
    of_others: bytes = encode_spans(others).SerializeToString()
    if not plain:
        return of_others
    # Without its first span, this is the message to which the other ones are added.
    request = encode_spans([plain[0][0]])
    (resource,) = request.resource_spans
    (scope,) = resource.scope_spans
    for span, attributes in plain[1:]:
        context, parent = span.context, span.parent
        scope.spans.add(
            trace_id=context.trace_id.to_bytes(16),
            span_id=context.span_id.to_bytes(8),
            trace_state=context.trace_state.to_header() if context.trace_state else "",
            parent_span_id=parent.span_id.to_bytes(8) if parent else b"",
            flags=_REMOTE if parent and parent.is_remote else _LOCAL,
            name=span.name,
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.start_time,
            end_time_unix_nano=span.end_time,
            attributes=attributes,
            dropped_attributes_count=span.dropped_attributes,
            status=_STATUSES[span.status.status_code],
        )
    # Two messages in a row are one message with the repeated fields of both.
    of_plain: bytes = request.SerializeToString()
    return of_plain + of_others


@lru_cache(maxsize=MOST_ATTRIBUTES)
def _attribute(key: str, value: str | int) -> KeyValue:
    if isinstance(value, str):
        return KeyValue(key=key, value=AnyValue(string_value=value))
    return KeyValue(key=key, value=AnyValue(int_value=value))
