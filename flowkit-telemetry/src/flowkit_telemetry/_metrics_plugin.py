"""Plugin of the entry-point group ``flowkit``: metrics.

The libraries are imported where the configuration needs them, so that an installed plugin costs
nothing.
"""

from typing import TYPE_CHECKING, Any

from flowkit.config import CommonConfig, ServiceConfig

if TYPE_CHECKING:
    from flowkit_telemetry._metrics_page import Page
    from flowkit_telemetry._process_metrics import ProcessMetrics


def flowkit_configure(config: CommonConfig) -> "ProcessMetrics | None":
    """Return the metrics of a process that serves them, or None."""
    if not isinstance(config, ServiceConfig) or config.metrics_port is None:
        return None
    from flowkit_telemetry._process_metrics import ProcessMetrics

    return ProcessMetrics()


def flowkit_open_metrics(client: Any) -> "Page":
    """Return a page with the figures of the installation, for a process without own measures."""
    from flowkit_telemetry._metrics_page import Page

    return Page(client=client)
