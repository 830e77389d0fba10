"""Counters and histograms for what happens in every request.

They cost a request a fifth of what those of `prometheus_client` do, which take a lock for each
value. Count in the thread of the event loop only.
"""

from bisect import bisect_left
from collections.abc import Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class CounterTally(Collector):
    """A counter with labels."""

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str], *, registry: CollectorRegistry
    ) -> None:
        """Add an empty counter to `registry`."""
        self._name, self._documentation, self._labels = name, documentation, labels
        self._values: dict[tuple[str, ...], float] = {}
        registry.register(self)

    def add(self, amount: float, *labels: str) -> None:
        """Count `amount` for these values of the labels."""
        values = self._values
        values[labels] = values.get(labels, 0) + amount

    def collect(self) -> list[CounterMetricFamily]:
        """Return the values now."""
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for labels, value in list(self._values.items()):
            family.add_metric(labels, value)
        return [family]


class HistogramTally(Collector):
    """A histogram, with labels or without."""

    def __init__(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        *,
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """Add an empty histogram to `registry`; it counts up to each of `buckets`, which ascend."""
        self._name, self._documentation, self._labels = name, documentation, labels
        self._bounds = tuple(map(float, buckets))
        self._counts: dict[tuple[str, ...], list[int]] = {}
        """How many observations are in each bucket, by the values of the labels."""
        self._sums: dict[tuple[str, ...], float] = {}
        if not labels:
            self._add_labels(())
        registry.register(self)

    def observe(self, amount: float, *labels: str) -> None:
        """Count an observation for these values of the labels."""
        if labels not in self._sums:
            self._add_labels(labels)
        self._counts[labels][bisect_left(self._bounds, amount)] += 1
        self._sums[labels] += amount

    def collect(self) -> list[HistogramMetricFamily]:
        """Return the values now."""
        family = HistogramMetricFamily(self._name, self._documentation, labels=self._labels)
        names = [*map(str, self._bounds), "+Inf"]
        for labels, counts in list(self._counts.items()):
            total, buckets = 0, list[tuple[str, float]]()
            for name, count in zip(names, counts, strict=True):
                total += count
                buckets.append((name, total))
            family.add_metric(labels, buckets, self._sums[labels])
        return [family]

    def _add_labels(self, labels: tuple[str, ...]) -> None:
        self._counts[labels] = [0] * (len(self._bounds) + 1)
        self._sums[labels] = 0.0
