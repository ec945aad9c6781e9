"""The provider of tracers: where spans go, and which are recorded."""

import atexit
from collections.abc import Mapping, Sequence
from functools import lru_cache
from time import time_ns
from typing import Any

from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from flowkit import __version__
from flowkit.errors import ConfigError
from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._exporters import EndingExporter
from flowkit_telemetry._span_ids import ChosenIds
from flowkit_telemetry._unchanged_spans import UnchangedSpan

EXPORT_SEC = 5
"""Time in which the collector answers."""
LAST_SEC = 1
"""The same for a process that ends."""


_SCOPE = InstrumentationScope("flowkit", __version__)
_UNSET, _FAILED = Status(), Status(StatusCode.ERROR)
MOST_ATTRIBUTES = 5
"""Number of attributes that a span has before it is changed."""


class Provider(TracerProvider):
    """Provider of tracers that also takes spans which were not made by them.

    The trace of a submission outside of any trace is sampled by the ratio of the settings.
    """

    def __init__(self, settings: TelemetryConfig) -> None:
        self._span_processors: list[SpanProcessor] = []
        super().__init__(
            sampler=ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource=Resource.create(
                {SERVICE_NAME: settings.service_name, SERVICE_VERSION: __version__}
            ),
            id_generator=ChosenIds(),
        )
        self.flowkit_tracer = self.get_tracer(_SCOPE.name, _SCOPE.version)
        """Tracer of FlowKit's own spans. It gives them the ids that ``chosen_span_id`` names."""
        limits = SpanLimits()
        most = limits.max_span_attributes
        is_limited = limits.max_span_attribute_length is not None or (
            most is not None and most < MOST_ATTRIBUTES
        )
        self._limits = limits if is_limited else None

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        super().add_span_processor(span_processor)
        self._span_processors.append(span_processor)

    def samples(self, trace_id: int) -> bool:
        """Return whether a new trace is recorded."""
        found = self.sampler.should_sample(None, trace_id, "")
        return found.decision is Decision.RECORD_AND_SAMPLE

    def record(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        kind: SpanKind,
        attributes: Mapping[str, Any],
        links: Sequence[Link] = (),
        *,
        start_time: int,
        end_time: int | None = None,
        failed: bool = False,
    ) -> UnchangedSpan:
        """Give the processors a span of FlowKit that has ended, and return it. They have not seen
        its start.

        Like spans of the SDK, it keeps the limits of attributes that the variables of OpenTelemetry
        set.
        """
        if (limits := self._limits) is not None:
            attributes = BoundedAttributes(
                limits.max_span_attributes,
                attributes,
                max_value_len=limits.max_span_attribute_length,
            )
        span = UnchangedSpan(
            name=name,
            context=context,
            parent=parent,
            resource=self.resource,
            attributes=attributes,
            links=links,
            kind=kind,
            status=_FAILED if failed else _UNSET,
            start_time=start_time,
            end_time=time_ns() if end_time is None else end_time,
            instrumentation_scope=_SCOPE,
        )
        for processor in self._span_processors:
            processor.on_end(span)
        return span


@lru_cache
def exporting_provider(settings: TelemetryConfig) -> Provider:
    """Return a provider that sends its spans to the endpoint of these settings.

    All coordinators, workers and clients of a process with these settings share it: it has a
    thread, and sends the last spans when the process ends.

    Raises:
        ConfigError: the exporter is not installed.
    """
    found = Provider(settings)
    exporter = EndingExporter(exporter_of(settings, EXPORT_SEC), exporter_of(settings, LAST_SEC))
    found.add_span_processor(BatchSpanProcessor(exporter))
    # Called before the exit function of the provider, which sends the last spans.
    atexit.register(exporter.end)
    return found


def exporter_of(settings: TelemetryConfig, timeout_sec: float) -> SpanExporter:
    """Return an exporter that sends spans to the endpoint of these settings.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import opentelemetry.exporter.otlp.proto.http  # noqa: F401
    except ImportError:
        raise ConfigError(
            "options.telemetry.traces_endpoint: the exporter is not installed; pip install"
            " 'flowkit-telemetry[otlp]'"
        ) from None
    from flowkit_telemetry._span_sending import CollectorExporter

    return CollectorExporter(settings.traces_endpoint, timeout_sec)
