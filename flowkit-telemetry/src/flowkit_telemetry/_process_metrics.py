"""Metrics of the work of one coordinator, worker or client.

The library for the page is imported when the page is opened: clients that share the configuration
of a coordinator open none.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from flowkit.measures import MEASURES, Measure
from flowkit_telemetry._label_values import LabelValues
from flowkit_telemetry._metric_table import BUCKETS, METRICS

if TYPE_CHECKING:
    from prometheus_client.core import Metric

    from flowkit_telemetry._metrics_page import Page

Values = tuple[str, ...]
_LABELS = {name: meaning.labels for name, meaning in MEASURES.items()}


class Histogram:
    """Distribution of durations."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Return the upper bound of each bucket, and the number of durations up to it."""
        below, found = 0, []
        for bound, count in zip((*map(str, BUCKETS), "+Inf"), self.counts, strict=True):
            below += count
            found.append((bound, float(below)))
        return found


class ProcessMetrics:
    """Plugin that counts measures, and shows them on the page of its process.

    Each series begins with 0, because Prometheus sees no increase in the first value of a series.
    Those of which all label values are known are there from the start. The others begin when their
    role or pipeline is measured for the first time, with all values of the other labels.
    """

    def __init__(self) -> None:
        self._values = LabelValues()
        self._counts: dict[str, dict[Values, float]] = {}
        self._histograms: dict[str, dict[Values, Histogram]] = {}
        for name, meaning in MEASURES.items():
            if meaning.counts:
                self._counts[name] = {}
            else:
                self._histograms[name] = {}
            if meaning.values.keys() == set(meaning.labels):
                self._begin(name, {})

    def flowkit_measured(self, measures: Sequence[Measure]) -> None:
        """Add measures."""
        for name, value, labels in measures:
            values = tuple([labels[label] for label in _LABELS[name]])
            counts = self._counts.get(name)
            if counts is not None:
                if values not in counts:
                    values = self._begun(name, labels)
                counts[values] += value
                continue
            histograms = self._histograms[name]
            if (histogram := histograms.get(values)) is None:
                histogram = histograms[self._begun(name, labels)]
            histogram.add(value)

    def _begun(self, name: str, labels: Mapping[str, str]) -> Values:
        """Begin the series of a measure with new values of its labels, and return these values."""
        meaning = MEASURES[name]
        bounded = {
            label: value if label in meaning.values else self._values.bounded(label, value)
            for label, value in labels.items()
        }
        self._begin(name, bounded)
        return tuple(bounded[label] for label in meaning.labels)

    def _begin(self, name: str, labels: Mapping[str, str]) -> None:
        """Begin a series for each combination of these values with the known ones."""
        meaning = MEASURES[name]
        for values in product(
            *(meaning.values.get(label) or (labels[label],) for label in meaning.labels)
        ):
            if meaning.counts:
                self._counts[name].setdefault(values, 0)
            else:
                self._histograms[name].setdefault(values, Histogram())

    def flowkit_open_metrics(self, client: Any) -> "Page":
        """Return the page of this process."""
        from flowkit_telemetry._metrics_page import Page

        return Page(client=client, own=self.families)

    def families(self) -> "Iterator[Metric]":
        """Yield the metrics with their values."""
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        for name, counts in self._counts.items():
            meaning = MEASURES[name]
            counter = CounterMetricFamily(METRICS[name], meaning.description, labels=meaning.labels)
            for values, count in counts.items():
                counter.add_metric(values, count)
            yield counter
        for name, histograms in self._histograms.items():
            meaning = MEASURES[name]
            family = HistogramMetricFamily(
                METRICS[name], meaning.description, labels=meaning.labels
            )
            for values, histogram in histograms.items():
                family.add_metric(values, histogram.buckets(), histogram.total)
            yield family
