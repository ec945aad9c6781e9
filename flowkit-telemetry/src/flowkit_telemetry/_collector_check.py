"""Check of the collector in ``flowkit doctor``."""

from collections.abc import Sequence

import anyio.to_thread
from opentelemetry.sdk.trace.export import SpanExportResult

from flowkit.adapters import redacted
from flowkit.protocols import CheckResult
from flowkit_telemetry._config import TelemetryConfig
from flowkit_telemetry._provider import exporter_of

CHECK_SEC = 2
"""Time in which the collector answers the check."""
REMEDY = (
    "options.telemetry.traces_endpoint is the address of a collector for OTLP over HTTP, which must"
    " run and be reachable; the address usually ends with /v1/traces"
)


async def check_collector(settings: TelemetryConfig) -> Sequence[CheckResult]:
    """Return a check that sends no span to the collector, as a process sends its spans.

    Raises:
        ConfigError: the exporter is not installed.
    """
    exporter = exporter_of(settings, CHECK_SEC)
    result = await anyio.to_thread.run_sync(exporter.export, [])
    place = redacted(settings.traces_endpoint or "")
    if result is SpanExportResult.SUCCESS:
        return [CheckResult("traces", True, f"{place} accepts spans")]
    return [CheckResult("traces", False, f"{place} accepts no spans", REMEDY)]
