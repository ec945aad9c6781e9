"""Metrics of FlowKit for Prometheus, and its traces for OpenTelemetry.

Installing the package is enough. A coordinator, a worker or ``flowkit webhooks`` with a
``metrics_port`` serves its metrics there, and ``flowkit web`` serves them at ``/metrics``. A
process with a ``traces_endpoint`` in its ``options.telemetry`` sends spans there.
"""
