"""The provider of tracers: where spans go, and which are recorded."""

import atexit
from functools import lru_cache

from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from flowkit import __version__
from flowkit.errors import ConfigError
from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._exporters import EndingExporter
from flowkit_telemetry._span_ids import ChosenIds

EXPORT_SEC = 5
"""Time in which the collector answers."""
LAST_SEC = 1
"""The same for a process that ends."""


def provider(settings: TelemetryConfig) -> TracerProvider:
    """Return a provider with the sampling and the resource of these settings."""
    resource = Resource.create({SERVICE_NAME: settings.service_name, SERVICE_VERSION: __version__})
    sampler = ParentBased(TraceIdRatioBased(settings.sample_ratio))
    return TracerProvider(sampler=sampler, resource=resource, id_generator=ChosenIds())


@lru_cache
def exporting_provider(settings: TelemetryConfig) -> TracerProvider:
    """Return a provider that sends its spans to the endpoint of these settings.

    All coordinators, workers and clients of a process with these settings share it: it has a
    thread, and sends the last spans when the process ends.

    Raises:
        ConfigError: the exporter is not installed.
    """
    found = provider(settings)
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
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError:
        raise ConfigError(
            "options.telemetry.traces_endpoint: the exporter is not installed; pip install"
            " 'flowkit-telemetry[otlp]'"
        ) from None
    return OTLPSpanExporter(endpoint=settings.traces_endpoint, timeout=timeout_sec)
