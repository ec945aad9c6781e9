"""Plugin of the entry-point group ``flowkit``: traces, where the configuration asks for them."""

from typing import TYPE_CHECKING

from flowkit.config import CommonConfig

if TYPE_CHECKING:
    from flowkit_telemetry._traces import Traces


def flowkit_configure(config: CommonConfig) -> "Traces | None":
    """Return the traces of a process whose ``options.telemetry`` name an endpoint, or None."""
    if "telemetry" not in config.options:
        return None
    from flowkit_telemetry._config import TelemetryConfig

    settings = TelemetryConfig.from_options(config.options["telemetry"])
    if settings.traces_endpoint is None:
        return None
    from flowkit_telemetry._provider import exporting_provider
    from flowkit_telemetry._traces import Traces

    return Traces(exporting_provider(settings))
