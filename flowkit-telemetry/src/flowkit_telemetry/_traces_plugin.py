"""Plugin of the entry-point group ``flowkit``: traces, where the configuration asks for them, and a
check of their collector in ``flowkit doctor``.
"""

import os
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING

from flowkit.config import CommonConfig
from flowkit.protocols import Bus, CheckResult

if TYPE_CHECKING:
    from flowkit_telemetry._config import TelemetryConfig
    from flowkit_telemetry._traces import Traces


def flowkit_configure(config: CommonConfig) -> "Traces | None":
    """Return the traces of a process whose ``options.telemetry`` name an endpoint, or None."""
    if (settings := _settings(config)) is None:
        return None
    from flowkit_telemetry._provider import exporting_provider
    from flowkit_telemetry._traces import Traces

    return Traces(exporting_provider(settings))


def flowkit_check_bus(bus: Bus, config: CommonConfig) -> Awaitable[Sequence[CheckResult]] | None:
    """Return a check of the collector."""
    if (settings := _settings(config)) is None:
        return None
    from flowkit_telemetry._collector_check import check_collector

    return check_collector(settings)


def _settings(config: CommonConfig) -> "TelemetryConfig | None":
    """Return the settings of traces, or None without them or if OpenTelemetry is disabled."""
    if "telemetry" not in config.options:
        return None
    from flowkit_telemetry._config import TelemetryConfig

    settings = TelemetryConfig.from_options(config.options["telemetry"])
    is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return None if settings.traces_endpoint is None or is_disabled else settings
