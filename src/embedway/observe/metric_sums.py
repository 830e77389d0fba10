"""Adds up the metrics of several processes that serve one address."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import add
from typing import Literal

from prometheus_client import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

Snapshot = Sequence[Metric]
"""All metrics of one process at one moment."""
Combine = Literal["sum", "min", "max"]
"""What becomes of a gauge that each process has a value of."""

# Those of the process itself. Of open files, the process that has most is the one to look at.
PROCESS_GAUGES: Mapping[str, Combine] = {
    "process_start_time_seconds": "min",
    "process_open_fds": "max",
    "process_max_fds": "min",
}
_FUNCTIONS: Mapping[Combine, Callable[[float, float], float]] = {
    "sum": add,
    "min": min,
    "max": max,
}


class Sums(Collector):
    """The sums of snapshots, as a collector that can be rendered."""

    def __init__(self, snapshots: Iterable[Snapshot], gauges: Mapping[str, Combine]) -> None:
        """Add the snapshots; gauges that are not named are summed, as counters are."""
        self._families: dict[str, Metric] = {}
        values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
        for family in (each for snapshot in snapshots for each in snapshot):
            of = values.setdefault(family.name, {})
            self._families.setdefault(family.name, family)
            combine = _FUNCTIONS[gauges.get(family.name, "sum")]
            for sample in family.samples:
                name = (sample.name, tuple(sample.labels.items()))
                of[name] = combine(of[name], sample.value) if name in of else sample.value
        self._values = values

    def collect(self) -> list[Metric]:
        """Return the sums."""
        summed: list[Metric] = []
        for name, family in self._families.items():
            metric = Metric(name, family.documentation, family.type)
            metric.samples = [
                Sample(sample, dict(labels), value)
                for (sample, labels), value in self._values[name].items()
            ]
            summed.append(metric)
        return summed


def only_counts(snapshot: Snapshot) -> Snapshot:
    """Return the counters and histograms, which still count once their process has ended."""
    return [each for each in snapshot if each.type in {"counter", "histogram"}]
