"""Page of the metrics of a process, in the text format of Prometheus."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from flowkit_telemetry._figures import FigureReader, Figures
from flowkit_telemetry._metric_table import FIGURES


class _Families(Collector):
    """Collector of metrics that have their values."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class Page:
    """The metrics of a process, and the figures of its installation, if it has a client."""

    def __init__(self, *, client: Any, own: Callable[[], Iterable[Metric]] = tuple) -> None:
        """``own`` returns the metrics of the work of this process."""
        self._figures = None if client is None else FigureReader(client)
        self._own = own

    async def read(self) -> bytes:
        """Return the metrics as they are now, and figures that are at most 15 seconds old."""
        figures: Figures = {} if self._figures is None else await self._figures.read()
        registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=registry)
        registry.register(_Families([*self._own(), *_gauges(figures)]))
        return generate_latest(registry)


def _gauges(figures: Figures) -> Iterator[Metric]:
    for name, values in figures.items():
        figure = FIGURES[name]
        gauge = GaugeMetricFamily(name, figure.description, labels=figure.labels)
        for labels, value in values.items():
            gauge.add_metric(labels, value)
        yield gauge
